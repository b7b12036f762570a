/** One wait for all descriptors of corosync's libraries: it ends with the last reader, however that one ends. epoll is played. */
import { expect, test } from "vitest";
import type { CorosyncLibraries } from "../../../dlmd/driver/corosync/libraries.ts";
import { Poller } from "../../../dlmd/driver/corosync/poller.ts";

class PlayedEpoll {
  readonly closed: number[] = [];
  readonly woken: number[] = [];
  /** What the wait that is under way calls. */
  answer: ((error: Error | null, readable: number) => void) | null = null;
  #last = 10;

  readonly libraries = {
    epoll: {
      create: () => ++this.#last,
      eventfd: () => ++this.#last,
      control: () => 0,
      write: (fd: number) => this.woken.push(fd),
      close: (fd: number) => this.closed.push(fd),
      wait: { async: (_fd: number, _events: Buffer, _count: number, _ms: number, then: PlayedEpoll["answer"]) => (this.answer = then) },
    },
  } as unknown as CorosyncLibraries;

  readable(): void {
    const { answer } = this;
    this.answer = null;
    answer?.(null, 1);
  }
}

test("a reader that ends itself in its own read, as the last one: nothing waits, and the next one has descriptors of its own", () => {
  const played = new PlayedEpoll();
  const poller = new Poller(played.libraries);
  poller.add(3, () => poller.remove(3));
  played.readable();
  expect([played.closed, played.answer]).toEqual([[11, 12], null]);
  let reads = 0;
  poller.add(4, () => reads++);
  played.readable();
  expect([reads, played.answer === null]).toEqual([1, false]);
});

test("the last reader that goes meanwhile ends the wait", () => {
  const played = new PlayedEpoll();
  const poller = new Poller(played.libraries);
  poller.add(3, () => {});
  poller.remove(3);
  expect(played.woken).toEqual([12]);
  played.readable();
  expect([played.closed, played.answer]).toEqual([[11, 12], null]);
});
