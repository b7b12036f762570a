/** The examples that use dlmd by itself, as their users run them: real programs on three nodes. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { afterEach, expect, onTestFailed, test } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { takeLock } from "../../../dlmd/client/held-lock.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { until } from "../actor.ts";
import { Happenings, type TestCluster, createCluster } from "./cluster.ts";

let cluster: TestCluster | null = null;
const programs: ChildProcess[] = [];
afterEach(async () => {
  for (const child of programs.splice(0)) child.kill("SIGKILL");
  await cluster?.close();
  cluster = null;
});

interface Program {
  readonly said: string[];
  /** Line `at` of what it said. */
  line(at: number): Promise<string>;
  tell(line: string): void;
  readonly child: ChildProcess;
}

function example(name: string, ...words: string[]): Program {
  const program = path.resolve(import.meta.dirname, `../../../dist/examples/${name}.js`);
  const child = spawn(process.execPath, [program, ...words], { stdio: ["pipe", "pipe", "inherit"] });
  programs.push(child);
  const said: string[] = [];
  const happenings = new Happenings();
  createInterface({ input: child.stdout }).on("line", (line) => {
    said.push(line);
    happenings.happened();
  });
  return {
    said,
    child,
    async line(at) {
      await happenings.until(() => said.length > at);
      return said[at] as string;
    },
    tell: (line) => void child.stdin.write(`${line}\n`),
  };
}

test("the cluster-wide counter: three programs on three nodes add, and no addition is lost", async () => {
  const made = (cluster = createCluster({ nodes: 3 }));
  await made.startAll();
  const turns = 200;
  const counters = [1, 2, 3].map((nodeid) => example("cluster-counter", path.join(made.runDir(nodeid), "dlmd.sock"), String(turns)));
  const results = await Promise.all(counters.map((counter) => counter.line(0)));
  const last = results.map((line) => Number(line.split(" ").at(-1)));
  expect(Math.max(...last)).toBe(3 * turns);
  expect(results.filter((line) => line.startsWith("from 0 "))).toHaveLength(1);
  for (const { child } of counters) child.stdin?.end();
});

test("the cache: answers alone while nobody changes the value, and never with an old one", async () => {
  const made = (cluster = createCluster({ nodes: 3 }));
  await made.startAll();
  const values = path.join(made.dir, "values");
  mkdirSync(values);
  const [one, two] = [1, 2].map((nodeid) => example("reader-writer-cache", path.join(made.runDir(nodeid), "dlmd.sock"), values)) as [
    Program,
    Program,
  ];
  one.tell("get colour");
  expect(await one.line(0)).toBe("colour = (nothing), read");
  one.tell("get colour");
  expect(await one.line(1)).toBe("colour = (nothing), cached");
  for (let i = 0; i < 50; i++) {
    const [writer, reader] = i % 2 === 0 ? [two, one] : [one, two];
    writer.tell(`set colour blue ${i}`);
    expect(await writer.line(writer.said.length)).toBe("colour set");
    reader.tell("get colour");
    expect(await reader.line(reader.said.length)).toBe(`colour = blue ${i}, read`);
    reader.tell("get colour");
    expect(await reader.line(reader.said.length)).toBe(`colour = blue ${i}, cached`);
  }
});

test("the ordered log: three programs on three nodes print the same lines, and one that is killed is seen to go", async () => {
  const made = (cluster = createCluster({ nodes: 3 }));
  await made.startAll();
  const logs: Program[] = [];
  // Each waits for its own join, so the first has seen all three.
  onTestFailed(() => {
    const said = logs.map((log) => `${log.said.length} lines: ${[...log.said.slice(0, 4), "...", ...log.said.slice(-4)].join(" | ")}`);
    console.error([...said, made.story()].join("\n"));
  });
  for (const nodeid of [1, 2, 3]) {
    const log = example("ordered-log", path.join(made.runDir(nodeid), "dlmd.sock"));
    await log.line(0);
    logs.push(log);
  }
  const [one, two, three] = logs as [Program, Program, Program];
  await one.line(2);
  for (let i = 0; i < 50; i++) for (const log of logs) log.tell(`line ${i}`);
  for (const [at, log] of [...logs].reverse().entries()) await log.line(at + 150);
  expect(one.said.slice(2)).toEqual(three.said);
  expect(two.said.slice(1)).toEqual(three.said);
  expect(three.said.findLast((line) => line.startsWith("node 1 client"))).toMatch(/#50: line 49$/);
  three.child.kill("SIGKILL");
  expect(await one.line(153)).toMatch(/^- node 3 client \d+ \(client-died\)$/);
  expect(await two.line(152)).toBe(one.said[153]);
  one.child.stdin?.end();
  expect(await two.line(153)).toMatch(/^- node 1 client \d+ \(left\)$/);
  two.child.stdin?.end();
});

test("locks for await: taken, converted, refused, taken back, timed out", async () => {
  const made = (cluster = createCluster({ nodes: 2 }));
  const [one, two] = (await made.startAll()) as [Awaited<ReturnType<TestCluster["connect"]>>, Awaited<ReturnType<TestCluster["connect"]>>];
  const [mine, theirs] = [await one.client.lockspace("test"), await two.client.lockspace("test")];
  const basts: Mode[] = [];
  const lock = await takeLock(mine, "r", Mode.EX, { lvb: true, onBast: (_, wanted) => basts.push(wanted) });
  const code = async (promise: Promise<unknown>): Promise<string> => {
    const error = await promise.then(
      () => null,
      (reason: unknown) => reason,
    );
    return error instanceof OperatingError ? error.code : String(error);
  };
  const { LockFlag } = await import("../../../dlmd/client/api.ts");
  expect(await code(takeLock(theirs, "r", Mode.PR, { flags: LockFlag.NOQUEUE }))).toBe("lock-busy");
  expect(await code(takeLock(theirs, "r", Mode.PR, { timeoutMs: 20 }))).toBe("lock-timeout");
  const controller = new AbortController();
  const waiting = takeLock(theirs, "r", Mode.PR, { signal: controller.signal });
  await until("who holds it is asked", () => basts.length > 0);
  expect(await code(lock.convert(Mode.PR).then(() => lock.convert(Mode.PR)))).toBe("null");
  await waiting;
  controller.abort();
  const ended = new AbortController();
  const taken = code(takeLock(theirs, "r", Mode.EX, { signal: ended.signal }));
  ended.abort();
  expect(await taken).toBe("lock-canceled");
  expect(basts[0]).toBe(Mode.PR);
  const first = lock.convert(Mode.NL);
  expect(await code(lock.convert(Mode.NL))).toBe("EBUSY");
  await first;
  await lock.unlock();
  expect(await code(takeLock(mine, "", Mode.PR))).toBe("bad-name");
});

test("the package's own name for all this: coverlay/dlm, as dlmd/client/README.md shows it", async () => {
  const readme = readFileSync(path.resolve(import.meta.dirname, "../../../dlmd/client/README.md"), "utf8");
  const line = readme.match(/import \{ ([^}]+) \} from "(coverlay\/[a-z]+)"/);
  const names = line?.[1]?.split(", ") ?? [];
  const script = `console.log(JSON.stringify(Object.keys(await import(${JSON.stringify(line?.[2])}))))`;
  const said = execFileSync(process.execPath, ["--input-type=module", "-e", script], {
    cwd: path.resolve(import.meta.dirname, "../../.."),
  });
  expect(names.length).toBeGreaterThan(0);
  expect(JSON.parse(said.toString())).toEqual(expect.arrayContaining(names));
});
