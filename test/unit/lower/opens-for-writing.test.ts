/** Files that are opened for writing under a lock that is here, of which the owner is told at the first WRITE (hazards F22 and F27), over the real wire. */
import fs from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { promised } from "../../../dlmd/base/maybe-promise.ts";
import { O } from "../../../overlay/lower/linux.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import type { FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { Locks } from "./known-lab.ts";
import { caller, errnoOf, name, type Owner, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();

/** What the owner does, as a test hinders it. */
class Hindered {
  /** What was begun there, in that order. */
  readonly begun: string[] = [];
  openError: Error | null = null;
  /** As after chattr +a: it is opened to append, and not to write anywhere. */
  appendOnly = false;
  #opened: Promise<void> | null = null;
  #go = (): void => undefined;

  /** Opens wait. */
  hold(): void {
    this.#opened = new Promise((resolve) => (this.#go = resolve));
  }

  go(): void {
    this.#go();
  }

  /** Those that wait go on waiting. */
  holdNoOther(): void {
    this.#opened = null;
  }

  wrap(lower: LocalLower): LocalLower {
    return {
      ...lower,
      open: async (...given) => {
        this.begun.push("open");
        if (this.appendOnly && (given[1] & O.ACCMODE) !== O.RDONLY && (given[1] & O.APPEND) === 0) throw errnoError(E.EPERM);
        await this.#opened;
        if (this.openError !== null) throw this.openError;
        return lower.open(...given);
      },
      setFileAttributes: async (...given) => {
        this.begun.push("flags");
        return lower.setFileAttributes(...given);
      },
      write: (...given) => {
        this.begun.push("write");
        return lower.write(...given);
      },
    };
  }
}

interface Here {
  readonly lower: RemoteLower;
  readonly one: Owner;
  readonly locks: Locks;
  readonly owner: Hindered;
  readonly id: FileId;
}

/** A file that this node has made, and that nobody has open. */
async function made(): Promise<Here> {
  const owner = new Hindered();
  const locks = new Locks();
  const lower = lab.remote({}, undefined, { holds: locks });
  const one = await lab.owner(1, (local) => owner.wrap(local));
  await lower.connect(one.address, 1);
  const { entry, handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
  lower.made(entry.id, entry.attr);
  await lower.write(handle, Buffer.from("first"), 0, false);
  lower.close(handle);
  await lower.getattr(entry.id);
  await until(() => one.lower.openHandles === 0);
  owner.begun.length = 0;
  return { lower, one, locks, owner, id: entry.id };
}

/** At once, without a trip. */
function opened({ lower, id }: Here, flags = RDWR): LowerHandle {
  const handle = lower.open(id, flags);
  if (handle instanceof Promise) throw new Error("the owner is asked");
  return handle;
}

async function asks({ lower, id }: Here, flags = RDWR): Promise<boolean> {
  const handle = lower.open(id, flags);
  lower.close(await handle);
  return handle instanceof Promise;
}

const write = async ({ lower }: Here, handle: LowerHandle, text: string, offset = 0): Promise<void> => {
  await lower.write(handle, Buffer.from(text), offset, false);
};
const onDisk = (called = "f"): string => fs.readFileSync(path.join(lab.place.path, called), "latin1");

async function setFlags({ lower }: Here, handle: LowerHandle): Promise<void> {
  await lower.setFileAttributes(handle, "flags", await lower.fileAttributes(handle, "flags"));
}

describe("a file that this node made is opened for writing", () => {
  it("without a trip, and closed without one; the first WRITE opens it, and its close is told", async () => {
    const here = await made();
    const trips = here.lower.counters.awaited;
    here.lower.close(opened(here));
    const handle = opened(here, O.WRONLY);
    expect([here.lower.counters.awaited - trips, here.owner.begun]).toEqual([0, []]);
    await write(here, handle, "FI");
    expect([here.lower.counters.awaited - trips, here.owner.begun, onDisk()]).toEqual([1, ["open", "write"], "FIrst"]);
    await write(here, handle, "RST", 2);
    expect([here.lower.counters.awaited - trips, here.owner.begun.length, onDisk()]).toEqual([2, 3, "FIRST"]);
    here.lower.close(handle);
    await until(() => here.one.lower.openHandles === 0);
  });

  it("WRITEs that wait at the owner until it is open there are made in their order", async () => {
    const here = await made();
    const handle = opened(here);
    here.owner.hold();
    const writes = ["a", "bb", "c"].map((text) => write(here, handle, text));
    await until(() => here.owner.begun.length > 0);
    await here.lower.getattr(here.lower.root);
    expect(here.owner.begun).toEqual(["open"]);
    here.owner.go();
    await Promise.all(writes);
    expect([here.owner.begun, onDisk()]).toEqual([["open", "write", "write", "write"], "cbrst"]);
  });

  it("a READ opens it, too", async () => {
    const here = await made();
    const handle = opened(here);
    expect(Buffer.from(await here.lower.read(handle, 0, 100)).toString()).toBe("first");
    await write(here, handle, "F");
    expect([here.owner.begun, onDisk()]).toEqual([["open", "write"], "First"]);
  });

  it("a change of its length is one trip, by the file or by its name, and opens it", async () => {
    const here = await made();
    for (const through of ["handle", "name"]) {
      const handle = opened(here);
      const trips = here.lower.counters.awaited;
      await here.lower.setattr(here.id, { size: 3 }, through === "handle" ? handle : null);
      expect([through, here.lower.counters.awaited - trips, here.one.lower.openHandles]).toEqual([through, 1, 1]);
      here.lower.close(handle);
      await until(() => here.one.lower.openHandles === 0);
      await here.lower.getattr(here.id);
    }
    expect(onDisk()).toBe("fir");
  });

  it("what is cut is written behind then; what the owner has not opened never is", async () => {
    const here = await made();
    await here.lower.setattr(here.id, { size: 0 }, null);
    const before = opened(here);
    expect(here.lower.mayWriteBehind(before, 0, 3)).toBe(false);
    const trips = here.lower.counters.awaited;
    await here.lower.setattr(here.id, { size: 0 }, null);
    expect(here.lower.mayWriteBehind(before, 0, 3)).toBe(true);
    await here.lower.writeBehind(before, Buffer.from("new"), 0);
    expect([here.lower.counters.awaited - trips, onDisk()]).toEqual([1, "new"]);
  });

  it("a copy between two of them is one trip", async () => {
    const here = await made();
    const { entry, handle } = await here.lower.create(here.lower.root, name("to"), RDWR, 0o644, caller);
    here.lower.made(entry.id, entry.attr);
    here.lower.close(handle);
    await here.lower.getattr(entry.id);
    const [from, to] = [opened(here), opened({ ...here, id: entry.id })];
    const trips = here.lower.counters.awaited;
    expect(await here.lower.copyFileRange(from, 0, to, 0, 5)).toBe(5);
    expect([here.lower.counters.awaited - trips, here.owner.begun, onDisk("to")]).toEqual([1, ["open", "open"], "first"]);
  });

  it("before its lock leaves the owner is told", async () => {
    const here = await made();
    const handle = opened(here);
    await here.lower.tellOpens(here.id);
    expect(here.owner.begun).toEqual(["open"]);
    await write(here, handle, "F");
    expect(here.owner.begun).toEqual(["open", "write"]);
  });

  it("of what the owner cannot open the WRITE says why, and the next one opens it", async () => {
    const here = await made();
    const handle = opened(here);
    here.owner.openError = errnoError(E.ENFILE);
    expect([await errnoOf(() => write(here, handle, "F")), onDisk()]).toEqual([E.ENFILE, "first"]);
    here.owner.openError = null;
    await write(here, handle, "F");
    expect(onDisk()).toBe("First");
  });
});

describe("the owner is asked for an open for writing", () => {
  it("of a file that another node made; not of one that was opened so before", async () => {
    const here = await made();
    const other = lab.remote({ clientId: 6 });
    await other.connect(here.one.address, 1);
    const { entry, handle } = await other.create(other.root, name("other"), RDWR, 0o644, caller);
    other.close(handle);
    await here.lower.getattr(entry.id);
    const file = { ...here, id: entry.id };
    expect(await asks(file, O.RDONLY)).toBe(false);
    expect([await asks(file), await asks(file), await asks(file, O.WRONLY)]).toEqual([true, false, false]);
  });

  it("that cuts it, and of one whose last name is gone", async () => {
    const here = await made();
    expect(await asks(here, RDWR | O.TRUNC)).toBe(true);
    const open = await here.lower.open(here.id, RDWR);
    await here.lower.unlink(here.lower.root, name("f"), here.id);
    await here.lower.getattr(here.id);
    expect(await asks(here)).toBe(true);
    here.lower.close(open);
  });

  it.each<[string, (here: Here) => unknown]>([
    ["the lock has left and come back", ({ locks }) => locks.comeAgain()],
    ["the lock was about to leave", ({ lower, id }) => lower.tellOpens(id)],
    ["its flags were changed", async (here) => setFlags(here, opened(here, O.RDONLY))],
  ])("once %s", async (_what, then) => {
    const here = await made();
    expect(await asks(here)).toBe(false);
    await then(here);
    await here.lower.getattr(here.id);
    expect([await asks(here), await asks(here)]).toEqual([true, false]);
  });

  it.each<[string, (here: Here, reader: LowerHandle) => unknown]>([
    ["its flags are changed", setFlags],
    ["the lock leaves and comes back", ({ locks }) => locks.comeAgain()],
  ])("where %s while it is opened", async (_what, then) => {
    const here = await made();
    const reader = opened(here, O.RDONLY);
    await setFlags(here, reader);
    await here.lower.getattr(here.id);
    here.owner.begun.length = 0;
    here.owner.hold();
    const opening = here.lower.open(here.id, RDWR);
    await until(() => here.owner.begun.length === 1);
    await then(here, reader);
    here.owner.go();
    here.lower.close(await opening);
    await here.lower.getattr(here.id);
    expect(await asks(here)).toBe(true);
  });

  it("of a file that takes appends only: that it was opened with O_APPEND says nothing of other opens", async () => {
    const here = await made();
    await here.lower.tellOpens(here.id);
    here.owner.appendOnly = true;
    const appends = O.WRONLY | O.APPEND;
    expect([await asks(here, appends), await asks(here, appends)]).toEqual([true, false]);
    expect(await errnoOf(async () => here.lower.open(here.id, O.WRONLY))).toBe(E.EPERM);
    here.owner.appendOnly = false;
    expect([await asks(here), await asks(here, appends), await asks(here)]).toEqual([true, false, false]);
  });

  it("while its flags are about to be changed", async () => {
    const here = await made();
    const reader = opened(here, O.RDONLY);
    const flags = await here.lower.fileAttributes(reader, "flags");
    opened(here);
    here.owner.begun.length = 0;
    here.owner.hold();
    const changing = promised(() => here.lower.setFileAttributes(reader, "flags", flags));
    await until(() => here.owner.begun.length === 1);
    here.owner.holdNoOther();
    const asked = [await asks(here), await asks(here)];
    here.owner.go();
    await changing;
    expect([asked, here.owner.begun]).toEqual([
      [true, true],
      ["open", "open", "open", "flags"],
    ]);
  });

  it("before its flags are changed the owner has opened what is open", async () => {
    const here = await made();
    const reader = opened(here, O.RDONLY);
    await here.lower.fileAttributes(reader, "flags");
    const writer = opened(here);
    here.owner.begun.length = 0;
    here.owner.hold();
    const flags = await here.lower.fileAttributes(reader, "flags");
    const changing = promised(() => here.lower.setFileAttributes(reader, "flags", flags));
    await until(() => here.owner.begun.length === 1);
    expect(here.owner.begun).toEqual(["open"]);
    here.owner.go();
    await changing;
    expect(here.owner.begun).toEqual(["open", "flags"]);
    await write(here, writer, "F");
    expect(onDisk()).toBe("First");
  });
});
