/**
 * Which calls were answered ESTALE (hazard F12). The kernel then walks the path anew and asks again; a second ESTALE would reach
 * the program. So a call gets it once: whoever comes back with the same operation on the same name is told the truth, under a
 * permission check of our own.
 */
import type { InodeRecord } from "../inode/table.ts";

/** Calls remembered. Beyond, the oldest is forgotten: it may get a second ESTALE. */
export const STALE_CALLS_MAX = 1024;

function callKey(operation: string, dir: InodeRecord, name: Buffer, pid: number): string {
  return `${operation} ${dir.fuseNodeid} ${pid} ${name.toString("latin1")}`;
}

export class StaleOnce {
  readonly #calls = new Set<string>();

  /** The call went well after all. */
  settled(operation: string, dir: InodeRecord, name: Buffer, pid: number): void {
    if (this.#calls.size > 0) this.#calls.delete(callKey(operation, dir, name, pid));
  }

  /** True: answer ESTALE, this call has not had it. False: it has; the next one of the same kind starts anew. */
  give(operation: string, dir: InodeRecord, name: Buffer, pid: number): boolean {
    const call = callKey(operation, dir, name, pid);
    if (this.#calls.delete(call)) return false;
    this.#calls.add(call);
    if (this.#calls.size > STALE_CALLS_MAX) {
      for (const oldest of this.#calls) {
        this.#calls.delete(oldest);
        break;
      }
    }
    return true;
  }
}
