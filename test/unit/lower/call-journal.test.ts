/** Hazard F38, over the real wire: what a process notes of its calls for the next one, and for which requests of the kernel they are made. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { changeFor, type FileId, type LowerHandle } from "../../../overlay/lower/lower.ts";
import { MAX_ACKS_IN_FRAME } from "../../../overlay/lower/remote/acknowledgements.ts";
import type { CallJournal } from "../../../overlay/lower/remote/call-journal.ts";
import type { RemoteConnection } from "../../../overlay/lower/remote/connection.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { WaitingCalls } from "../../../overlay/lower/remote/waiting-calls.ts";
import { callOfType, CALLS } from "../../../overlay/lower/wire/calls.ts";
import { FrameType } from "../../../overlay/lower/wire/frame.ts";
import { caller, errnoOf, name, type Owner, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const RDONLY = 0;
/** So many are acknowledged at once. */
const MANY_ACKS = MAX_ACKS_IN_FRAME / 4;

afterEach(() => void vi.restoreAllMocks());

/** "mkdir for 7", "mkdir made", "mkdir failed 17", "mkdir over". */
class WrittenJournal implements CallJournal {
  readonly lines: string[] = [];
  readonly bodies: (string | null)[] = [];
  readonly #calls = new Map<number, string>();
  begun(id: number, type: number, request: number, body: Uint8Array | null, data: Uint8Array | null): void {
    const call = callOfType(type) ?? "?";
    this.#calls.set(id, call);
    this.lines.push(`${call} for ${request}`);
    if (body !== null) this.bodies.push(data === null ? null : Buffer.from(data).toString());
  }
  answered(id: number, failed: boolean, body: Uint8Array): void {
    this.lines.push(`${this.#calls.get(id) ?? "?"} ${failed ? `failed ${Buffer.from(body).readUInt32LE(0)}` : "made"}`);
  }
  over(id: number): void {
    this.lines.push(`${this.#calls.get(id) ?? "?"} over`);
  }
  take(): string[] {
    return this.lines.splice(0);
  }
}

interface Bench {
  readonly one: Owner;
  readonly lower: RemoteLower;
  readonly journal: WrittenJournal;
  readonly file: (called: string) => Promise<{ readonly id: FileId; readonly handle: LowerHandle }>;
}

async function bench(): Promise<Bench> {
  const journal = new WrittenJournal();
  const one = await lab.owner();
  const lower = lab.remote({}, silentLog, { journal, holds: { grants: () => 1, of: () => 1 } });
  await lower.connect(one.address, 1);
  const file: Bench["file"] = async (called) => {
    const { entry, handle } = await lower.create(lower.root, name(called), RDWR, 0o644, caller);
    await lower.getattr(entry.id);
    journal.take();
    return { id: entry.id, handle };
  };
  return { one, lower, journal, file };
}

const mkdir = (lower: RemoteLower, called: string): Promise<number> =>
  errnoOf(async () => lower.mkdir(lower.root, name(called), 0o755, caller));

