/**
 * `npm run bench:pauses`: for how long programs stop when another node loses its power. On two nodes a file is written, read and looked at that
 * only this program uses, and files are made and removed; of the volume of the node that dies, and of another volume. What counts is
 * the longest round, beside the longest of a run without a death: the machine's own pauses are in both.
 */
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { must, run } from "../../overlay/lab/command.ts";
import type { NodeReport } from "../../overlay/lab/observe.ts";
import { compileLoad, loadValue, projectRoot, runHeldLoad } from "./load.ts";

const LENGTH_MS = 15_000;
const QUIET_MS = 5000;
/** Into the run, so that all programs are at it. */
const DEATH_AFTER_MS = 2000;
const UP_TIMEOUT_MS = 180_000;
const SECOND_BYTES = 256 * 2 ** 20;

const program = path.join(projectRoot, "dist/overlay/main.js");
const print = (line: string): void => void process.stdout.write(`${line}\n`);

type Kind = "held" | "new";

/** A directory in which rounds are made. */
interface Place {
  readonly title: string;
  readonly dir: string;
  readonly kind: Kind;
}

class Pauses {
  readonly #dir: string;
  readonly #load: string;
  readonly #loops: string[] = [];
  #fresh = 0;

  constructor(dir: string, load: string) {
    this.#dir = dir;
    this.#load = load;
  }

  async lab(...words: string[]): Promise<string> {
    return must(process.execPath, [program, "lab", "--dir", this.#dir, ...words], { timeoutMs: UP_TIMEOUT_MS });
  }

  async nodes(): Promise<NodeReport[]> {
    return (JSON.parse(await this.lab("status", "--json")) as { nodes: NodeReport[] }).nodes;
  }

  /** The second volume on those nodes; the first one is its owner. Gives its mount points. */
  async mountSecond(nodes: readonly NodeReport[]): Promise<string[]> {
    const image = path.join(this.#dir, "second.img");
    writeFileSync(image, "");
    truncateSync(image, SECOND_BYTES);
    await must("mkfs.ext4", ["-q", "-F", image]);
    for (const _ of nodes) this.#loops.push((await must("losetup", ["--find", "--show", "--direct-io=on", image])).trim());
    const yaml = readFileSync(path.join(this.#dir, "cluster.yaml"), "utf8");
    const cluster = /^cluster: (\S+)$/m.exec(yaml)?.[1] ?? "";
    const enable = ["volume", "enable", this.#loops[0] ?? "", "--cluster", cluster, "--name", "second", "--json"];
    const { uuid } = JSON.parse(await must(process.execPath, [program, ...enable])) as { uuid: string };
    const changed = path.join(this.#dir, "second.yaml");
    writeFileSync(changed, `${yaml.replace("version: 1", "version: 2").trimEnd()}\n  - { name: second, uuid: ${uuid}, lower: device }\n`);
    await must(process.execPath, [program, "config", "apply", changed, "--run-dir", nodes[0]?.runDir ?? ""]);
    const points: string[] = [];
    for (const [at, node] of nodes.entries()) {
      const point = path.join(path.dirname(node.mount), "second");
      mkdirSync(point);
      await this.lab(
        "exec",
        node.node,
        "--",
        process.execPath,
        program,
        "mount",
        this.#loops[at] ?? "",
        point,
        "-o",
        `runDir=${node.runDir}`,
      );
      points.push(point);
    }
    return points;
  }

  /** All places at one time; gives the longest round of each, in ms. */
  async measure(places: readonly Place[], lengthMs: number, event: () => Promise<void>): Promise<number[]> {
    let waiting = places.length;
    let begin = (): void => {};
    const begun = new Promise<void>((resolve) => (begin = resolve));
    const happens = begun.then(event);
    const longest = places.map(async ({ dir, kind }) => {
      const own = path.join(dir, `pauses-${this.#fresh++}`);
      mkdirSync(own);
      const ready = (): Promise<void> => {
        waiting -= 1;
        if (waiting === 0) begin();
        return begun;
      };
      const values = await runHeldLoad(this.#load, ["gaps", own, lengthMs, kind], { ready, done: () => happens });
      return loadValue(values, "longestNs") / 1e6;
    });
    const result = await Promise.all(longest);
    await happens;
    return result;
  }

  async compare(title: string, places: readonly Place[], victim: string): Promise<void> {
    const quiet = await this.measure(places, QUIET_MS, async () => {});
    const dying = await this.measure(places, LENGTH_MS, async () => {
      await new Promise((resolve) => {
        setTimeout(resolve, DEATH_AFTER_MS);
      });
      await this.lab("kill", victim);
    });
    print(`\n${title}: the longest round, in ms`);
    for (const [at, { title: place, kind }] of places.entries()) {
      const what = kind === "held" ? "write, read, stat of a file it holds" : "make and remove a file";
      print(`  ${place}, ${what}: ${dying[at]?.toFixed(1)}; without a death ${quiet[at]?.toFixed(1)}`);
    }
    await this.lab("start", victim);
  }

  async end(): Promise<void> {
    await this.lab("down");
    for (const loop of this.#loops) await run("losetup", ["--detach", loop]);
  }
}

async function measureAll(pauses: Pauses): Promise<void> {
  await pauses.lab("up", "--detach", "--nodes", "3", "--lower", "ext4", "--size", "512M");
  const [first, ...rest] = await pauses.nodes();
  const owner = (await pauses.nodes()).find(({ role }) => role === "owner");
  const [other, third] = [first, ...rest].filter((node) => node !== undefined && node.node !== owner?.node) as [NodeReport, NodeReport];
  if (owner === undefined) throw new Error("the lab should have an owner");
  const both = (title: string, dir: string): Place[] => (["held", "new"] as const).map((kind) => ({ title, dir, kind }));
  await pauses.compare(
    "A node dies that is not the owner",
    [...both("owner", owner.mount), ...both("another node", other.mount)],
    third.node,
  );
  const [ofOther = "", ofThird = ""] = await pauses.mountSecond([other, third]);
  await pauses.compare(
    "The owner of one volume dies; another volume",
    [...both("its owner", ofOther), ...both("another node", ofThird)],
    owner.node,
  );
}

const dir = realpathSync(mkdtempSync(path.join(os.tmpdir(), "coverlay-pauses-")));
const pauses = new Pauses(path.join(dir, "lab"), await compileLoad(dir));
try {
  await measureAll(pauses);
} finally {
  await pauses.end();
  rmSync(dir, { recursive: true });
}
