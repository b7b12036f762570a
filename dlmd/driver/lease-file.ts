/**
 * Keeps the lease page (wire/lease-page.ts) of one life of a dlmd. Writes are asynchronous and never awaited by who heartbeats: a slow disk under the
 * run directory makes the page late, so that programs stop too early, and never too late (hazard C4). A page that cannot be written ends dlmd: nothing would
 * end what it says. A page is never cut short: programs have it mapped.
 */
import { type FileHandle, open, rename } from "node:fs/promises";
import type { OperatingError } from "../base/error.ts";
import { unkept } from "./atomic-file.ts";
import { encodeLeasePage, LEASE_ENDS_AT } from "../wire/lease-page.ts";

export class LeaseFile {
  readonly #file: string;
  readonly #handle: FileHandle;
  readonly #failed: (error: OperatingError) => void;
  #wantedMs = Number.NEGATIVE_INFINITY;
  #writtenMs = Number.NEGATIVE_INFINITY;
  #writing: Promise<void> | null = null;
  #failure: OperatingError | null = null;

  private constructor(file: string, handle: FileHandle, failed: (error: OperatingError) => void) {
    this.#file = file;
    this.#handle = handle;
    this.#failed = failed;
  }

  /**
   * Ends the lease of the life before, whose programs may still look at its page, and puts a page of its own in its place. Throws OperatingError
   * if that disk does not take it. `failed`: it took something later no more, which is told once, and nothing is published after that.
   */
  static async create(file: string, incarnation: string, marginMs: number, failed: (error: OperatingError) => void): Promise<LeaseFile> {
    try {
      await endFormer(file);
      const page = encodeLeasePage({ incarnation, endMs: Number.NEGATIVE_INFINITY, marginMs });
      return new LeaseFile(file, await putPage(file, page), failed);
    } catch (error) {
      throw unkept("the lease of this node", file, error);
    }
  }

  /** Until when, CLOCK_BOOTTIME in ms. */
  publish(endMs: number): void {
    this.#wantedMs = endMs;
    if (this.#failure === null && this.#writing === null && endMs !== this.#writtenMs) this.#writing = this.#write();
  }

  async #write(): Promise<void> {
    try {
      while (this.#wantedMs !== this.#writtenMs) {
        const endMs = this.#wantedMs;
        await writeEnd(this.#handle, endMs);
        this.#writtenMs = endMs;
      }
    } catch (error) {
      this.#failure = unkept("the lease of this node", this.#file, error);
      this.#failed(this.#failure);
    }
    this.#writing = null;
  }

  /** The lease is over: resolves when whoever looks sees that. Rejects with what `failed` was told. */
  async end(): Promise<void> {
    this.publish(Number.NEGATIVE_INFINITY);
    await this.#writing;
    if (this.#failure !== null) throw this.#failure;
  }

  async close(): Promise<void> {
    try {
      await this.end();
    } finally {
      await this.#handle.close();
    }
  }
}

async function putPage(file: string, page: Uint8Array): Promise<FileHandle> {
  const beside = `${file}.new`;
  const handle = await open(beside, "w", 0o600);
  try {
    await handle.write(page, 0, null, 0);
    await rename(beside, file);
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Both of them, in their order. */
async function writeEnd(handle: FileHandle, endMs: number): Promise<void> {
  const ends = new Float64Array(2).fill(endMs);
  await handle.write(ends, 0, ends.byteLength, LEASE_ENDS_AT);
}

async function endFormer(file: string): Promise<void> {
  let former: FileHandle;
  try {
    former = await open(file, "r+");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  try {
    await writeEnd(former, Number.NEGATIVE_INFINITY);
  } finally {
    await former.close();
  }
}
