/** What programs of the model of ends (ends-model.ts) do. */
import { O_RDWR } from "../../../overlay/op/linux.ts";
import type { EndsNode } from "./ends-model-node.ts";
import { EndsMapping } from "./ends-model-mapping.ts";
import { EndsReads } from "./ends-model-reads.ts";
import { EndsThread, SIZE_MAX } from "./ends-model-thread.ts";
import { EndsWrites } from "./ends-model-writes.ts";
import type { EndsWorld } from "./ends-model-world.ts";

const FOPEN_DIRECT_IO = 1;

export interface ProgramOptions {
  /** None fills a page cache: all handles that write append. */
  readonly appendsOnly?: boolean;
  /** Mostly holes are made, in one page that is written and read. */
  readonly holes?: boolean;
  /** Shared mappings are stored to, where there may be some. */
  readonly mapped?: boolean;
}

export class EndsProgram {
  readonly #node: EndsNode;
  readonly #world: EndsWorld;
  readonly #thread: EndsThread;
  readonly #reads: EndsReads;
  readonly #writes: EndsWrites;
  readonly #appendsOnly: boolean;
  readonly #holes: boolean;
  readonly #isMapped: boolean;

  constructor(node: EndsNode, pid: number, { appendsOnly = false, holes = false, mapped = false }: ProgramOptions) {
    this.#node = node;
    this.#world = node.world;
    this.#thread = new EndsThread(node, pid, holes);
    this.#reads = new EndsReads(this.#thread);
    this.#writes = new EndsWrites(this.#thread);
    this.#appendsOnly = appendsOnly;
    this.#holes = holes;
    this.#isMapped = mapped;
  }

  /** Whoever was killed does nothing more: another one comes. */
  async run(): Promise<void> {
    if (this.#thread.isDead) this.#thread.pid += 10_000;
    const luck = this.#world.random();
    if (this.#holes && luck < 0.95) {
      if (luck < 0.45) await this.#reads.read(false);
      else if (luck < 0.6) await this.#writes.fallocate(this.#node.appendFh);
      else await this.#overwrite();
    } else if (luck < 0.35) {
      this.#node.reading.add(this.#thread.pid);
      await this.#reads.read(true);
      this.#node.reading.delete(this.#thread.pid);
    } else if (luck < 0.5) await this.#reads.read(false);
    else if (luck < 0.58) await this.#reads.stat();
    else if (luck < 0.64) await this.#reads.seek();
    else if (luck < 0.68) await this.#reads.lookup();
    else if (luck < 0.79) await this.#writes.append();
    else if (luck < 0.86) await this.#writes.truncate(null);
    else if (luck < 0.88) await this.#writes.touch();
    else if (luck < 0.9) await this.#writes.fallocate(this.#node.appendFh);
    else if (this.#appendsOnly) await this.#writes.append();
    else await this.#overwrite();
  }

  async #store(mapping: EndsMapping): Promise<void> {
    for (let left = this.#thread.below(4); left > 0 && !this.#thread.isDead; left -= 1) await mapping.store();
    const luck = this.#world.random();
    if (luck < 0.1) await mapping.sync();
    // The kernel's own flusher.
    else if (luck < 0.3) void this.#node.kernel.writeBack();
  }

  async #overwrite(): Promise<void> {
    const { errno, body } = await this.#node.ask(this.#thread.pid, { op: "open", flags: O_RDWR });
    if (errno !== 0) return this.#thread.failed("open", errno);
    const fh = Number(body.readBigUInt64LE(0));
    const isDirect = (body.readUInt32LE(8) & FOPEN_DIRECT_IO) !== 0;
    // O_TRUNC
    if (this.#world.random() < (this.#holes ? 0.02 : 0.15)) await this.#writes.truncate(null, 0);
    const mapping = this.#isMapped && !isDirect ? new EndsMapping(this.#thread, this.#reads, fh) : null;
    for (let left = this.#thread.below(4); left > 0 && !this.#thread.isDead; left -= 1) {
      if (mapping !== null) await this.#store(mapping);
      const luck = this.#world.random();
      const offset = this.#world.random() < 0.85 ? this.#thread.place() : this.#thread.below(SIZE_MAX);
      if (luck < 0.15) await this.#writes.fallocate(fh);
      else if (luck < (this.#holes ? 0.45 : 0.3)) await this.#writes.copy(fh);
      else if (luck < 0.38 && !this.#holes) await this.#writes.truncate(fh);
      else if (luck < 0.5 && isDirect) await this.#reads.readDirect(fh);
      else if (luck < 0.65 && isDirect) await this.#writes.writeDirect(fh, null);
      else if (isDirect) await this.#writes.writeDirect(fh, offset);
      else await this.#writes.writeCached(fh, offset);
    }
    await mapping?.unmap();
    await this.#node.ask(0, { op: "release", fh, flags: 0, lockOwner: 0n, flockUnlock: false });
  }
}
