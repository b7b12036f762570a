/**
 * Waits for descriptors of corosync's libraries, all of the process in one place: a thread of the pool is in epoll_wait(2), and what is readable
 * is dispatched on the main thread. node's own sockets would read from them.
 */
import type { CorosyncLibraries } from "./libraries.ts";

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLLIN = 1;
/** The process cannot exit while a thread waits. */
const longestWaitMs = 500;
const eventBytes = 12;

export class Poller {
  readonly #epoll: CorosyncLibraries["epoll"];
  readonly #readers: Map<number, () => void> = new Map();
  #fd = -1;
  #wakeFd = -1;
  #waiting = false;
  /** The wait writes there; what it says is not looked at: every reader looks itself. */
  readonly #events = Buffer.alloc(eventBytes);

  constructor({ epoll }: CorosyncLibraries) {
    this.#epoll = epoll;
  }

  /** `read` is called as long as the descriptor is readable. */
  add(fd: number, read: () => void): void {
    if (this.#fd < 0) this.#open();
    this.#control(EPOLL_CTL_ADD, fd);
    this.#readers.set(fd, read);
    this.#wait();
  }

  /** Before the descriptor is closed. */
  remove(fd: number): void {
    if (!this.#readers.delete(fd)) return;
    this.#control(EPOLL_CTL_DEL, fd);
    if (this.#readers.size === 0) this.#wake();
  }

  #open(): void {
    this.#fd = this.#epoll.create(0o2000000);
    this.#wakeFd = this.#epoll.eventfd(0, 0o2000000);
    if (this.#fd < 0 || this.#wakeFd < 0) throw new Error("no descriptors for epoll_create1(2) and eventfd(2)");
    this.#control(EPOLL_CTL_ADD, this.#wakeFd);
  }

  #control(operation: number, fd: number): void {
    const event = Buffer.alloc(eventBytes);
    event.writeUInt32LE(EPOLLIN, 0);
    event.writeInt32LE(fd, 4);
    if (this.#epoll.control(this.#fd, operation, fd, event) !== 0 && operation === EPOLL_CTL_ADD)
      throw new Error(`epoll_ctl(2) does not take descriptor ${fd}`);
  }

  #wake(): void {
    const one = Buffer.alloc(8);
    one.writeUInt32LE(1);
    this.#epoll.write(this.#wakeFd, one, 8);
  }

  #wait(): void {
    if (this.#waiting || this.#readers.size === 0) return;
    this.#waiting = true;
    this.#epoll.wait.async(this.#fd, this.#events, 1, longestWaitMs, (error: Error | null, readable: number) => {
      this.#waiting = false;
      if (this.#readers.size === 0) return this.#close();
      if (error === null && readable > 0) for (const read of this.#readers.values()) read();
      // The last one ended itself in its read, and has woken nobody.
      if (this.#readers.size === 0) return this.#close();
      this.#wait();
    });
  }

  #close(): void {
    this.#epoll.close(this.#fd);
    this.#epoll.close(this.#wakeFd);
    this.#fd = -1;
    this.#wakeFd = -1;
  }
}
