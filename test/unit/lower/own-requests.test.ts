/**
 * Changes of an owner's own mount, as it writes them down before it makes them, and what another owner says of each after a crash: made now, found to be made, or EIO
 * (hazard F41). Over the real wire, on a real file system.
 */
import { beforeEach, describe, expect, it, vi } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { OwnJournal } from "../../../overlay/lower/own-journal.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import { changeFor, type FileId, type Lower, type LowerHandle } from "../../../overlay/lower/lower.ts";
import type { MadeAgain } from "../../../overlay/lower/remote/again.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { DiskGuard } from "../../../overlay/lower/server/disk-guard.ts";
import { decodeWith } from "../../../overlay/lower/wire/call-codecs.ts";
import { callOfType, CALLS } from "../../../overlay/lower/wire/calls.ts";
import { isOwnChange, NO_END, type OwnChange } from "../../../overlay/lower/wire/own-requests.ts";
import { caller, name, type Owner, RDWR, remoteLab } from "./remote-lab.ts";

const lab = remoteLab();
const REQUEST = 100;
const O_EXCL = 0o200;
const DATA = Buffer.from("data");

interface Written {
  readonly type: number;
  readonly request: number;
  readonly body: Buffer;
  readonly sure: boolean;
}

let owner: Owner;
let remote: RemoteLower;
let written: Written[];
let freed: number[];
let open: Map<number, FileId>;
let own: Lower;
let journal: { -readonly [K in keyof OwnJournal]: OwnJournal[K] };
let file: { readonly id: FileId; readonly handle: LowerHandle };
let directory: FileId;

/** Writes each change down, and makes none: as if it had crashed right before that. */
function crashing(local: LocalLower): LocalLower {
  const get = (target: LocalLower, key: string): unknown =>
    isOwnChange(key)
      ? (): never => {
          throw errnoError(E.EINTR);
        }
      : target[key as keyof LocalLower];
  return new Proxy(local, { get: get as never });
}

beforeEach(async () => {
  owner = await lab.owner();
  const { lower } = owner;
  const made = await lower.create(lower.root, name("file"), RDWR, 0o644, caller);
  await lower.write(made.handle, Buffer.from("text"), 0, false);
  file = { id: made.entry.id, handle: made.handle };
  directory = (await lower.mkdir(lower.root, name("directory"), 0o755, caller)).id;
  [written, freed, open] = [[], [], new Map()];
  journal = {
    openedAtOwner: ({ handle, id }) => void open.set(handle, id),
    closedAtOwner: (handle) => void open.delete(handle),
    wanted: true,
    making: (type: number, request: number, body: Uint8Array, sure: boolean) =>
      void written.push({ type, request, body: Buffer.from(body), sure }),
    notMade: (request: number) => void freed.push(request),
  };
  const withdraw = (): never => expect.fail("nothing has failed");
  const disk = { readOnly: false, isDamaged: () => false, probe: async () => true, mayWithdraw: () => true, withdraw };
  own = new DiskGuard({ ...disk, local: crashing(lower), journal, log: silentLog }).own;
  remote = lab.remote();
  const files = [{ handle: file.handle, id: file.id, flags: RDWR, directory: false, lossesTold: 0 }];
  remote.continueWith({ files, unsynced: { changed: [], lost: [], deaths: 0, syncfsFails: false, tick: 0 } });
  await remote.connect(owner.address, 1);
});

async function crash(change: (lower: Lower) => unknown): Promise<Written> {
  try {
    await changeFor(own, REQUEST, () => change(own));
  } catch {
    // EINTR: it was not made.
  }
  expect(written).toHaveLength(1);
  const [one] = written;
  if (one === undefined) throw new Error("nothing was written down");
  expect(one.request).toBe(REQUEST);
  return one;
}

const again = ({ type, body, sure }: Written, data: Uint8Array = new Uint8Array()): Promise<MadeAgain> =>
  remote.makeAgain({ type, body: Buffer.concat([body, data]), sure });
const errnoIn = ({ failed, body }: MadeAgain): number => (failed ? Buffer.from(body).readUInt32LE(0) : 0);
const text = (): string => Buffer.from(owner.lower.read(file.handle, 0, 100) as Uint8Array).toString();
const there = async (called: string): Promise<boolean> => {
  try {
    await owner.lower.lookup(owner.lower.root, name(called));
    return true;
  } catch {
    return false;
  }
};

