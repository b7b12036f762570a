/** `coverlay why` and `locks` on three nodes: the same answer from each of them, and an answer while lock service does not run. */
import { execFile } from "node:child_process";
import path from "node:path";
import { afterEach, expect, test } from "vitest";
import type { FileLockOwner } from "../../../dlmd/client/file-lock-api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { dist } from "../../built.ts";
import { type TestCluster, createCluster } from "./cluster.ts";

const { PR, EX } = Mode;
/** Enough that each of three nodes is the master of one. */
const MANY = Array.from({ length: 8 }, (_, at) => `file ${at}`);

let cluster: TestCluster | null = null;
afterEach(async () => {
  await cluster?.close();
  cluster = null;
});

interface Said {
  readonly status: number;
  readonly text: string;
}

function coverlay(runDir: string, ...words: string[]): Promise<Said> {
  const program = path.join(dist, "overlay/main.js");
  return new Promise((resolve) => {
    const args = ["--enable-source-maps", program, ...words, "--run-dir", runDir];
    execFile(process.execPath, args, (error, stdout, stderr) =>
      resolve({ status: typeof error?.code === "number" ? error.code : 0, text: stdout + stderr }),
    );
  });
}

test("why: the holder, the waiter and what it waits for, from every node; a node that hangs is named, and so is why nothing is granted", async () => {
  const made = (cluster = createCluster({ nodes: 3 }));
  const [one, two] = await made.startAll();
  const held = await one!.lock("job");
  expect(await held.request(PR)).toBe("granted");
  const waiter = await two!.lock("job");
  waiter.lock.request(EX, 0);
  await held.bast();

  for (const nodeid of [1, 2, 3]) {
    const { status, text } = await coverlay(made.runDir(nodeid), "why", "test", "job");
    expect(text).toMatch(
      new RegExp(
        `node2/client \\d+ \\(pid ${process.pid}[^)]*\\) waits for EX since [0-9.]+ s, because node1/client \\d+ \\(pid ${process.pid}[^)]*\\) has PR; a blocking AST \\(EX is wanted\\) was sent [0-9.]+ s ago and is not answered`,
      ),
    );
    expect(status).toBe(0);
  }
  expect(await coverlay(made.runDir(3), "why", "nothing")).toEqual({ status: 1, text: "nobody has it or waits for it\n" });

  const list = JSON.parse((await coverlay(made.runDir(3), "locks", "--node", "node2", "--waiting", "--json")).text) as object;
  expect(list).toMatchObject({ truncated: false, resources: [{ resource: "job", waitQueue: [{ nodeid: 2, requested: "EX" }] }] });
  expect((await coverlay(made.runDir(3), "locks", "--waiting", "600000")).text).toBe("no locks\n");
  expect((await coverlay(made.runDir(1), "locks", "--node", "node9")).text).toMatch(
    /a node of the cluster expected[\s\S]*node1, node2, node3/,
  );

  // File locks in the same way.
  const owner = (pid: number): FileLockOwner => ({ kind: "posix", owner: BigInt(pid), pid });
  const [mine, theirs] = [await one!.client.fileLocks("test"), await two!.client.fileLocks("test")];
  const asked = performance.now();
  for (const name of MANY) expect(await mine.lock(name, owner(44), { type: "write" }).done).toBe("granted");
  const granted = performance.now();
  expect(await mine.lock("doc", owner(41), { type: "write", start: 0n, end: 9n }).done).toBe("granted");
  const later = theirs.lock("doc", owner(42), { type: "read" });
  // What this one wants is free: it waits for its turn alone.
  const behind = theirs.lock("doc", owner(43), { type: "write", start: 20n, end: 29n });
  // Answered behind them, by the same master.
  await theirs.test("doc", owner(42), { type: "read" });
  const words = await coverlay(made.runDir(3), "why", "doc");
  expect(words.status).toBe(0);
  expect(words.text).toMatch(
    /node2\/client \d+ \(pid 42[^)]*\) waits for read on bytes 0 to the end since [0-9.]+ s, because node1\/client \d+ \(pid 41[^)]*\) has what excludes it/,
  );
  expect(words.text).toMatch(
    /node2\/client \d+ \(pid 43[^)]*\) waits for write on bytes 20 to 29 since [0-9.]+ s, because the request of node2\/client \d+ \(pid 42[^)]*\) for read on bytes 0 to the end is ahead of it in line\n/,
  );
  expect((await coverlay(made.runDir(3), "locks", "doc")).text).toMatch(
    /held {7}node1\/\d+ \(pid 41[^)]*\) write on bytes 0 to 9 since [0-9.]+ s\n/,
  );
  await mine.unlock("doc", owner(41));
  expect(await later.done).toBe("granted");
  await theirs.unlock("doc", owner(42));
  expect(await behind.done).toBe("granted");
  /** Since when node 1 holds it, and who is its master, as node 2 is told. */
  const heldNow = async (name: string): Promise<{ masterNodeid: number; heldMs: number }> => {
    const { files } = JSON.parse((await coverlay(made.runDir(2), "locks", name, "--json")).text) as {
      files: { masterNodeid: number; held: { heldMs: number }[] }[];
    };
    return { masterNodeid: files[0]?.masterNodeid ?? 0, heldMs: files[0]?.held[0]?.heldMs ?? -1 };
  };
  const masters = new Map<string, number>();
  for (const name of MANY) {
    const from = performance.now();
    const { masterNodeid, heldMs } = await heldNow(name);
    masters.set(name, masterNodeid);
    // The master knew before the program did. An age is told in whole milliseconds.
    expect(heldMs).toBeGreaterThanOrEqual(Math.floor(from - granted));
    expect(heldMs).toBeLessThanOrEqual(Math.ceil(performance.now() - asked));
  }
  const ofThird = MANY.find((name) => masters.get(name) === 3);
  expect(ofThird).toBeDefined();

  const status = await coverlay(made.runDir(1), "status");
  expect(status.text).toMatch(
    /quorum {3}3 of 3 votes, quorate because 3 >= 2\nlocks {4}granted\nopen {5}test is open on node1, node2\nengine {3}sequencer node1; .*\nchannels node2 up, \d+ unack.*\n {9}node3 up/,
  );
  // One word finds a view change in the log.
  expect(made.log(1).findLast(({ msg }) => msg === "view")).toMatchObject({ members: [1, 2, 3], quorate: true, running: true });

  // A dlmd that hangs: asked at once, it is still a member.
  made.signal(3, "SIGSTOP");
  const hanging = await coverlay(made.runDir(1), "why", "job");
  made.signal(3, "SIGCONT");
  expect(hanging.text).toMatch(/node3 was not heard: it (did not answer within 2 s|left the view before it answered|is not in the view)/);

  // A node that is gone is named. (gone.test.ts: a program that does not let go of it.)
  await one!.seen([1, 2, 3]);
  const killed = performance.now();
  await made.kill(3, "SIGKILL");
  await two!.seen([1, 2]);
  const without = await coverlay(made.runDir(2), "why", "job");
  expect(without.text).toMatch(/node1\/client \d+ \(pid \d+.* has PR/);
  expect(without.text).toMatch(/node3 was not heard: it is not in the view/);
  // Its file locks have another master, which was told for how long they are held.
  await one!.client.fileLocks("test").then((files) => files.test(ofThird ?? "", owner(45), { type: "read" }));
  const kept = await heldNow(ofThird ?? "");
  expect(kept.masterNodeid).not.toBe(3);
  expect(kept.heldMs).toBeGreaterThanOrEqual(Math.floor(killed - granted));
  expect(kept.heldMs).toBeLessThanOrEqual(Math.ceil(performance.now() - asked));
});
