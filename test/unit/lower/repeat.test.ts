/** An owner that ended without a word, of which all that it had executed is on the disk: no call ends with an error for it that it need not. */
import fs from "node:fs";
import { describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import type { FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { repeatOf } from "../../../overlay/lower/wire/repeat.ts";
import { caller, errnoOf, name, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const { owner, remote } = lab;
const isGone = (): boolean => false;
const same = (lower: LocalLower): LocalLower => lower;

describe("which changes are made again", () => {
  const id: FileId = { ino: 1, generation: 1 };
  const made = { parent: id, name: name("n"), tellParent: false, mode: 0o644, caller };

  it("those that are the same twice, whatever they answer", () => {
    const sames = [
      repeatOf("setattr", { id, change: { size: 3 }, handle: null, promised: false }),
      repeatOf("write", { handle: 1, offset: 5, append: false, promised: false, room: false, tell: null, data: name("x") }),
      repeatOf("fallocate", { handle: 1, mode: 0, offset: 0, bytes: 1 }),
      repeatOf("setxattr", { id, name: name("user.a"), value: name("b"), flags: 0 }),
      repeatOf("copyFileRange", { inHandle: 1, inOffset: 0, outHandle: 2, outOffset: 0, bytes: 1 }),
      repeatOf("open", { id, flags: 0o1001, handle: 1, promised: false }),
      repeatOf("create", { ...made, flags: RDWR, handle: 1 }),
      // The first one, if there was one, is open nowhere: the next owner drops it.
      repeatOf("tmpfile", { parent: id, mode: 0o600, caller: made.caller, flags: RDWR, linkable: true, handle: 1 }),
    ];
    expect(sames).toEqual(sames.map(() => ({ again: true, doubtful: [] })));
  });

  it("never an append, or a change that moves what lies behind", () => {
    expect(repeatOf("write", { handle: 1, offset: 0, append: true, promised: false, room: false, tell: null, data: name("x") })).toEqual({
      again: false,
    });
    for (const mode of [0x08, 0x20]) expect(repeatOf("fallocate", { handle: 1, mode, offset: 0, bytes: 4096 })).toEqual({ again: false });
  });

  it("changes of names, unless the answer may be of their own making", () => {
    const exists = { again: true, doubtful: [E.EEXIST] };
    expect(repeatOf("mkdir", made)).toEqual(exists);
    expect(repeatOf("create", { ...made, flags: RDWR | 0o200, handle: 1 })).toEqual(exists);
    // The caller itself may not open it again for writing.
    expect(repeatOf("create", { ...made, mode: 0o444, flags: RDWR, handle: 1 })).toEqual(exists);
    expect(repeatOf("link", { id, newParent: id, newName: name("n"), tellParent: false })).toEqual(exists);
    expect(repeatOf("setxattr", { id, name: name("user.a"), value: name("b"), flags: 1 })).toEqual(exists);
    expect(repeatOf("unlink", { ...made, expected: id })).toEqual({ again: true, doubtful: [E.ENOENT, E.ESTALE] });
    expect(repeatOf("removexattr", { id, name: name("user.a") })).toEqual({ again: true, doubtful: [E.ENODATA] });
  });
});

/** An owner whose `mkdir` and `unlink` and writes never come back, made or not; then another one. */
async function dies(
  made: boolean,
  after: { readonly cleanAfter?: number; readonly letGoAfter?: number },
  use: (lower: RemoteLower, f: { id: FileId; handle: LowerHandle }) => Promise<number>[],
  next: (lower: LocalLower) => LocalLower = same,
): Promise<number[]> {
  let reached = 0;
  let buried: () => void = () => undefined;
  const burial = new Promise<void>((resolve) => {
    buried = resolve;
  });
  const never = async (work: () => unknown): Promise<never> => {
    if (made) await work();
    reached += 1;
    await burial;
    throw errnoError(E.EIO);
  };
  const first = await owner(1, (lower) => ({
    ...lower,
    mkdir: (...args) => never(() => lower.mkdir(...args)),
    unlink: (...args) => never(() => lower.unlink(...args)),
    write: (handle, data, offset, append) =>
      data.byteLength === 0 || !fs.existsSync(`${lab.place.path}/go`)
        ? lower.write(handle, data, offset, append)
        : never(() => lower.write(handle, data, offset, append)),
  }));
  const lower = remote({}, silentLog);
  await lower.connect(first.address, 1);
  const { entry, handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
  await lower.write(handle, name("acknowledged"), 0, false);
  fs.writeFileSync(`${lab.place.path}/go`, "");
  const calls = use(lower, { id: entry.id, handle });
  await until(() => reached === calls.length);
  lower.ownerLost();
  // Its server cannot end while calls run that never do: the descriptors are closed below it, as a death does.
  await first.lower.shutdown().catch(() => undefined);
  lower.ownerFound((await owner(2, next, isGone, after)).address, 2);
  const errors = await Promise.all(calls);
  errors.push(await errnoOf(() => lower.fsync(handle, false)));
  buried();
  return errors;
}

it("makes an unanswered change that was not made, and tells fsync that all is on the disk", async () => {
  const mkdir = (lower: RemoteLower): Promise<number>[] => [errnoOf(() => lower.mkdir(lower.root, name("d"), 0o755, caller))];
  expect(await dies(false, { cleanAfter: 1 }, mkdir)).toEqual([0, 0]);
  expect(fs.existsSync(`${lab.place.path}/d`)).toBe(true);
});

it("ends a change with EIO if it may be its own doing that it cannot be made again", async () => {
  const mkdir = (lower: RemoteLower): Promise<number>[] => [errnoOf(() => lower.mkdir(lower.root, name("d"), 0o755, caller))];
  expect(await dies(true, { cleanAfter: 1 }, mkdir)).toEqual([E.EIO, 0]);
});

it.each(["EMFILE", "ENFILE", "ENOMEM"] as const)("ends it with EIO, too, if the next owner says %s before it has looked", async (early) => {
  const mkdir = (lower: RemoteLower): Promise<number>[] => [errnoOf(() => lower.mkdir(lower.root, name("d"), 0o755, caller))];
  const refuse = (): never => {
    throw errnoError(E[early]);
  };
  expect(await dies(true, { cleanAfter: 1 }, mkdir, (lower) => ({ ...lower, mkdir: refuse }))).toEqual([E.EIO, 0]);
});

it("tells of a write what the next owner says: twice is as once", async () => {
  const write = (lower: RemoteLower, { handle }: { handle: LowerHandle }): Promise<number>[] => [
    errnoOf(() => lower.write(handle, name("AGAIN"), 2, false)),
  ];
  const refuse = (): never => {
    throw errnoError(E.ENOMEM);
  };
  expect(await dies(false, { cleanAfter: 1 }, write, (lower) => ({ ...lower, write: refuse }))).toEqual([E.ENOMEM, 0]);
});

it("writes again what may have been written", async () => {
  const write = (lower: RemoteLower, { handle }: { handle: LowerHandle }): Promise<number>[] => [
    errnoOf(() => lower.write(handle, name("AGAIN"), 2, false)),
  ];
  expect(await dies(true, { cleanAfter: 1 }, write)).toEqual([0, 0]);
  expect(fs.readFileSync(`${lab.place.path}/f`, "utf8")).toBe("acAGAINedged");
});

it("makes unanswered changes again after a disk that was let go of, and tells fsync that earlier ones may be lost", async () => {
  const mkdir = (lower: RemoteLower): Promise<number>[] => [errnoOf(() => lower.mkdir(lower.root, name("d"), 0o755, caller))];
  expect(await dies(false, { letGoAfter: 1 }, mkdir)).toEqual([0, E.EIO]);
});

it("ends one with EIO after it as well, if it may be its own doing that it cannot be made again", async () => {
  const mkdir = (lower: RemoteLower): Promise<number>[] => [errnoOf(() => lower.mkdir(lower.root, name("d"), 0o755, caller))];
  expect(await dies(true, { letGoAfter: 1 }, mkdir)).toEqual([E.EIO, E.EIO]);
});

it("is as careful as ever if the disk of another owner was clean, or of none", async () => {
  const mkdir = (lower: RemoteLower): Promise<number>[] => [errnoOf(() => lower.mkdir(lower.root, name("d"), 0o755, caller))];
  expect(await dies(false, {}, mkdir)).toEqual([E.EIO, E.EIO]);
});
