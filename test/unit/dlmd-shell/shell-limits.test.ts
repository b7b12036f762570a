/** Timers and limits of the small parts of the shell, each with the clock of the test. */
import { Socket } from "node:net";
import { afterEach, describe, expect, test, vi } from "vitest";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { createLimitedWarn } from "../../../dlmd/base/log-limiter.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { AnswerLook } from "../../../dlmd/driver/answer-look.ts";
import { openDiscovery, sealDiscovery } from "../../../dlmd/driver/discovery.ts";
import { createHandshake, type Handshake, type Identity } from "../../../dlmd/driver/handshake.ts";
import { createKeyring } from "../../../dlmd/tls/keyring.ts";
import { UnprovedConnections } from "../../../dlmd/tls/unproved.ts";

const keyring = createKeyring([Buffer.alloc(32, 7)]);
afterEach(() => void vi.useRealTimers());

test.each([
  [0.2, true],
  [0.25, false],
])("an answer after %d ms: the event loop stays awake for the next one: %s", (ms, awake) => {
  let nowMs = 0;
  let turns = 0;
  const look = new AnswerLook({ nowMs: () => nowMs, turn: () => void turns++ });
  look.asked();
  nowMs += ms;
  look.answered();
  look.asked();
  expect(turns === 1).toBe(awake);
});

test.each([
  [0.2, true],
  [0.25, false],
])("a look that found nothing for %d ms goes on: %s", (ms, goesOn) => {
  let nowMs = 0;
  let turn = (): void => {};
  const look = new AnswerLook({ nowMs: () => nowMs, turn: (callback) => void (turn = callback) });
  look.asked();
  look.answered();
  look.asked();
  const first = turn;
  turn = () => {};
  nowMs += ms;
  first();
  expect(turn === first).toBe(goesOn);
});

describe("the log", () => {
  test("knows 256 messages; with one more the oldest is forgotten, and logged again early", () => {
    const said: string[] = [];
    const warn = createLimitedWarn({ ...silentLog, warn: (_, message) => said.push(message) }, 1000, () => 0);
    for (let at = 1; at <= 256; at++) warn(`message ${at}`, {}, `message ${at}`);
    warn("message 1", {}, "message 1");
    expect(said).toHaveLength(256);
    warn("message 257", {}, "message 257");
    warn("message 2", {}, "message 2");
    warn("message 1", {}, "message 1");
    expect(said.slice(256)).toEqual(["message 257", "message 1"]);
  });

  test("says a message that goes on at least once an hour", () => {
    const at: number[] = [];
    let nowMs = 0;
    const warn = createLimitedWarn({ ...silentLog, warn: () => at.push(nowMs) }, 1000, () => nowMs);
    for (; nowMs <= 8 * 3_600_000; nowMs += 500) warn("a", {}, "a");
    const pauses = at.slice(1).map((ms, line) => ms - (at[line] as number));
    expect(pauses.slice(0, 3)).toEqual([1000, 2000, 4000]);
    expect(Math.max(...pauses)).toBe(3_600_000);
    expect(pauses.filter((ms) => ms === 3_600_000).length).toBeGreaterThan(3);
  });
});

test.each([
  [64, "node"],
  [65, "dropped"],
])("discovery with a cluster's name of %i bytes: %s", (bytes, kind) => {
  const cluster = "c".repeat(bytes);
  expect(openDiscovery(keyring, cluster, sealDiscovery(keyring, cluster, 1)).kind).toBe(kind);
});

describe("the reason of a refused handshake", () => {
  const identity = (nodeid: number): Identity => ({
    protocolVersion: 2,
    cluster: "lab",
    configVersion: 1,
    configHash: Buffer.alloc(32),
    nodeid,
    incarnation: `life-${nodeid}`,
    datagramKey: Buffer.alloc(32, nodeid),
    datagramCounter: 0,
  });
  const side = (nodeid: number, role: "initiator" | "acceptor", objection: string | null = null): Handshake =>
    createHandshake({
      key: keyring.first,
      binding: Buffer.alloc(32, 1),
      self: identity(nodeid),
      nonce: Buffer.alloc(32, nodeid),
      role,
      expectedNodeid: null,
      objection: () => objection,
      isKnownNode: () => true,
      offer: () => null,
    });

  test("is sent up to 512 characters, which are 2048 bytes at most", () => {
    const acceptor = side(1, "acceptor", "é".repeat(600));
    const initiator = side(2, "initiator");
    initiator.receive(acceptor.hello);
    const refusal = acceptor.receive(initiator.hello);
    expect(refusal).toMatchObject({ kind: "refused" });
    const heard = initiator.receive(refusal.kind === "refused" ? (refusal.send as Uint8Array) : new Uint8Array());
    expect(heard).toMatchObject({ kind: "refused", reason: `refused by the peer: ${"é".repeat(512)}` });
  });

  test.each([
    [2048, "refused by the peer: "],
    [2049, "damaged handshake: string of 2049 bytes, at most 2048 allowed"],
  ])("of %i bytes is taken for: %s", (bytes, said) => {
    const w = new ByteWriter(256).u8(3).string("r".repeat(bytes)).u32(0).block(new Uint8Array(0)).u16(0);
    const step = side(2, "initiator").receive(w.copy());
    expect(step.kind === "refused" && step.reason.startsWith(said)).toBe(true);
  });
});

test("unproved connections: 32 of each node's address, 32 of strangers, each for 2 seconds", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const unproved = new UnprovedConnections({ isNode: (address) => address.startsWith("node") });
  const enterAll = (address: string): number => {
    const before = unproved.size;
    for (let at = 0; at < 100 && unproved.makeRoom(address); at++) unproved.add(new Socket(), address, () => undefined);
    return unproved.size - before;
  };
  expect([enterAll("node 1"), enterAll("stranger 1"), enterAll("stranger 2"), enterAll("node 2")]).toEqual([32, 32, 0, 32]);
  const silent = new Socket();
  unproved.add(silent, "node 3", () => undefined);
  // Four looks, each after a turn of the loop.
  const pass = async (ms: number): Promise<void> => {
    vi.advanceTimersByTime(ms);
    await new Promise((resolve) => setImmediate(resolve));
  };
  for (const ms of [500, 500, 500, 499]) await pass(ms);
  expect(silent.destroyed).toBe(false);
  await pass(1);
  expect(silent.destroyed).toBe(true);
});
