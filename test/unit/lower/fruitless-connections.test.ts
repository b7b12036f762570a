/** Connections to the owner that end without the answer that is waited for, and an owner that hangs for long (hazard H13). */
import { spawnSync } from "node:child_process";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { HANDSHAKE_LOOK_MS } from "../../../dlmd/tls/unproved.ts";
import { WELCOME_TIMEOUT_MAX_MS, WELCOME_TIMEOUT_MS } from "../../../overlay/lower/remote/connection.ts";
import {
  FruitlessConnections,
  LONG_SILENCE_MS,
  MAX_FRUITLESS_CONNECTIONS,
  SLOW_WELCOME_MS,
  SOUND_AFTER_MS,
} from "../../../overlay/lower/remote/fruitless-connections.ts";
import { DEAD_MS } from "../../../overlay/lower/wire/heartbeat.ts";
import { RECONNECT_MAX_MS } from "../../../overlay/lower/remote/session.ts";
import { ownerWaitWords } from "../../../overlay/lower/owner-wait.ts";
import { ACCEPT_BACKLOG_MAX } from "../../../overlay/lower/server/server.ts";
import { TEST_OWNER } from "../../compliance/lower-fixture.ts";
import { remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();

describe("of a call that waits", () => {
  let now = 0;
  const scene = (): FruitlessConnections => {
    now = 0;
    return new FruitlessConnections(() => now);
  };

  it("the third in a row says that it is not in the owner's hands; of another call nothing is said", () => {
    const fruitless = scene();
    for (let count = 1; count <= MAX_FRUITLESS_CONNECTIONS; count++) {
      expect(fruitless.words(7)).toBeNull();
      fruitless.ended(7, "cut", false);
    }
    expect(fruitless.words(7)).toBe("the last 3 ended before they had answered, at last: cut");
    expect(fruitless.words(8)).toBeNull();
    // The call was answered: another one is the oldest now.
    fruitless.ended(8, "cut", false);
    expect([fruitless.words(7), fruitless.words(8)]).toEqual([null, null]);
  });

  it("a connection that stands for SOUND_AFTER_MS lets everything through: the owner has the call", () => {
    const fruitless = scene();
    for (let count = 0; count < MAX_FRUITLESS_CONNECTIONS; count++) fruitless.ended(7, "cut", false);
    fruitless.welcomed(0);
    now += SOUND_AFTER_MS - 1;
    expect(fruitless.words(7)).not.toBeNull();
    now += 1;
    expect(fruitless.words(7)).toBeNull();
    fruitless.ended(7, "cut", false);
    expect(fruitless.words(7)).toBeNull();
  });

  it("connections that end while nothing waits, or to an owner before, count for nothing", () => {
    const fruitless = scene();
    for (let count = 0; count < 10; count++) fruitless.ended(null, "cut", false);
    for (let count = 1; count < MAX_FRUITLESS_CONNECTIONS; count++) fruitless.ended(1, "cut", false);
    expect(fruitless.words(1)).toBeNull();
    fruitless.clear();
    fruitless.ended(1, "cut", false);
    expect(fruitless.words(1)).toBeNull();
  });

  /** One more on which nothing was heard after WELCOME. */
  function silent(fruitless: FruitlessConnections, welcomeMs: number): void {
    fruitless.welcomed(welcomeMs);
    now += fruitless.silenceMs;
    fruitless.ended(7, "silence", true);
  }

  it("silence after a WELCOME that took SLOW_WELCOME_MS counts, and after a slower one the owner had stood still", () => {
    const fruitless = scene();
    for (let count = 0; count < MAX_FRUITLESS_CONNECTIONS; count++) silent(fruitless, SLOW_WELCOME_MS);
    expect(fruitless.words(7)).not.toBeNull();
    silent(fruitless, SLOW_WELCOME_MS + 1);
    for (let count = 1; count < MAX_FRUITLESS_CONNECTIONS; count++) silent(fruitless, 1);
    expect(fruitless.words(7)).toBeNull();
    silent(fruitless, 1);
    expect(fruitless.words(7)).not.toBeNull();
    for (let count = 0; count < 10; count++) silent(fruitless, SLOW_WELCOME_MS + 1);
    expect(fruitless.words(7)).toBeNull();
  });

  it("a connection on which the owner said nothing at all tells of the owner: the count begins anew", () => {
    const fruitless = scene();
    for (let round = 0; round < 10; round++) {
      for (let count = 1; count < MAX_FRUITLESS_CONNECTIONS; count++) silent(fruitless, 1);
      fruitless.stoodStill();
      expect(fruitless.words(7)).toBeNull();
    }
  });

  it("the connection after a silent one may be silent for LONG_SILENCE_MS, if a call waits and the owner is the same", () => {
    expect(LONG_SILENCE_MS).toBeLessThan(SOUND_AFTER_MS);
    const fruitless = scene();
    expect(fruitless.silenceMs).toBe(DEAD_MS);
    fruitless.ended(7, "cut", false);
    expect(fruitless.silenceMs).toBe(DEAD_MS);
    silent(fruitless, 1);
    expect(fruitless.silenceMs).toBe(LONG_SILENCE_MS);
    fruitless.ended(7, "cut in the handshake", false);
    expect(fruitless.silenceMs).toBe(LONG_SILENCE_MS);
    fruitless.welcomed(1);
    fruitless.ended(null, "silence", true);
    expect(fruitless.silenceMs).toBe(DEAD_MS);
    silent(fruitless, 1);
    fruitless.clear();
    expect(fruitless.silenceMs).toBe(DEAD_MS);
  });
});

describe("a caller, by a clock of the test's own", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
  afterEach(() => {
    vi.restoreAllMocks();
    vi.useRealTimers();
  });

  /** The delays that a test may have to let pass: none of the owner's, which is in this process. */
  function delaysBetween(least: number, most: number): () => number[] {
    const timers = vi.isMockFunction(setTimeout) ? vi.mocked(setTimeout) : vi.spyOn(globalThis, "setTimeout");
    return () =>
      timers.mock.calls.map(([, delay]) => delay ?? 0).filter((delay) => delay >= least && delay <= most && delay !== HANDSHAKE_LOOK_MS);
  }

  it.each([
    ["though others are answered", true, [10, 10, 10, 10, 10]],
    ["and nothing else is: it dials ever less often", false, [10, 20, 40, 80, 160]],
  ])("whose call gets no answer on three connections can not reach the owner, %s", async (_, others, expected) => {
    // Asked again on each connection.
    let answer = (): void => undefined;
    const answers = new Promise<never>((_, reject) => {
      answer = () => reject(errnoError(E.EIO));
    });
    answers.catch(() => undefined);
    const owner = await lab.owner(1, (lower) => ({
      ...lower,
      statfs: () => answers,
    }));
    const proxy = await lab.proxyTo(owner);
    const lower = lab.remote();
    await lower.connect(proxy.address, 1);
    await lower.getattr(lower.root);
    const pauses = delaysBetween(10, 1000);
    void Promise.resolve(lower.statfs()).catch(() => undefined);
    const verdicts: (boolean | undefined)[] = [];
    for (const [at] of expected.entries()) {
      await until(() => !lower.disconnected);
      verdicts.push(lower.ownerWait?.inOwnersHands);
      if (others) await lower.getattr(lower.root);
      proxy.cut();
      await until(() => pauses().length === at + 1);
      vi.advanceTimersByTime(pauses().at(-1) ?? 0);
    }
    expect(verdicts).toEqual([true, true, true, false, false]);
    expect(pauses()).toEqual(expected);
    await until(() => !lower.disconnected);
    const wait = lower.ownerWait;
    expect(wait === null ? null : ownerWaitWords(wait)).toMatch(
      /^no connection to the owner \(the last 5 ended before they had answered, at last: .+\): 1 call waits, a statfs for/,
    );
    answer();
    await until(() => lower.ownerWait === null);
  });

  it("without calls, whose files are not open at the next owner after three connections, can not reach it; once they are, it can", async () => {
    const first = await lab.owner(1);
    const lower = lab.remote();
    await lower.connect(first.address, 1);
    await lower.opendir(lower.root);
    let open = (): void => undefined;
    const opened = new Promise<void>((resolve) => (open = resolve));
    const next = await lab.owner(2, (local) => ({
      ...local,
      opendir: (id) => opened.then(() => local.opendir(id)),
    }));
    const proxy = await lab.proxyTo(next);
    lower.ownerLost();
    lower.ownerFound(proxy.address, 2);
    // While the reopening is under way, and between two tries.
    const verdicts: (readonly [boolean | undefined, boolean])[] = [];
    for (let connection = 1; connection <= MAX_FRUITLESS_CONNECTIONS + 2; connection++) {
      await until(() => lower.ownerWait !== null);
      const during = lower.ownerWait?.inOwnersHands;
      proxy.cut();
      await until(() => lower.ownerWait === null);
      verdicts.push([during, lower.ownerThere]);
      vi.advanceTimersByTime(RECONNECT_MAX_MS);
    }
    expect(verdicts).toEqual([
      [true, true],
      [true, true],
      [true, false],
      [false, false],
      [false, false],
    ]);
    open();
    await until(() => !lower.disconnected);
    expect([lower.ownerThere, lower.ownerWait]).toEqual([true, null]);
  });

  it("waits ever longer for an owner that takes connections and says nothing, up to WELCOME_TIMEOUT_MAX_MS, and for that owner", async () => {
    const taken: Socket[] = [];
    let said = 0;
    const server = createServer((socket) => {
      taken.push(socket.on("error", () => undefined));
      socket.once("data", () => (said += 1));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const lower = lab.remote();
    await lower.connect((await lab.owner()).address, 1);
    const waits = delaysBetween(WELCOME_TIMEOUT_MS, WELCOME_TIMEOUT_MAX_MS);
    const pauses = delaysBetween(10, 1000);
    lower.ownerFound({ ...TEST_OWNER, host: "127.0.0.1", port: (server.address() as AddressInfo).port }, 2);
    void Promise.resolve(lower.statfs()).catch(() => undefined);
    const lasted: number[] = [];
    for (let dial = 1; dial <= 6; dial++) {
      await until(() => said === dial);
      const before = waits().length;
      vi.advanceTimersByTime(WELCOME_TIMEOUT_MS);
      const rest = waits().length > before ? (waits().at(-1) ?? 0) : 0;
      vi.advanceTimersByTime(rest);
      await until(() => pauses().length === dial);
      expect(lower.ownerWait?.trouble).toContain("the owner's host takes connections, and the owner says nothing");
      expect(lower.ownerWait?.inOwnersHands).toBe(true);
      lasted.push(WELCOME_TIMEOUT_MS + rest);
      vi.advanceTimersByTime(pauses().at(-1) ?? 0);
    }
    expect(lasted).toEqual([5000, 10_000, 20_000, 30_000, 30_000, 30_000]);
    lower.shutdown();
    for (const socket of taken) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
});

/** More than net.Server's own backlog of 511, and its end says whether all were taken. */
const DIALS = 600;
const dialler = `
  const { connect } = require("node:net");
  let taken = 0;
  const sockets = Array.from({ length: ${DIALS} }, () => connect(Number(process.argv[1]), "127.0.0.1", () => {
    if (++taken === ${DIALS}) process.exit(0);
  }));
  for (const socket of sockets) socket.on("error", () => process.exit(1));
`;

it("the kernel takes ACCEPT_BACKLOG_MAX connections for an owner that hangs, where it may", async () => {
  expect(ACCEPT_BACKLOG_MAX).toBeGreaterThan(DIALS);
  const { address } = await lab.owner();
  // This process is the owner, and stands still meanwhile. A SYN that is left unanswered is repeated after a second, and then less often.
  const child = spawnSync(process.execPath, ["-e", dialler, String(address.port)], { timeout: 20_000 });
  expect([child.signal, child.status]).toEqual([null, 0]);
});
