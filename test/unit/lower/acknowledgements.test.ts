/** Acknowledgements reach an owner that is still there, and are kept no longer than until that is certain. */
import { expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { ACK_WAITS_MAX, Acknowledgements, ACKS_MIN, MAX_ACKS_IN_FRAME } from "../../../overlay/lower/remote/acknowledgements.ts";
import { NO_JOURNAL } from "../../../overlay/lower/remote/call-journal.ts";
import type { RemoteConnection, RemoteCounters } from "../../../overlay/lower/remote/connection.ts";
import { WaitingCalls } from "../../../overlay/lower/remote/waiting-calls.ts";
import { CALLS } from "../../../overlay/lower/wire/calls.ts";
import { FrameType } from "../../../overlay/lower/wire/frame.ts";
import { name } from "./remote-lab.ts";

/** Enough of them for a frame, the first of which is `first`. */
function some(first: number): number[] {
  return Array.from({ length: ACKS_MIN }, (_, at) => first + at);
}

function add(acks: Acknowledgements, ids: readonly number[]): void {
  for (const id of ids) acks.add(id);
}

function all(acks: Acknowledgements, after: number): number[] {
  const taken: number[] = [];
  for (let ids = acks.take(after); ids !== null; ids = acks.take(after)) taken.push(...ids);
  return taken;
}

it("ACKS_MIN of them go together with a call, and fewer wait for the others", () => {
  const acks = new Acknowledgements();
  const ids = some(1);
  add(acks, ids.slice(1));
  expect(all(acks, 10)).toEqual([]);
  add(acks, ids.slice(0, 1));
  expect(all(acks, 11)).toEqual([...ids.slice(1), 1]);
});

it("fewer go after ACK_WAITS_MAX transmissions: a later call may have the number of one", () => {
  const acks = new Acknowledgements();
  acks.add(1);
  expect(acks.take(10)).toBeNull();
  acks.add(2);
  expect(acks.take(10 + ACK_WAITS_MAX - 1)).toBeNull();
  expect(acks.take(10 + ACK_WAITS_MAX)).toEqual([1, 2]);
  // Those that come next wait as long, from when they are first seen.
  acks.add(3);
  expect(acks.take(20 + ACK_WAITS_MAX)).toBeNull();
  expect(acks.take(20 + 2 * ACK_WAITS_MAX)).toEqual([3]);
});

it("those that a connection may have lost are sent again on the next one, before others; what has arrived is not", () => {
  const acks = new Acknowledgements();
  add(acks, some(100));
  expect(all(acks, 10)).toEqual(some(100));
  add(acks, some(200));
  expect(all(acks, 11)).toEqual(some(200));
  add(acks, some(300));
  // Sent before the acknowledgement of the second ones, and after that of the first.
  acks.answered(11);
  acks.sendAgain();
  expect(all(acks, 12)).toEqual([...some(200), ...some(300)]);
  acks.answered(13);
  acks.sendAgain();
  expect(all(acks, 14)).toEqual([]);
});

it("a call that was sent before an acknowledgement proves nothing of it", () => {
  const acks = new Acknowledgements();
  add(acks, some(1));
  all(acks, 10);
  acks.answered(10);
  acks.sendAgain();
  expect(all(acks, 11)).toEqual(some(1));
});

it("another owner hears of none", () => {
  const acks = new Acknowledgements();
  add(acks, some(100));
  all(acks, 10);
  add(acks, some(200));
  acks.clear();
  acks.sendAgain();
  expect(all(acks, 11)).toEqual([]);
  add(acks, some(300));
  expect(all(acks, 12)).toEqual(some(300));
});

it("many do not wait for the next call, and no frame has more than it may", () => {
  const acks = new Acknowledgements();
  const waited = Array.from({ length: MAX_ACKS_IN_FRAME + ACKS_MIN }, (_, id) => acks.add(id));
  expect(waited.indexOf(true)).toBe(MAX_ACKS_IN_FRAME / 4 - 1);
  expect(acks.take(0)).toHaveLength(MAX_ACKS_IN_FRAME);
  expect(acks.take(0)).toEqual(some(MAX_ACKS_IN_FRAME));
  expect(acks.take(0)).toBeNull();
});

it("the answer that an owner gives again before it is asked again proves nothing", () => {
  const counters: RemoteCounters = {
    roundTrips: 0,
    awaited: 0,
    messagesSent: 0,
    messagesReceived: 0,
    bytesSent: 0,
    bytesReceived: 0,
    flushes: 0,
  };
  const calls = new WaitingCalls(silentLog, counters, NO_JOURNAL, () => undefined);
  const call = (): void => void calls.call("removexattr", { id: { ino: 2, generation: 0 }, name: name("user.a") }, []);
  const answer = (id: number): void => calls.receive(CALLS.removexattr.type | FrameType.ANSWER, id, new Uint8Array(0));
  /** Each frame leaves at once. Gives how many acknowledgements have. */
  const connect = (): (() => number) => {
    let acks = 0;
    const send = (type: number): void => {
      if (type === FrameType.ACK) acks += 1;
      else calls.sendAcks();
    };
    calls.connect({ send, flush: () => undefined } as unknown as RemoteConnection);
    calls.repeatAcks();
    calls.run();
    return () => acks;
  };
  connect();
  for (let at = 0; at < ACKS_MIN + 2; at += 1) call();
  for (const id of some(1)) answer(id);
  calls.disconnect();
  // The acknowledgements go behind the first of the two calls that are sent again.
  expect(connect()()).toBe(1);
  answer(ACKS_MIN + 2);
  calls.disconnect();
  expect(connect()()).toBe(1);
});
