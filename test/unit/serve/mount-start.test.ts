/** A mount that fails, or is told to end, before it is there: nothing is waited for any more, and nobody finds a mount. */
import { beforeEach, expect, it, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { Native } from "../../../native/index.ts";
import { MountProcess } from "../../../overlay/serve/mount-process.ts";
import type { MountProcessOptions } from "../../../overlay/serve/mount-process-options.ts";

const play = vi.hoisted(() => ({
  /** Steps of a mount, in their order, and what became of it. */
  seen: [] as string[],
  /** This one ends when `goOn` is called. */
  slow: "",
  reached: (): void => undefined,
  goOn: (): void => undefined,
  handlers: null as { disconnected: (reason: Error) => void } | null,
  step(name: string): Promise<void> {
    play.seen.push(name);
    if (name !== play.slow) return Promise.resolve();
    play.reached();
    return new Promise((resolve) => (play.goOn = resolve));
  },
  async session() {
    await play.step("session");
    let end: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => (end = resolve));
    const abort = (): void => {
      play.seen.push("abort");
      end();
    };
    return { ended, abort, handOff: null };
  },
}));

vi.mock("../../../dlmd/client/client.ts", () => ({
  connectDlm: async (_: string, handlers: { disconnected: (reason: Error) => void }) => {
    play.handlers = handlers;
    await play.step("dlmd");
    return {
      info: {
        incarnation: "i1",
        nodeid: 1,
        clientId: 2,
        clusterName: "c",
        nodes: [],
        volumes: [{ uuid: "u", name: "v" }],
        preferredOwners: [],
        overlayKeys: [],
      },
      view: { quorate: true, members: [1], incarnations: ["i1"] },
      lockspace: async (name: string) => {
        await play.step("lockspace");
        const lock = { busy: true, request: () => undefined, cancel: () => undefined };
        return { name, createLock: () => lock };
      },
      setBastLimitMs: () => undefined,
      close: async () => void play.seen.push("closed"),
    };
  },
}));
vi.mock("../../../overlay/lease/lease.ts", async (original) => ({
  ...(await original<object>()),
  openLeasePage: () => ({ endMs: () => Number.MAX_SAFE_INTEGER, marginMs: 1000 }),
}));
vi.mock("../../../overlay/mount-group/mount-group.ts", () => ({
  VolumeMountGroup: class {
    join = (): Promise<void> => play.step("mount group");
    showAs = (): void => void play.seen.push("knobs");
    mounted = (): void => void play.seen.push("mounted");
    end = (): void => undefined;
    leave = (): void => undefined;
    dropClaim = (): void => undefined;
    dropOrder = (): void => undefined;
  },
}));
vi.mock("../../../overlay/volume/owner.ts", async (original) => ({
  ...(await original<object>()),
  VolumeOwner: class {
    owner = null;
    role = "remote";
    why = "";
    readonly #callbacks: { ownerFound: (record: object) => void };
    constructor(options: { callbacks: { ownerFound: (record: object) => void } }) {
      this.#callbacks = options.callbacks;
    }
    start(): void {
      void play.step("owner").then(() => this.#callbacks.ownerFound({ epoch: 1, nodeid: 2, address: "a", port: 1 }));
    }
    leave = (): Promise<void> => Promise.resolve();
    receiveDisconnected = (): void => undefined;
  },
}));
vi.mock("../../../overlay/lower/remote/remote.ts", () => ({
  createRemoteLower: () => ({ connect: () => play.step("remote lower"), ownerFound: () => undefined, shutdown: () => undefined }),
}));
vi.mock("../../../overlay/mount-group/block-gate.ts", () => ({
  BlockGate: class {
    wrap = (lower: object): object => lower;
    end = (): void => undefined;
    letGo = (): void => undefined;
  },
}));
// Nothing is mounted.
vi.mock("../../../overlay/session/connection.ts", async (original) => ({
  ...(await original<object>()),
  detachMount: (native: { umount: () => number }) => native.umount() >= 0,
}));
vi.mock("../../../overlay/session/mount-session.ts", () => ({ mountSession: () => play.session() }));

const STEPS = ["dlmd", "lockspace", "mount group", "knobs", "owner", "remote lower", "session", "mounted"];
const LOST = "the lock manager is gone: it crashed";

function mount(): MountProcess {
  const native = {
    bootTimeMs: () => 0,
    // dlmd is not to be seen.
    peerPidfd: () => -1,
    // No memory for a journal.
    memfdCreate: () => -12,
    umount: () => (play.seen.push("umount"), 0),
  } as unknown as Native;
  const options: Partial<MountProcessOptions> = {
    native,
    log: silentLog,
    dlmdSocket: "/nowhere/dlmd.sock",
    runDir: "/nowhere",
    bit: { uuid: "u", cluster: "c" } as MountProcessOptions["bit"],
    lower: { kind: "directory", path: "/lower" },
    mountpoint: "/mnt",
    bastLimitMs: 60_000,
    localFlocks: true,
    changed: () => undefined,
  };
  return new MountProcess(options as MountProcessOptions);
}

/** How `start` ends. */
async function outcome(start: Promise<void>): Promise<string> {
  try {
    await start;
    return "mounted";
  } catch (error) {
    return error instanceof OperatingError ? error.code : String(error);
  }
}

/** It stands at that step. */
async function mountUntil(slow: string): Promise<{ one: MountProcess; ended: Promise<string> }> {
  play.slow = slow;
  const reached = new Promise<void>((resolve) => (play.reached = resolve));
  const one = mount();
  const ended = outcome(one.start());
  await reached;
  return { one, ended };
}

beforeEach(() => {
  play.seen.length = 0;
  play.slow = "";
});

it("a mount to which nothing happens takes all steps", async () => {
  expect(await outcome(mount().start())).toBe("mounted");
  expect(play.seen).toEqual(STEPS);
});

it.each(["dlmd", "lockspace", "mount group", "owner", "remote lower"])(
  "SIGTERM while it waits for the %s, which never comes: it ends, and takes no step more",
  async (slow) => {
    const { one, ended } = await mountUntil(slow);
    one.terminate();
    expect(await ended).toBe("interrupted");
    const taken = STEPS.slice(0, STEPS.indexOf(slow) + 1);
    expect(play.seen).toEqual(slow === "dlmd" ? taken : [...taken, "closed"]);
  },
);

it("a connection to dlmd that comes after SIGTERM is closed", async () => {
  const { one, ended } = await mountUntil("dlmd");
  one.terminate();
  expect(await ended).toBe("interrupted");
  play.goOn();
  await vi.waitFor(() => expect(play.seen).toEqual(["dlmd", "closed"]));
});

it("a failure that comes with the end of a step counts: the next step is not taken", async () => {
  const { one, ended } = await mountUntil("mount group");
  play.goOn();
  one.fail(new OperatingError("no member", { code: "group-ended", hint: "" }));
  expect(await ended).toBe("group-ended");
  expect(play.seen).not.toContain("knobs");
});

it.each([
  ["SIGTERM", "interrupted", (one: MountProcess) => one.terminate()],
  ["a failure", "dlmd-lost", () => play.handlers?.disconnected(new Error("it crashed"))],
])("%s while mount(2) is made: it is taken out again, with all that was joined", async (_, code, happen) => {
  const { one, ended } = await mountUntil("session");
  happen(one);
  play.goOn();
  expect(await ended).toBe(code);
  expect(play.seen).toEqual([...STEPS.slice(0, -1), "umount", "abort", "closed"]);
  const failure = await one.ended;
  expect(failure?.message).toBe(code === "dlmd-lost" ? LOST : "interrupted before the mount was there");
});
