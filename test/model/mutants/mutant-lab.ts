/**
 * A lab of two nodes over a copy of the compiled tree, in which one rule of the overlay at a time is broken. Its lock managers and its disk stay;
 * the overlays are mounted again for each mutant, which takes seconds.
 */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type RunResult, run } from "../../../overlay/lab/command.ts";
import type { NodeLine } from "../../../overlay/lab/observe.ts";
import { startWatchdog, type Watchdog } from "../../e2e/watchdog.ts";
import { compileBroken, linkBeside, type Replacement, timesFound } from "../../sim/mutation-tree.ts";

const COMMAND_TIMEOUT_MS = 180_000;
/** A mutant may hang its mount: then the lab begins anew. */
const UMOUNT_TIMEOUT_MS = 20_000;

export class MutantLab {
  readonly #root: string;
  readonly #dir: string;
  readonly #program: string;
  readonly #watchdog: Watchdog;
  /** What is broken in the tree, and what was there before. */
  #broken: { readonly file: string; readonly whole: string } | null = null;
  #nodes: readonly NodeLine[] = [];
  /** Programs of the tree as it is now have the volume mounted. */
  #mounted = false;

  /** `root`: of the sources, with `dist` below it. */
  constructor(root: string) {
    this.#root = root;
    this.#dir = realpathSync(mkdtempSync(path.join(tmpdir(), "mutants-")));
    for (const part of ["overlay", "dlmd", "native"]) {
      cpSync(path.join(root, "dist", part), path.join(this.#dir, "tree/dist", part), { recursive: true });
    }
    linkBeside(root, path.join(this.#dir, "tree"));
    cpSync(path.join(root, "package.json"), path.join(this.#dir, "tree/package.json"));
    this.#program = path.join(this.#dir, "tree/dist/overlay/main.js");
    this.#watchdog = startWatchdog('"$1" "$2" lab down --dir "$3"/lab; rm -rf --one-file-system "$3"', [
      process.execPath,
      this.#program,
      this.#dir,
    ]);
  }

  mount(nodeid: number): string {
    const found = this.#nodes.find((node) => node.nodeid === nodeid);
    if (found === undefined) throw new Error(`the lab has no node ${nodeid}`);
    return found.mount;
  }

  /** The volume is mounted on both nodes by overlays with that rule broken; null: with none. */
  async use(mutant: Replacement | null): Promise<void> {
    await this.#unmount();
    this.#mend();
    if (mutant !== null) await this.#break(mutant);
    await this.#start();
  }

  async #break(mutant: Replacement): Promise<void> {
    const times = timesFound(this.#root, mutant);
    if (times !== 1) throw new Error(`found ${times} times in ${mutant.file}, once expected: ${mutant.find}`);
    const file = path.join(this.#dir, "tree/dist", mutant.file.replace(/\.ts$/, ".js"));
    this.#broken = { file, whole: readFileSync(file, "utf8") };
    writeFileSync(file, await compileBroken(this.#root, mutant));
  }

  #mend(): void {
    if (this.#broken !== null) writeFileSync(this.#broken.file, this.#broken.whole);
    this.#broken = null;
  }

  async #start(): Promise<void> {
    if (this.#nodes.length === 0) {
      mkdirSync(path.join(this.#dir, "lab"), { recursive: true });
      const stdout = await this.#lab("up", "--detach", "--json", "--nodes", "2", "--size", "512M");
      this.#nodes = stdout
        .trim()
        .split("\n")
        .filter((line) => line.startsWith("{"))
        .map((line) => JSON.parse(line) as NodeLine);
    } else await this.#lab("start", "node1,node2");
    // Who mounts first owns the volume: node 1 must.
    const owner = (await this.#lab("owner")).trim();
    if (owner !== "node1") throw new Error(`node1 should own the volume, found ${owner}`);
    this.#mounted = true;
  }

  async #unmount(): Promise<void> {
    if (!this.#mounted) return;
    this.#mounted = false;
    for (const { netns, mount } of this.#nodes.toReversed()) {
      const words = [`--net=/run/netns/${netns}`, process.execPath, this.#program, "umount", mount];
      const result = await run("nsenter", words, { timeoutMs: UMOUNT_TIMEOUT_MS });
      if (result.status !== 0) return await this.#down();
    }
  }

  async #down(): Promise<void> {
    this.#nodes = [];
    await this.#lab("down");
  }

  async #lab(...words: string[]): Promise<string> {
    const args = [this.#program, "lab", ...words, "--dir", path.join(this.#dir, "lab")];
    const result: RunResult = await run(process.execPath, args, { timeoutMs: COMMAND_TIMEOUT_MS });
    if (result.status === 0) return result.stdout;
    throw new Error(`lab ${words.join(" ")}: exit status ${result.status}\n${result.stdout}${result.stderr}`);
  }

  async end(): Promise<void> {
    this.#mend();
    await this.#down();
    rmSync(this.#dir, { recursive: true });
    await this.#watchdog.callOff();
  }
}
