/**
 * `npm run bench:pauses`: what a failure and a move cost the programs on other nodes, beside the limits of the project, in one run. Programs make
 * rounds in a lab while something happens, and the longest round of each counts. A run in which nothing happens has the machine's own pauses.
 */
import { copyFileSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import yargs from "yargs";
import { hideBin } from "yargs/helpers";
import { must } from "../../overlay/lab/command.ts";
import type { NodeReport } from "../../overlay/lab/observe.ts";
import { failoverParts } from "./failover-parts.ts";
import { compileLoad } from "./load.ts";
import { type Kind, type Pause, Pauses, type Place } from "./pauses-lab.ts";

/** For so long rounds are made after it happened: longer than the others need. */
const DEATH_MS = 15_000;
const QUIET_MS = 5000;
const MOVE_MS = 4000;
/** Into the run, so that all programs are at it. */
const AFTER_MS = 2000;
/** Of cluster.yaml: what a lab has. */
const DETECTION_MS = 3000;
const DIRTY_FILES = 5000;
const DIRTY_BYTES = 4096;

/** What was measured; `limitMs` null: it is shown beside the others. */
interface Figure {
  readonly what: string;
  readonly ms: number | null;
  readonly limitMs: number | null;
}

interface Nodes {
  readonly owner: NodeReport;
  readonly others: readonly [NodeReport, NodeReport];
}

const at = (title: string, dir: string, ...kinds: Kind[]): Place[] => kinds.map((kind) => ({ title, dir, kind }));
const longest = (pauses: readonly Pause[]): Pause => pauses.reduce((most, pause) => (pause.ms > most.ms ? pause : most));

class Failover {
  readonly #pauses: Pauses;
  readonly #dir: string;
  readonly #figures: Figure[] = [];
  readonly #print: (line: string) => void;

  constructor(pauses: Pauses, dir: string, print: (line: string) => void) {
    this.#pauses = pauses;
    this.#dir = dir;
    this.#print = print;
  }

  get figures(): readonly Figure[] {
    return this.#figures;
  }

  #add(what: string, ms: number | null, limitMs: number | null): void {
    this.#figures.push({ what, ms, limitMs });
    const words = ms === null ? "not seen" : `${ms.toFixed(0)} ms`;
    const limit = limitMs === null ? "" : `, limit ${limitMs} ms${ms !== null && ms <= limitMs ? "" : ": OVER"}`;
    this.#print(`  ${what}: ${words}${limit}`);
  }

  async #nodes(): Promise<Nodes> {
    const nodes = await this.#pauses.nodes();
    const owner = nodes.find(({ role }) => role === "owner");
    const others = nodes.filter((node) => node !== owner);
    const [one, other] = others;
    if (owner === undefined || one === undefined || other === undefined)
      throw new Error("a lab of three nodes has an owner and two others");
    return { owner, others: [one, other] };
  }

  #while(places: readonly Place[], restMs: number, event: () => Promise<unknown>): Promise<Pause[]> {
    return this.#pauses.measure(places, restMs, async () => {
      await sleep(AFTER_MS);
      await event();
    });
  }

  async quiet(): Promise<void> {
    const { owner, others } = await this.#nodes();
    this.#print("Nothing happens");
    const places = [...at("owner", owner.mount, "held", "new", "asked"), ...at("another node", others[0].mount, "held", "new", "asked")];
    const pauses = await this.#pauses.measure(places, QUIET_MS, async () => {});
    for (const [index, { title, kind }] of places.entries()) this.#add(`${title}, ${kind}`, pauses[index]?.ms ?? null, null);
  }

  async move(): Promise<void> {
    this.#print("The volume is handed over");
    for (let time = 0; time < 3; time++) {
      const { owner, others } = await this.#nodes();
      const to = others[0];
      const places = [owner, ...others].flatMap((node) => at(node.node, node.mount, "new", "asked"));
      const pauses = await this.#while(places, MOVE_MS, () =>
        this.#pauses.coverlay(owner, "handover", owner.mount, to.node, "--run-dir", owner.runDir),
      );
      this.#add(`from ${owner.node} to ${to.node}, on any node`, longest(pauses).ms, 1000);
    }
  }

  async overlayDies(): Promise<void> {
    const { owner, others } = await this.#nodes();
    this.#print("The owner's overlay is killed, and its node lives");
    const pauses = await this.#while(
      others.flatMap((node) => at(node.node, node.mount, "asked")),
      MOVE_MS,
      () => this.#pauses.lab("kill", owner.node, "--what", "overlay"),
    );
    this.#add("on another node", longest(pauses).ms, 1000);
    const fences = others.flatMap((node) => this.#pauses.log(node).lines).filter(({ words }) => words.includes("fencing begins here"));
    if (fences.length > 0) throw new Error(`there was a fence, though the node lives: ${fences[0]?.words}`);
    await this.#pauses.lab("start", owner.node);
  }

  async otherDies(): Promise<void> {
    const { owner, others } = await this.#nodes();
    const [one, victim] = others;
    this.#print("A node dies that is not the owner");
    const places = [...at("owner", owner.mount, "held", "new"), ...at("another node", one.mount, "held", "new")];
    const pauses = await this.#while(places, DEATH_MS, () => this.#pauses.lab("kill", victim.node));
    for (const [index, { title, kind }] of places.entries()) {
      this.#add(`${title}, ${kind}`, pauses[index]?.ms ?? null, kind === "held" ? 100 : null);
    }
    await this.#pauses.lab("start", victim.node);
  }

  async ownerDies(): Promise<void> {
    const { owner, others } = await this.#nodes();
    this.#print(`The owner's node dies, with ${DIRTY_FILES} files that are not on its disk`);
    const dirty = path.join(others[0].mount, "dirty");
    const copy = path.join(this.#dir, "journal.img");
    let killedMs = 0;
    const pauses = await this.#while(
      others.flatMap((node) => at(node.node, node.mount, "asked")),
      DEATH_MS,
      async () => {
        await this.#pauses.load("mkdir", dirty);
        await this.#pauses.load("make", dirty, DIRTY_FILES, DIRTY_BYTES);
        killedMs = await this.#pauses.powerOff(owner);
        copyFileSync(this.#pauses.image, copy);
      },
    );
    const pause = longest(pauses);
    const logs = others.map((node) => this.#pauses.log(node));
    const { detectionMs, viewMs, fenceMs, mountMs, answerMs } = failoverParts(logs, killedMs, owner.nodeid, pause.endMs - killedMs);
    this.#add("detection: until it is called lost", detectionMs, DETECTION_MS);
    this.#add("agreement: to a view without it", viewMs, null);
    this.#add("fence: to the proof", fenceMs, null);
    this.#add("claim, mount(2), server: to the mounted lower", mountMs, null);
    this.#add("files opened again, and the first answer", answerMs, null);
    this.#add("from the proof to service", mountMs === null ? null : mountMs + answerMs, 1000);
    this.#add("all of it", pause.endMs - killedMs, null);
    this.#add("beside it, the replay of the journal alone: tune2fs and mount of a copy", await this.#replay(copy), null);
    await this.#pauses.lab("start", owner.node);
  }

  async #replay(image: string): Promise<number> {
    const point = mkdtempSync(path.join(this.#dir, "replay-"));
    const loop = (await must("losetup", ["--find", "--show", "--direct-io=on", image])).trim();
    try {
      const beginMs = performance.now();
      // Its block of MMP names the dead owner. This replays the journal already.
      await must("tune2fs", ["-f", "-E", "clear_mmp", loop]);
      await must("mount", ["-t", "ext4", loop, point]);
      const ms = performance.now() - beginMs;
      await must("umount", [point]);
      return ms;
    } finally {
      await must("losetup", ["--detach", loop]);
      rmSync(image);
    }
  }

  async otherVolume(): Promise<void> {
    const { owner, others } = await this.#nodes();
    const [ofOne = "", ofOther = ""] = await this.#pauses.mountSecond(others);
    this.#print("The owner of one volume dies; programs on another volume");
    const places = [...at("its owner", ofOne, "held", "new"), ...at("another node", ofOther, "held", "new")];
    const pauses = await this.#while(places, DEATH_MS, () => this.#pauses.lab("kill", owner.node));
    for (const [index, { title, kind }] of places.entries()) this.#add(`${title}, ${kind}`, pauses[index]?.ms ?? null, 5000);
    await this.#pauses.lab("start", owner.node);
  }
}

async function measureAll(dir: string, print: (line: string) => void): Promise<readonly Figure[]> {
  const pauses = new Pauses(path.join(dir, "lab"), await compileLoad(dir));
  try {
    await pauses.lab("up", "--detach", "--nodes", "3", "--lower", "ext4", "--size", "512M");
    const failover = new Failover(pauses, dir, print);
    await failover.quiet();
    await failover.move();
    await failover.overlayDies();
    await failover.otherDies();
    await failover.ownerDies();
    await failover.otherVolume();
    return failover.figures;
  } finally {
    await pauses.end();
  }
}

async function main(): Promise<number> {
  const { json } = await yargs(hideBin(process.argv))
    .usage("npm run bench:pauses")
    .option("json", { type: "boolean", default: false, describe: "the figures as JSON, one line" })
    .epilogue("Ends with 1 if a figure is over its limit. The limits are for a machine that does nothing else.")
    .strict()
    .parse();
  const print = (line: string): void => void (json ? process.stderr : process.stdout).write(`${line}\n`);
  const loadBefore = os.loadavg()[0] ?? 0;
  print(`${os.availableParallelism()} processors, load ${loadBefore.toFixed(2)} before`);
  const dir = realpathSync(mkdtempSync(path.join(os.tmpdir(), "coverlay-pauses-")));
  try {
    const figures = await measureAll(dir, print);
    if (json) process.stdout.write(`${JSON.stringify({ processors: os.availableParallelism(), loadBefore, figures })}\n`);
    return figures.some(({ ms, limitMs }) => limitMs !== null && (ms === null || ms > limitMs)) ? 1 : 0;
  } finally {
    rmSync(dir, { recursive: true });
  }
}

process.exitCode = await main();