describe("a call whose answer the owner remembers is noted", () => {
  it("before it is sent, and when it is answered; others are not", async () => {
    const { lower, journal } = await bench();
    expect([await mkdir(lower, "d"), await mkdir(lower, "d")]).toEqual([0, E.EEXIST]);
    await lower.statfs();
    expect(journal.take()).toEqual(["mkdir for 0", "mkdir made", "mkdir for 0", `mkdir failed ${E.EEXIST}`]);
    lower.ownerLost();
    const waits = mkdir(lower, "e");
    expect(journal.take()).toEqual(["mkdir for 0"]);
    lower.shutdown();
    expect([await waits, journal.take()]).toEqual([E.EIO, ["mkdir over"]]);
  });

  it("before it is acknowledged, also where that does not wait for a call", () => {
    const journal = new WrittenJournal();
    const counters = { roundTrips: 0, awaited: 0, messagesSent: 0, messagesReceived: 0, bytesSent: 0, bytesReceived: 0, flushes: 0 };
    const calls = new WaitingCalls(silentLog, counters, journal, () => undefined);
    const answered = (): number => journal.lines.filter((line) => line === "removexattr made").length;
    const atFlush: number[] = [];
    calls.connect({ send: () => undefined, flush: () => void atFlush.push(answered()) } as unknown as RemoteConnection);
    calls.run(false);
    for (let id = 1; id <= MANY_ACKS; id += 1) {
      void calls.call("removexattr", { id: { ino: 2, generation: 0 }, name: name("user.a") }, []);
      calls.receive(CALLS.removexattr.type | FrameType.ANSWER, id, new Uint8Array(0));
    }
    expect(atFlush).toEqual([MANY_ACKS]);
  });

  it("with its bytes, if a program was told that it is made", async () => {
    // On a busy machine ROOM_MS are soon over.
    vi.spyOn(performance, "now").mockReturnValue(1_000_000);
    const { lower, journal } = await bench();
    const { entry, handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
    const { id } = entry;
    lower.madeFile(handle, entry.attr);
    journal.take();
    const written = lower.writeBehind(handle, Buffer.from("told"), 0);
    // Before the program is told.
    expect([journal.take(), journal.bodies]).toEqual([["write for 0"], ["told"]]);
    await written;
    const change = lower.setattrBehind(id, { mode: 0o600 });
    const set = change?.make();
    expect([change === null, journal.take(), journal.bodies]).toEqual([false, ["write made", "setattr for 0"], ["told", null]]);
    await set;
    expect(journal.take()).toEqual(["setattr made"]);
  });

  it("as EIO where its owner died and nobody knows whether it was made", async () => {
    const journal = new WrittenJournal();
    const first = await lab.owner(1);
    const proxy = await lab.proxyTo(first);
    const lower = lab.remote({}, silentLog, { journal });
    await lower.connect(proxy.address, 1);
    proxy.dropRequests = true;
    const sent = new Promise<void>((resolve) => (proxy.onRequest = resolve));
    const unknown = mkdir(lower, "unknown");
    await sent;
    lower.ownerLost();
    lower.ownerFound((await lab.owner(2)).address, 2);
    expect([await unknown, journal.take()]).toEqual([E.EIO, ["mkdir for 0", `mkdir failed ${E.EIO}`]]);
  });

  it("as failed with the error of the opening that goes before it: the next process may answer with that", async () => {
    const journal = new WrittenJournal();
    let full = false;
    const one = await lab.owner(1, (local) => ({
      ...local,
      open(...given) {
        if (full) throw errnoError(E.ENFILE);
        return local.open(...given);
      },
    }));
    const lower = lab.remote({}, silentLog, { journal, holds: { grants: () => 1, of: () => 1 } });
    await lower.connect(one.address, 1);
    const { entry } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
    lower.made(entry.id, entry.attr);
    await lower.getattr(entry.id);
    const handle = lower.open(entry.id, RDWR);
    expect(handle instanceof Promise).toBe(false);
    full = true;
    journal.take();
    expect(await errnoOf(async () => lower.write(await handle, Buffer.from("data"), 0, false))).toBe(E.ENFILE);
    expect(journal.take()).toEqual(["write for 0", `write failed ${E.ENFILE}`]);
    full = false;
    await lower.write(await handle, Buffer.from("data"), 0, false);
    expect(journal.take()).toEqual(["write for 0", "write made"]);
  });

  it("with the answer that its program got, where it was made again", async () => {
    const journal = new WrittenJournal();
    const first = await lab.owner(1);
    const proxy = await lab.proxyTo(first);
    const lower = lab.remote({}, silentLog, { journal });
    await lower.connect(proxy.address, 1);
    proxy.holdAnswers = true;
    const made = mkdir(lower, "twice");
    await until(() => first.server.sessions[0]?.rememberedAnswers === 1);
    lower.ownerLost();
    const second = await lab.owner(2, undefined, undefined, { cleanAfter: 1 });
    lower.ownerFound(second.address, 2);
    expect([await made, journal.take()]).toEqual([E.EIO, ["mkdir for 0", `mkdir failed ${E.EIO}`]]);
  });
});

describe("the request for which a change is made", () => {
  it("is that of one call, and of none that comes later or changes nothing", async () => {
    const { lower, journal } = await bench();
    const first = changeFor(lower, 7, () => {
      void lower.statfs();
      return mkdir(lower, "a");
    });
    const second = mkdir(lower, "b");
    await Promise.all([first, second]);
    expect(journal.take().filter((line) => line.includes("for"))).toEqual(["mkdir for 7", "mkdir for 0"]);
  });

  it("is not that of the next one, if the change was refused before it was asked for", async () => {
    const { lower, journal } = await bench();
    expect(await changeFor(lower, 7, () => mkdir(lower, "x".repeat(256)))).toBe(E.ENAMETOOLONG);
    await mkdir(lower, "b");
    expect(journal.take()).toEqual(["mkdir for 0", "mkdir made"]);
  });

  interface File {
    readonly id: FileId;
    readonly handle: LowerHandle;
  }

  it.each<[string, (lower: RemoteLower, made: File, other: File, flags: Buffer) => unknown]>([
    ["unlink", (lower, { id }) => lower.unlink(lower.root, name("f"), id)],
    ["rename", (lower, { id }, other) => lower.rename(lower.root, name("g"), lower.root, name("f"), 0, other.id, id)],
    ["setattr", (lower, { id, handle }) => lower.setattr(id, { mode: 0o600 }, handle)],
    ["fsync", (lower, { handle }) => lower.fsync(handle, false)],
    ["copyFileRange", (lower, { handle }, other) => lower.copyFileRange(handle, 0, other.handle, 0, 4)],
    ["setFileAttributes", (lower, { handle }, _other, flags) => lower.setFileAttributes(handle, "flags", flags)],
  ])("stays where the owner is first told of an open file: %s", async (call, change) => {
    const { one, lower, journal, file } = await bench();
    const made = await file("f");
    const other = await file("g");
    await lower.write(made.handle, Buffer.from("data"), 0, false);
    lower.close(made.handle);
    await lower.getattr(made.id);
    await until(() => one.lower.openHandles === 1);
    const flags = await lower.fileAttributes(other.handle, "flags");
    const handle = await lower.open(made.id, RDONLY);
    journal.take();
    // The owner does not know of it.
    expect(one.lower.openHandles).toBe(1);
    await changeFor(lower, 9, () => change(lower, { id: made.id, handle }, other, flags));
    expect([journal.take()[0], one.lower.openHandles]).toEqual([`${call} for 9`, 2]);
  });
});