/** What the change is, whether it is there, and what is said when it was made before: 0: that it is made. */
const rows: readonly (readonly [OwnChange, (lower: Lower) => unknown, () => Promise<unknown>, number])[] = [
  ["mkdir", (lower) => lower.mkdir(lower.root, name("made"), 0o755, caller), () => there("made"), E.EIO],
  ["mknod", (lower) => lower.mknod(lower.root, name("made"), 0o010644, 0, 0, caller), () => there("made"), E.EIO],
  ["symlink", (lower) => lower.symlink(lower.root, name("made"), name("file"), caller), () => there("made"), E.EIO],
  ["link", (lower) => lower.link(file.id, lower.root, name("made")), () => there("made"), E.EIO],
  ["create", (lower) => lower.create(lower.root, name("made"), RDWR | O_EXCL, 0o644, caller), () => there("made"), E.EIO],
  ["unlink", (lower) => lower.unlink(lower.root, name("file"), file.id), async () => !(await there("file")), 0],
  ["rmdir", (lower) => lower.rmdir(lower.root, name("directory"), directory), async () => !(await there("directory")), 0],
  [
    "rename",
    (lower) => lower.rename(lower.root, name("file"), lower.root, name("moved"), 0, file.id, null),
    async () => (await there("moved")) && !(await there("file")),
    0,
  ],
  [
    "setattr",
    (lower) => lower.setattr(file.id, { mode: 0o600 }, null),
    async () => ((await owner.lower.getattr(file.id)).mode & 0o777) === 0o600,
    0,
  ],
  ["fallocate", (lower) => lower.fallocate(file.handle, 0, 0, 8192), async () => (await owner.lower.getattr(file.id)).size === 8192, 0],
  ["copyFileRange", (lower) => lower.copyFileRange(file.handle, 0, file.handle, 10, 4), async () => text().endsWith("text"), 0],
  [
    "setxattr",
    (lower) => lower.setxattr(file.id, name("user.a"), name("value"), 0),
    async () => (await owner.lower.getxattr(file.id, name("user.a"))).toString() === "value",
    0,
  ],
];

describe("a change that was not made is made, and one that was made is not made twice", () => {
  it.each(rows)("%s", async (call, change, isThere, ifMade) => {
    // As the kernel looks before: what is not there is known then.
    await there("moved");
    const one = await crash(change);
    expect(callOfType(one.type)).toBe(call);
    const first = await again(one);
    expect([errnoIn(first), await isThere()]).toEqual([0, true]);
    // It is a whole answer of that call.
    decodeWith(CALLS[call].answer as never, first.body);
    expect([errnoIn(await again(one)), await isThere()]).toEqual([ifMade, true]);
  });

  it("the file of a create stays open nowhere", async () => {
    const before = owner.lower.openHandles;
    const made = await again(await crash((lower) => lower.create(lower.root, name("made"), RDWR, 0o644, caller)));
    expect([errnoIn(made), owner.lower.openHandles]).toEqual([0, before]);
  });

  it("an attribute that is not there may have been taken away by it: EIO", async () => {
    expect(errnoIn(await again(await crash((lower) => lower.removexattr(file.id, name("user.none")))))).toBe(E.EIO);
  });

  it("a write, with the data of the request that comes again", async () => {
    const one = await crash((lower) => lower.write(file.handle, DATA, 2, false));
    for (let times = 0; times < 2; times += 1) expect([errnoIn(await again(one, DATA)), text()]).toEqual([0, "tedata"]);
  });
});

