/** The lab of `npm run bench:pauses`: programs that make rounds on its nodes, while something happens. */
import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { must, run } from "../../overlay/lab/command.ts";
import { labFiles } from "../../overlay/lab/layout.ts";
import type { NodeReport } from "../../overlay/lab/observe.ts";
import { isAlive } from "../../overlay/lab/processes.ts";
import { existingLab, labNodes } from "../../overlay/lab/state.ts";
import { type NodeLog, nodeLog } from "./failover-parts.ts";
import { loadValue, projectRoot, runHeldLoad } from "./load.ts";

const UP_TIMEOUT_MS = 180_000;
const SECOND_BYTES = 256 * 2 ** 20;

const program = path.join(projectRoot, "dist/overlay/main.js");
/** What a round is: of load.c, `gaps`. */
export type Kind = "held" | "new" | "asked";

/** A directory in which rounds are made. */
export interface Place {
  readonly title: string;
  readonly dir: string;
  readonly kind: Kind;
}

/** The longest round of a place, and when it ended (Unix time). */
export interface Pause {
  readonly ms: number;
  readonly endMs: number;
}

export class Pauses {
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
      await this.coverlay(node, "mount", this.#loops[at] ?? "", point, "-o", `runDir=${node.runDir}`);
      points.push(point);
    }
    return points;
  }

  /** Gives its stdout. */
  async coverlay(node: NodeReport, ...words: string[]): Promise<string> {
    return this.lab("exec", node.node, "--", process.execPath, program, ...words);
  }

  async load(...words: (string | number)[]): Promise<void> {
    await must(this.#load, words.map(String), { timeoutMs: UP_TIMEOUT_MS });
  }

  /** Gives when it was (Unix time): the end of its lock manager. What the command takes before and after that is not the cluster's. */
  async powerOff({ node, nodeid }: NodeReport): Promise<number> {
    const dlmd = labNodes(existingLab(this.#dir)).find((one) => one.nodeid === nodeid)?.dlmd ?? null;
    if (dlmd === null) throw new Error(`${node} has no lock manager`);
    const killing = this.lab("kill", node);
    while (isAlive(dlmd)) await sleep(1);
    const atMs = Date.now();
    await killing;
    return atMs;
  }

  get image(): string {
    return labFiles(this.#dir).image;
  }

  /** What its programs have logged, by now. */
  log(node: NodeReport): NodeLog {
    const dirs = [path.join(this.#dir, node.node), node.runDir];
    const files = dirs.flatMap((dir) => readdirSync(dir).map((file) => path.join(dir, file)));
    return nodeLog(
      node.node,
      files.filter((file) => file.endsWith(".log")).map((file) => readFileSync(file, "utf8")),
    );
  }

  /** `stop` is made a while after the event, whether it went well or not: the programs end with it. */
  async #until(stop: string, restMs: number, event: Promise<void>): Promise<void> {
    try {
      await event;
    } finally {
      await sleep(restMs);
      writeFileSync(stop, "");
    }
  }

  /** All places at one time, until `restMs` after the event is over; gives the longest round of each. */
  async measure(places: readonly Place[], restMs: number, event: () => Promise<void>): Promise<Pause[]> {
    const stop = path.join(path.dirname(this.#dir), `stop-${this.#fresh++}`);
    let waiting = places.length;
    let begin = (): void => {};
    const begun = new Promise<void>((resolve) => (begin = resolve));
    const happens = this.#until(stop, restMs, begun.then(event));
    const longest = places.map(async ({ dir, kind }) => {
      const own = path.join(dir, `pauses-${this.#fresh++}`);
      mkdirSync(own);
      const ready = (): Promise<void> => {
        waiting -= 1;
        if (waiting === 0) begin();
        return begun;
      };
      const values = await runHeldLoad(this.#load, ["gaps", own, stop, kind], { ready, done: () => happens });
      return { ms: loadValue(values, "longestNs") / 1e6, endMs: loadValue(values, "longestEndMs") };
    });
    const result = await Promise.all(longest);
    await happens;
    return result;
  }

  async end(): Promise<void> {
    await this.lab("down");
    for (const loop of this.#loops) await run("losetup", ["--detach", loop]);
  }
}
