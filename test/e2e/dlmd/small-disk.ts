/** A disk of 256 KiB for the state of one node, which the test fills. */
import { throws } from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { StoredState } from "../../../dlmd/driver/state-file.ts";
import { until } from "../actor.ts";

export class SmallDisk {
  readonly dir: string = mkdtempSync(path.join(tmpdir(), "coverlay-disk-"));
  readonly #filler = path.join(this.dir, "filler");

  constructor() {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", this.dir]);
  }

  fill(): void {
    throws(() => writeFileSync(this.#filler, new Uint8Array(1024 * 1024)), { code: "ENOSPC" });
  }

  /**
   * Fills it when the node that keeps its state here has kept a view of these members. It writes its state beside the one before, whose room would
   * be free again later: so it waits for the last that is kept after a view, which boots its members are of.
   */
  async fillAfterView(...nodeids: number[]): Promise<void> {
    await until(`a view of ${nodeids.join(", ")} is kept`, () => {
      const { fencing } = JSON.parse(readFileSync(path.join(this.dir, "state.json"), "utf8")) as StoredState;
      const known = (fencing?.boots ?? []).map(({ nodeid }) => nodeid);
      return known.length === nodeids.length && nodeids.every((nodeid) => known.includes(nodeid));
    });
    this.fill();
  }

  makeRoom(): void {
    rmSync(this.#filler);
  }

  remove(): void {
    execFileSync("umount", [this.dir]);
    rmdirSync(this.dir);
  }
}
