/**
 * Keeps the lease page (wire/lease-page.ts) of one life of a dlmd. Writes are asynchronous and never awaited by who heartbeats: a slow disk under the
 * run directory makes the page late, so that programs stop too early, and never too late. A page is never cut short: programs have it mapped.
 */
import { type FileHandle, open, rename } from "node:fs/promises";
import { unkept } from "./atomic-file.ts";
import { encodeLeasePage, LEASE_ENDS_AT } from "../wire/lease-page.ts";

export class LeaseFile {
  readonly #handle: FileHandle;
  #wantedMs = Number.NEGATIVE_INFINITY;
  #writtenMs = Number.NEGATIVE_INFINITY;
  #writing: Promise<void> | null = null;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /**
   * Ends the lease of the life before, whose programs may still look at its page, and puts a page of its own in its place. Throws OperatingError
   * if that disk does not take it.
   */
  static async create(file: string, incarnation: string, marginMs: number): Promise<LeaseFile> {
    try {
      await endFormer(file);
      return new LeaseFile(await putPage(file, encodeLeasePage({ incarnation, endMs: Number.NEGATIVE_INFINITY, marginMs })));
    } catch (error) {
      throw unkept("the lease of this node", file, error);
    }
  }

  /** Until when, CLOCK_BOOTTIME in ms. */
  publish(endMs: number): void {
    this.#wantedMs = endMs;
    if (this.#writing === null && endMs !== this.#writtenMs) this.#writing = this.#write();
  }

  async #write(): Promise<void> {
    while (this.#wantedMs !== this.#writtenMs) {
      const endMs = this.#wantedMs;
      await writeEnd(this.#handle, endMs);
      this.#writtenMs = endMs;
    }
    this.#writing = null;
  }

  /** The lease is over: resolves when whoever looks sees that. */
  async end(): Promise<void> {
    this.publish(Number.NEGATIVE_INFINITY);
    await this.#writing;
  }

  async close(): Promise<void> {
    await this.end();
    await this.#handle.close();
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