describe("an append", () => {
  const append = (): Promise<Written> => crash((lower) => lower.write(file.handle, DATA, 0, true));
  const answer = ({ body }: MadeAgain): object => {
    const { offset, bytes } = decodeWith(CALLS.write.answer, body);
    return { offset, bytes };
  };

  it("that was not made is made, at the end", async () => {
    const one = await append();
    expect([answer(await again(one, DATA)), text()]).toEqual([{ offset: 4, bytes: 4 }, "textdata"]);
  });

  it("that was made, whole or in part, is found: the file is longer by that", async () => {
    const one = await append();
    await owner.lower.write(file.handle, DATA.subarray(0, 3), 4, false);
    expect([answer(await again(one, DATA)), text()]).toEqual([{ offset: 4, bytes: 3 }, "textdat"]);
    await owner.lower.write(file.handle, DATA, 4, false);
    expect([answer(await again(one, DATA)), text()]).toEqual([{ offset: 4, bytes: 4 }, "textdata"]);
  });

  it("EIO where the file is shorter, or longer than that, or nobody knew where it ended", async () => {
    const one = await append();
    await owner.lower.write(file.handle, Buffer.from("much more"), 4, false);
    expect(errnoIn(await again(one, DATA))).toBe(E.EIO);
    await owner.lower.setattr(file.id, { size: 1 }, null);
    expect(errnoIn(await again(one, DATA))).toBe(E.EIO);
    const unknown = Buffer.from(one.body);
    unknown.writeBigUInt64LE(BigInt(NO_END), 4);
    expect([errnoIn(await again({ ...one, body: unknown }, DATA)), text()]).toEqual([E.EIO, "t"]);
  });
});

it("a name that another node has taken away before is not taken away by it: EIO", async () => {
  await owner.lower.unlink(owner.lower.root, name("file"), file.id);
  const one = await crash((lower) => lower.unlink(lower.root, name("file"), file.id));
  expect([one.sure, errnoIn(await again(one))]).toEqual([false, E.EIO]);
});

it("a rename over what another node has put there before was not made by it: EIO", async () => {
  await owner.lower.mkdir(owner.lower.root, name("moved"), 0o755, caller);
  const one = await crash((lower) => lower.rename(lower.root, name("file"), lower.root, name("moved"), 0, file.id, null));
  expect([one.sure, errnoIn(await again(one))]).toEqual([false, E.EIO]);
});

it("a name that this owner could not look for is not known to be gone, however sure it was that it was there: EIO", async () => {
  const one = await crash((lower) => lower.unlink(lower.root, name("file"), file.id));
  const unlink = vi.spyOn(owner.lower, "unlink").mockImplementationOnce(() => {
    throw errnoError(E.EMFILE);
  });
  expect([one.sure, errnoIn(await again(one)), unlink.mock.calls.length, await there("file")]).toEqual([true, E.EIO, 1, true]);
});

it("a change that has failed is not written down any more: its request goes on", async () => {
  await crash((lower) => lower.mkdir(lower.root, name("made"), 0o755, caller));
  expect(freed).toEqual([REQUEST]);
});

it("a write to a file that this owner could not open ends as each call on it", async () => {
  const one = await crash((lower) => lower.write(file.handle, DATA, 2, false));
  await owner.lower.unlink(owner.lower.root, name("file"), file.id);
  owner.lower.close(file.handle);
  await owner.server.close();
  const next = await lab.owner(2, undefined, undefined, { cleanAfter: 1 });
  remote.ownerFound(next.address, 2);
  while (remote.openedAt?.epoch !== 2) await new Promise((resolve) => setImmediate(resolve));
  expect(remote.openedAt).toEqual({ epoch: 2, cleanAfter: 1 });
  expect([remote.isBroken(file.handle), errnoIn(await again(one, DATA))]).toEqual([true, E.ESTALE]);
});

it("nothing is written down where no crash is ever a pause", async () => {
  journal.wanted = false;
  expect(() => changeFor(own, REQUEST, () => own.unlink(owner.lower.root, name("file"), file.id))).toThrow("EINTR");
  expect([written, freed]).toEqual([[], []]);
});

it("what it has open is written down, until it is closed", async () => {
  const handle = await own.open(file.id, RDWR);
  const listing = await own.opendir(directory);
  expect(open).toEqual(
    new Map([
      [handle, file.id],
      [listing, directory],
    ]),
  );
  own.close(handle);
  own.close(listing);
  expect(open.size).toBe(0);
});

it("what changes nothing, and what no request waits for, is not written down", async () => {
  await changeFor(own, REQUEST, () => own.getattr(file.id));
  await Promise.resolve(own.fsync(file.handle, false)).catch(() => undefined);
  expect(() => own.unlink(owner.lower.root, name("file"), file.id)).toThrow("EINTR");
  expect(written).toEqual([]);
});
