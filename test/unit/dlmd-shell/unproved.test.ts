/** Room for connections whose other end has proved nothing: how many, of which address, and for how long. */
import { Socket } from "node:net";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import {
  HANDSHAKE_LOOK_MS,
  HANDSHAKE_TIMEOUT_MS,
  MAX_UNPROVED_OF_NODE,
  MAX_UNPROVED_OF_STRANGERS,
  UnprovedConnections,
} from "../../../dlmd/tls/unproved.ts";

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
afterEach(() => void vi.useRealTimers());

function doorway(): { unproved: UnprovedConnections; refused: string[]; enter: (address: string, count: number) => Socket[] } {
  const refused: string[] = [];
  const unproved = new UnprovedConnections({ isNode: (address) => address.startsWith("node") });
  const enter = (address: string, count: number): Socket[] =>
    Array.from({ length: count }, () => {
      expect(unproved.makeRoom(address)).toBe(true);
      const raw = new Socket();
      unproved.add(raw, address, (reason) => void refused.push(`${address} ${reason}`));
      return raw;
    });
  return { unproved, refused, enter };
}

it("strangers share their room, and take none of any node's", () => {
  const { unproved, refused, enter } = doorway();
  enter("stranger 1", MAX_UNPROVED_OF_STRANGERS / 2);
  enter("stranger 2", MAX_UNPROVED_OF_STRANGERS / 2);
  expect([unproved.makeRoom("stranger 1"), unproved.makeRoom("stranger 3")]).toEqual([false, false]);
  enter("node 1", MAX_UNPROVED_OF_NODE);
  expect([refused, unproved.size]).toEqual([[], MAX_UNPROVED_OF_STRANGERS + MAX_UNPROVED_OF_NODE]);
});

it("a node's own address keeps no newcomer out: the oldest silent one ends for it, and none of another address", () => {
  const { unproved, refused, enter } = doorway();
  const own = new Socket();
  unproved.addOwn(own, () => void refused.push("own"));
  const other = enter("node 2", MAX_UNPROVED_OF_NODE);
  const silent = enter("node 1", MAX_UNPROVED_OF_NODE);
  for (let at = 0; at < MAX_UNPROVED_OF_NODE; at++) {
    const [newest] = enter("node 1", 1);
    expect(silent.map(({ destroyed }) => destroyed)).toEqual(silent.map((_, place) => place <= at));
    expect(newest?.destroyed).toBe(false);
  }
  expect(refused).toEqual(silent.map(() => "node 1 too many newer connections: at most 32 at one time"));
  expect([...other, own].some(({ destroyed }) => destroyed)).toBe(false);
  expect(unproved.size).toBe(2 * MAX_UNPROVED_OF_NODE + 1);
});

it("a connection that proved itself, or closed, makes room", async () => {
  const { unproved, refused, enter } = doorway();
  const [first] = enter("node 1", MAX_UNPROVED_OF_NODE - 1);
  const proved = unproved.add(new Socket(), "node 1", () => undefined);
  expect(unproved.size).toBe(MAX_UNPROVED_OF_NODE);
  proved();
  enter("node 1", 1);
  const closed = new Promise((resolve) => first?.once("close", resolve));
  first?.destroy();
  await closed;
  enter("node 1", 1);
  expect([unproved.size, refused]).toEqual([MAX_UNPROVED_OF_NODE, []]);
});

/** The clock goes on by so much at once, and then the loop reads what has arrived. */
async function turn(ms: number): Promise<void> {
  vi.advanceTimersByTime(ms);
  await new Promise((resolve) => setImmediate(resolve));
}
async function turns(count: number, ms: number = HANDSHAKE_LOOK_MS): Promise<void> {
  for (let at = 0; at < count; at++) await turn(ms);
}
const LOOKS = HANDSHAKE_TIMEOUT_MS / HANDSHAKE_LOOK_MS;

it("one that proves nothing is destroyed after the time-out, and not before; one that did is left alone", async () => {
  const { unproved, refused, enter } = doorway();
  const [silent] = enter("node 1", 1);
  const member = new Socket();
  unproved.add(member, "node 2", () => void refused.push("member"))();
  const own = new Socket();
  unproved.addOwn(own, (reason) => void refused.push(`own ${reason}`));
  await turns(LOOKS - 1);
  await turn(HANDSHAKE_LOOK_MS - 1);
  expect([silent?.destroyed, own.destroyed, refused]).toEqual([false, false, []]);
  await turn(1);
  expect([silent?.destroyed, own.destroyed]).toEqual([true, true]);
  expect(refused).toEqual(["node 1 no handshake within 2000 ms", "own no handshake within 2000 ms"]);
  await turns(10 * LOOKS);
  expect(member.destroyed).toBe(false);
});

it("one whose handshake lies in the socket while the process stands still is not ended before it is read", async () => {
  const { unproved, refused, enter } = doorway();
  const [silent] = enter("node 1", 1);
  const slow = new Socket();
  const proved = unproved.add(slow, "node 2", (reason) => void refused.push(reason));
  // Turns that last much longer than the time-out: each counts once, and what came is read in it.
  await turns(LOOKS - 1, 10 * HANDSHAKE_TIMEOUT_MS);
  vi.advanceTimersByTime(10 * HANDSHAKE_TIMEOUT_MS);
  expect([slow.destroyed, silent?.destroyed, refused]).toEqual([false, false, []]);
  proved();
  await turn(0);
  expect([slow.destroyed, silent?.destroyed, refused]).toEqual([false, true, ["node 1 no handshake within 2000 ms"]]);
});

it("for the log strangers are one, whatever key they say that they have", () => {
  const { unproved } = doorway();
  const key = (address: string, asked: string): string => unproved.refusalKey(address, `wrong key: the peer speaks with ${asked}`);
  expect(key("stranger 1", "aaaaaaaa")).toBe(key("stranger 2", "bbbbbbbb"));
  expect(key("node 1", "aaaaaaaa")).toBe(key("node 1", "bbbbbbbb"));
  expect(key("node 1", "aaaaaaaa")).not.toBe(key("node 2", "aaaaaaaa"));
  expect(unproved.refusalKey("node 1", "no handshake within 2000 ms")).not.toBe(key("node 1", "aaaaaaaa"));
});
