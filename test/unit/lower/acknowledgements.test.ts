/** Acknowledgements reach an owner that is still there, and are kept no longer than until that is certain. */
import { expect, it } from "vitest";
import { E, type Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { ACK_WAITS_MAX, Acknowledgements, ACKS_MIN, MAX_ACKS_IN_FRAME } from "../../../overlay/lower/remote/acknowledgements.ts";
import { NO_JOURNAL } from "../../../overlay/lower/remote/call-journal.ts";
import type { RemoteConnection, RemoteCounters } from "../../../overlay/lower/remote/connection.ts";
import type { Hindrance } from "../../../overlay/lower/remote/pending-call.ts";
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

/** Calls of this end, over connections by which each frame leaves at once. */
function testCalls(): {
  readonly calls: WaitingCalls;
  readonly call: (hindrance?: Hindrance) => Promise<unknown>;
  readonly answer: (id: number) => void;
  readonly connect: (asked: boolean) => Sent;
} {
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
  return {
    calls,
    call: (hindrance) =>
      calls.call("removexattr", { id: { ino: 2, generation: 0 }, name: name("user.a") }, hindrance === undefined ? [] : [hindrance]),
    answer: (id) => calls.receive(CALLS.removexattr.type | FrameType.ANSWER, id, new Uint8Array(0)),
    connect(asked) {
      const sent: Sent = { acks: 0, ids: [] };
      const send = (type: number, id: number): void => {
        if (type === FrameType.ACK) sent.acks += 1;
        else {
          sent.ids.push(id);
          calls.sendAcks();
        }
      };
      calls.connect({ send, flush: () => calls.sendAcks() } as unknown as RemoteConnection);
      if (asked) calls.repeatAcks();
      calls.run(asked);
      return sent;
    },
  };
}

/** By one connection: frames of acknowledgements, and calls. */
interface Sent {
  acks: number;
  readonly ids: number[];
}

it("the answer that an owner gives again before it is asked again proves nothing", () => {
  const { calls, call, answer, connect } = testCalls();
  connect(false);
  for (let at = 0; at < ACKS_MIN + 2; at += 1) void call();
  for (const id of some(1)) answer(id);
  calls.disconnect();
  // The acknowledgements go behind the first of the two calls that are sent again.
  expect(connect(true).acks).toBe(1);
  answer(ACKS_MIN + 2);
  calls.disconnect();
  expect(connect(true).acks).toBe(1);
});

it("the answer to a change that its owner was asked for is acknowledged, whatever hinders that change since", async () => {
  const { calls, call, answer, connect } = testCalls();
  connect(false);
  const hindrance: { error: Errno | null } = { error: null };
  const made = Promise.all(some(1).map(() => call(hindrance)));
  calls.disconnect();
  hindrance.error = errnoError(E.EIO);
  const again = connect(true);
  expect(again.ids).toEqual(some(1));
  for (const id of some(1)) answer(id);
  await made;
  calls.sendAcks();
  expect(again.acks).toBe(1);
});

it("a change that another owner is to make is not asked for there, where something hinders it", async () => {
  const { calls, call, connect } = testCalls();
  connect(false);
  const hindrance: { error: Errno | null } = { error: null };
  const made = call(hindrance);
  calls.disconnect();
  hindrance.error = errnoError(E.EIO);
  calls.settleUnknownOutcomes(true);
  const { ids } = connect(false);
  await expect(made).rejects.toThrow(hindrance.error);
  expect(ids).toEqual([]);
});
