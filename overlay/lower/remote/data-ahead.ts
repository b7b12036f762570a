/** Data of small files that is brought before a program asks for it (`prefetch` of Lower). It is known as all that is (known.ts, hazard F21), until it was read once. */
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { largeBuffers } from "../large-buffers.ts";
import { READ_MANY_FILE_BYTES_MAX } from "../limits.ts";
import { S } from "../linux.ts";
import { type FileId, fileKey } from "../lower.ts";
import type { KnownInodes } from "./known.ts";
import type { RemoteSession } from "./session.ts";

export class DataAhead {
  readonly #session: RemoteSession;
  readonly #known: KnownInodes;
  /** Files whose data is on its way. */
  readonly #bringing = new Map<string, Promise<void>>();

  constructor(session: RemoteSession, known: KnownInodes) {
    this.#session = session;
    this.#known = known;
  }

  async bring(ids: readonly FileId[]): Promise<void> {
    const wanted = ids.filter((id) => this.#isSmall(id) && !this.#bringing.has(fileKey(id)));
    if (wanted.length === 0) return;
    const brought = this.#bring(wanted);
    for (const id of wanted) this.#bringing.set(fileKey(id), brought);
    try {
      await brought;
    } finally {
      for (const id of wanted) this.#bringing.delete(fileKey(id));
    }
  }

  #isSmall(id: FileId): boolean {
    const attr = this.#known.attr(id);
    if (attr === null || attr.nlink === 0 || (attr.mode & S.IFMT) !== S.IFREG) return false;
    return attr.size > 0 && attr.size <= READ_MANY_FILE_BYTES_MAX && !this.#known.hasData(id);
  }

  async #bring(ids: readonly FileId[]): Promise<void> {
    const reading = this.#known.reading();
    const files = await this.#session.call("readMany", { ids });
    ids.forEach((id, at) => {
      const data = files[at] ?? null;
      if (data !== null) this.#known.readData(reading, id, data);
    });
    // All lie in the answer's buffer, and were copied.
    const any = files.find((data) => data !== null);
    if (any !== undefined) largeBuffers.giveBack(any);
  }

  /** null: it is to be asked for. What is on its way is not asked for twice. */
  take(id: FileId, offset: number, bytes: number): MaybePromise<Uint8Array | null> {
    const data = this.#known.takeData(id, offset, bytes);
    if (data !== null || this.#bringing.size === 0) return data;
    const bringing = this.#bringing.get(fileKey(id));
    // Of one whose lock is about to leave it will not count.
    if (bringing === undefined || this.#known.attr(id) === null) return null;
    return bringing.catch(() => undefined).then(() => this.#known.takeData(id, offset, bytes));
  }
}
