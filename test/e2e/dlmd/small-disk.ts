/** A disk of 256 KiB for what one node keeps, which the test fills. */
import { throws } from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { KeptConfig } from "../../../dlmd/config/record.ts";
import type { StoredState } from "../../../dlmd/driver/state-file.ts";
import { until } from "../actor.ts";
import { startWatchdog, type Watchdog } from "../watchdog.ts";

/** Resolves when a node has written the last that it keeps in `dir` after a view of these members: which boots they are of, and who agreed. */
export async function keptAfterView(dir: string, ...nodeids: number[]): Promise<void> {
  const read = (name: string): unknown => JSON.parse(readFileSync(path.join(dir, name), "utf8"));
  await until(`a view of ${nodeids.join(", ")} is kept`, () => {
    const { fencing } = read("state.json") as StoredState;
    const { agreedBy } = read("config.json") as KeptConfig;
    const known = (fencing?.boots ?? []).map(({ nodeid }) => nodeid);
    return known.length === nodeids.length && nodeids.every((nodeid) => known.includes(nodeid) && agreedBy.includes(nodeid));
  });
}

export class SmallDisk {
  readonly dir: string;
  readonly #filler: string;
  readonly #watchdog: Watchdog;

  /** `dir`: an empty folder; none: one of its own. */
  constructor(dir: string = mkdtempSync(path.join(tmpdir(), "coverlay-disk-"))) {
    this.dir = dir;
    this.#filler = path.join(dir, "filler");
    this.#watchdog = startWatchdog('umount --lazy "$1"; rmdir "$1"', [dir]);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", this.dir]);
  }

  fill(): void {
    throws(() => writeFileSync(this.#filler, new Uint8Array(1024 * 1024)), { code: "ENOSPC" });
  }

  /** Fills it when the node that keeps its state and its configuration here has kept a view of these members: what it renames later would be room again. */
  async fillAfterView(...nodeids: number[]): Promise<void> {
    await keptAfterView(this.dir, ...nodeids);
    this.fill();
  }

  makeRoom(): void {
    rmSync(this.#filler);
  }

  /** Also while a process has files of it open. */
  async remove(): Promise<void> {
    execFileSync("umount", ["--lazy", this.dir]);
    rmdirSync(this.dir);
    await this.#watchdog.callOff();
  }
}
