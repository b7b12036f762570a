/** A disk that hangs for some processes: their I/O to that block device waits, and goes on when they are let go (overlay/lab/hang.ts). */
import { HungGroup } from "../../overlay/lab/hang.ts";

export { noHang } from "../../overlay/lab/hang.ts";

export class HungDisk {
  readonly #device: string;
  readonly #group: HungGroup;

  constructor(device: string) {
    this.#device = device;
    this.#group = new HungGroup(`coverlay-test-${process.pid}-${device.replaceAll("/", "-")}`);
  }

  /** That process, and those that it starts from now on. */
  hang(pid: number): void {
    this.#group.hang(this.#device, [pid]);
  }

  /** The disk answers again. */
  letGo(): void {
    this.#group.letGo(this.#device);
  }

  /** To be called in any case; processes that were started by others meanwhile have ended by then. */
  end(): void {
    this.letGo();
    this.#group.end();
  }
}
