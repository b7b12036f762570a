/** Hazard F36: the kernel checks who owns a file with what it was told last; here the check is made with what is so now, under the lock. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import type { AttrChange } from "../../../overlay/lower/lower.ts";
import { aclAllows, isCapable, isOwner } from "../../../overlay/op/permission.ts";
import { attrOf, FILE, ROOT } from "./scripted-lower.ts";
import { Workbench } from "./workbench.ts";

const CAP_CHOWN = 1n << 0n;
const CAP_DAC_OVERRIDE = 1n << 1n;
const CAP_FOWNER = 1n << 3n;
const CAP_FSETID = 1n << 4n;
const ANOTHER = 2000;
const MINE = 1000;
const MEMBER_OF = 50;
const me = { uid: MINE, gid: MINE, groups: [MEMBER_OF], capabilities: 0n };
const time = { sec: 1, nsec: 0 };

interface Given {
  readonly uid?: number;
  readonly gid?: number;
  readonly mode?: number;
  /** Of the caller. */
  readonly capabilities?: bigint;
  readonly hidden?: boolean;
  readonly acl?: Buffer;
  readonly handleKillpriv?: boolean;
}

function benchOf(given: Given): Workbench {
  const bench = new Workbench();
  Object.assign(bench.lower, {
    fileMode: given.mode ?? 0o100644,
    fileUid: given.uid ?? MINE,
    fileGid: given.gid ?? MINE,
    hasAcls: given.acl !== undefined,
  });
  if (given.acl !== undefined) bench.lower.getxattr = () => given.acl ?? Buffer.alloc(0);
  bench.who = given.hidden === true ? null : { ...me, capabilities: given.capabilities ?? 0n };
  bench.mount.handleKillpriv = given.handleKillpriv ?? true;
  return bench;
}

/** The errno, and what the lower was told to change. */
async function setattr(given: Given, change: AttrChange): Promise<{ readonly errno: number; readonly made: AttrChange | null }> {
  const bench = benchOf(given);
  let made: AttrChange | null = null;
  bench.lower.setattr = ((id: typeof FILE, asked: AttrChange) => {
    made = asked;
    return attrOf(id);
  }) as never;
  const reply = await bench.serve({ op: "setattr", fuseNodeid: bench.file.fuseNodeid, fh: null, change });
  expect([bench.coherence.held, bench.coherence.violations]).toEqual([0, []]);
  expect(made !== null).toBe(reply?.errno === 0);
  return { errno: reply?.errno ?? -1, made };
}

const errnoOf = async (given: Given, change: AttrChange): Promise<number> => (await setattr(given, change)).errno;

describe("SETATTR of a file that is another one's by now", () => {
  const former: Given = { uid: ANOTHER };

  it.each([
    ["chmod", { mode: 0o777 }, E.EPERM],
    ["chown to the former owner", { uid: MINE }, E.EPERM],
    ["chgrp to a group of the caller's", { gid: MEMBER_OF }, E.EPERM],
    ["chgrp to the group that it has", { gid: MINE }, E.EPERM],
    ["utimes", { atime: time, mtime: time }, E.EPERM],
    ["one time that is now", { mtime: "now" }, E.EPERM],
    ["one of two times that is now", { atime: "now", mtime: time }, E.EPERM],
    ["touch", { atime: "now", mtime: "now" }, E.EACCES],
    ["a mode beside a size", { size: 0, mode: 0o777 }, E.EPERM],
  ] as const)("%s is refused", async (_what, change, errno) => {
    expect(await errnoOf(former, change)).toBe(errno);
    // Who cannot be seen has no capabilities; the kernel has looked whether one that it did not take for the owner may write.
    expect(await errnoOf({ ...former, hidden: true }, change)).toBe(errno === E.EACCES ? 0 : errno);
    expect(await errnoOf({}, change)).toBe(0);
  });

  it("what the kernel sends by itself is not: a size, and what a write takes away", async () => {
    for (const change of [{ size: 0 }, { size: 5, killSuidgid: true }, { size: 5, mtime: "now" }, {}] as const)
      expect(await errnoOf(former, change)).toBe(0);
  });

  it("before Linux 5.12 the kernel takes set-user-id away before a write; it sets nothing so", async () => {
    const old = { ...former, mode: 0o106755, handleKillpriv: false };
    expect([await errnoOf(old, { mode: 0o100755 }), await errnoOf(old, { mode: 0o102755 })]).toEqual([0, 0]);
    expect([await errnoOf(old, { mode: 0o106777 }), await errnoOf({ ...old, mode: 0o100755 }, { mode: 0o104755 })]).toEqual([
      E.EPERM,
      E.EPERM,
    ]);
    expect(await errnoOf({ ...old, handleKillpriv: true }, { mode: 0o100755 })).toBe(E.EPERM);
    // As it does before a chown(2), in one request with it.
    expect(await errnoOf(old, { mode: 0o100755, gid: MEMBER_OF })).toBe(E.EPERM);
  });

  it("root's is not looked at, and costs no trip", async () => {
    const bench = benchOf(former);
    const call = bench.call("setattr");
    Object.assign(call, { uid: 0 });
    const reply = await bench.serve({ op: "setattr", fuseNodeid: bench.file.fuseNodeid, fh: null, change: { mode: 0o600 } }, call);
    expect([reply?.errno, bench.lower.ownersAsked]).toEqual([0, []]);
  });

  it.each([
    ["CAP_FOWNER", CAP_FOWNER, [0, E.EPERM, E.EPERM, 0, 0]],
    ["CAP_CHOWN", CAP_CHOWN, [E.EPERM, 0, 0, E.EPERM, E.EACCES]],
    ["CAP_DAC_OVERRIDE", CAP_DAC_OVERRIDE, [E.EPERM, E.EPERM, E.EPERM, E.EPERM, 0]],
  ] as const)("%s is enough for what it is for", async (_name, capabilities, errnos) => {
    const changes: readonly AttrChange[] = [{ mode: 0o600 }, { uid: MINE }, { gid: 70 }, { mtime: time }, { atime: "now", mtime: "now" }];
    const found: number[] = [];
    for (const change of changes) found.push(await errnoOf({ ...former, capabilities }, change));
    expect(found).toEqual(errnos);
  });

  it("touch is for all who may write, by the mode or by an ACL", async () => {
    const touch = { atime: "now", mtime: "now" } as const;
    expect(await errnoOf({ ...former, mode: 0o100664 }, touch)).toBe(0);
    expect(await errnoOf({ ...former, mode: 0o100666, acl: aclOf([0x02, 4, MINE], [0x10, 7, 0], [0x20, 6, 0]) }, touch)).toBe(E.EACCES);
    expect(await errnoOf({ ...former, mode: 0o100664, acl: aclOf([0x02, 6, MINE], [0x10, 6, 0], [0x20, 4, 0]) }, touch)).toBe(0);
  });
});

it("touch of a symbolic link, which can have no ACL, goes by its mode", async () => {
  const bench = benchOf({ uid: ANOTHER, mode: 0o120777 });
  bench.lower.hasAcls = true;
  bench.lower.errors.set("getxattr", [E.EOPNOTSUPP]);
  const change = { atime: "now", mtime: "now" };
  expect((await bench.serve({ op: "setattr", fuseNodeid: bench.file.fuseNodeid, fh: null, change }))?.errno).toBe(0);
});

describe("SETATTR of a file that has another group by now", () => {
  it("its owner gives it to a group that it is in, and to no other", async () => {
    const given = { gid: 60 };
    expect([
      await errnoOf(given, { gid: MEMBER_OF }),
      await errnoOf(given, { gid: 60 }),
      await errnoOf(given, { uid: MINE, gid: MINE }),
    ]).toEqual([0, 0, 0]);
    expect([await errnoOf(given, { gid: 70 }), await errnoOf(given, { uid: ANOTHER })]).toEqual([E.EPERM, E.EPERM]);
    // Which groups it is in the kernel knows.
    expect(await errnoOf({ ...given, hidden: true }, { gid: 70 })).toBe(0);
  });

  it("its owner makes it set-group-id only as a member of the group that it has now", async () => {
    const modeSet = async (given: Given): Promise<number | undefined> => (await setattr(given, { mode: 0o102755 })).made?.mode;
    expect(await modeSet({ gid: 60 })).toBe(0o100755);
    expect(await modeSet({ gid: 60, hidden: true })).toBe(0o100755);
    for (const given of [{ gid: MINE }, { gid: MEMBER_OF }, { gid: 60, capabilities: CAP_FSETID }])
      expect(await modeSet(given)).toBe(0o102755);
  });
});

describe("what goes from a sticky directory", () => {
  const name = Buffer.from("name");
  const sticky = (uid: number, victim: Workbench["file"] | "told" = "told"): Workbench => {
    const bench = benchOf({ uid });
    bench.lower.dirMode = 0o041777;
    bench.coherence.told.set("2.0 name", victim === "told" ? bench.file : victim);
    return bench;
  };
  const requests = [
    { op: "unlink" as const, name },
    { op: "rmdir" as const, name },
    { op: "rename" as const, name, newFuseNodeid: 1, newName: Buffer.from("new"), flags: 0 },
  ];

  it.each(requests)(
    "$op by a former owner: the kernel walks again, and if it still takes it for the owner it is refused",
    async (request) => {
      const bench = sticky(ANOTHER);
      bench.coherence.told.set("2.0 new", null);
      expect((await bench.serve(request))?.errno).toBe(E.ESTALE);
      expect((await bench.serve(request))?.errno).toBe(E.EPERM);
      expect(bench.lower.calls).not.toContain(request.op);
      expect([bench.coherence.held, bench.coherence.violations]).toEqual([0, []]);
    },
  );

  it.each(requests)("$op by its owner, or from a directory that is not sticky, costs nothing else", async (request) => {
    for (const [uid, dirMode, dirUid] of [
      [MINE, 0o041777, 0],
      [ANOTHER, 0o040777, 0],
      [ANOTHER, 0o041777, MINE],
    ] as const) {
      const bench = sticky(uid);
      Object.assign(bench.lower, { dirMode, dirUid });
      bench.coherence.told.set("2.0 new", null);
      expect((await bench.serve(request))?.errno).toBe(0);
      expect(bench.lower.calls.filter((call) => !call.startsWith("expect"))).toEqual([request.op]);
      // Of the file only where it matters.
      expect(bench.lower.ownersAsked.includes(FILE.ino)).toBe(uid === MINE);
    }
  });

  it("root's is not looked at", async () => {
    for (const request of requests) {
      const bench = sticky(ANOTHER);
      bench.coherence.told.set("2.0 new", null);
      const call = bench.call(request.op);
      Object.assign(call, { uid: 0 });
      expect([(await bench.serve(request, call))?.errno, bench.lower.ownersAsked]).toEqual([0, []]);
    }
  });

  it.each([
    ["replaced", 0],
    ["exchanged", 2],
  ])("what is %s must be the caller's, too", async (_what, flags) => {
    const bench = sticky(MINE);
    const target = bench.inodes.remember({ ino: 21, generation: 1 }, 0o100644);
    bench.coherence.told.set("2.0 new", target);
    const ownership = bench.lower.ownership.bind(bench.lower);
    bench.lower.ownership = (id) => (id.ino === 21 ? attrOf(id, { uid: ANOTHER }) : ownership(id));
    const rename = { op: "rename" as const, name, newFuseNodeid: 1, newName: Buffer.from("new"), flags };
    expect((await bench.serve(rename))?.errno).toBe(E.ESTALE);
    expect(bench.lower.calls).toEqual([]);
  });
});

describe("extended attributes and chattr(1) of a file that is another one's by now", () => {
  const acl = Buffer.from("system.posix_acl_access");

  it.each([
    { op: "setxattr", name: acl },
    { op: "setxattr", name: Buffer.from("system.posix_acl_default") },
    { op: "removexattr", name: acl },
  ] as const)("$op of an ACL is its owner's", async (more) => {
    const request = { ...more, value: Buffer.alloc(4), flags: 0, aclKillSgid: false };
    for (const [uid, errno] of [
      [ANOTHER, E.EPERM],
      [MINE, 0],
    ] as const) {
      const bench = benchOf({ uid });
      expect((await bench.serve({ ...request, fuseNodeid: bench.file.fuseNodeid }))?.errno).toBe(errno);
      expect(bench.lower.calls.includes(more.op)).toBe(errno === 0);
    }
  });

  it("others are for all who may write, but in a sticky directory its owner's", async () => {
    const set = { op: "setxattr" as const, name: Buffer.from("user.k"), value: Buffer.alloc(1), flags: 0, aclKillSgid: false };
    const file = benchOf({ uid: ANOTHER });
    expect((await file.serve({ ...set, fuseNodeid: file.file.fuseNodeid }))?.errno).toBe(0);
    const outcome = async (dirMode: number, dirUid: number): Promise<number | undefined> => {
      const bench = benchOf({});
      Object.assign(bench.lower, { dirMode, dirUid });
      return (await bench.serve({ ...set, fuseNodeid: 1 }))?.errno;
    };
    expect([await outcome(0o041777, 0), await outcome(0o041777, MINE), await outcome(0o040777, 0)]).toEqual([E.EPERM, 0, 0]);
  });

  it("an ACL by an owner outside of the group that the file has now takes set-group-id away", async () => {
    const calls = async (gid: number): Promise<readonly string[]> => {
      const bench = benchOf({ mode: 0o102775, gid });
      const set = { op: "setxattr" as const, name: acl, value: Buffer.alloc(4), flags: 0, aclKillSgid: false };
      expect((await bench.serve({ ...set, fuseNodeid: bench.file.fuseNodeid }))?.errno).toBe(0);
      return bench.lower.calls;
    };
    expect([(await calls(60)).includes("setattr"), (await calls(MEMBER_OF)).includes("setattr")]).toEqual([true, false]);
  });

  it("IOCTL that changes flags is its owner's", async () => {
    for (const [uid, errno] of [
      [ANOTHER, E.EPERM],
      [MINE, 0],
    ] as const) {
      const bench = benchOf({ uid });
      bench.lower.fileAttributes = () => Buffer.alloc(4);
      const { fh } = bench.openFile(false);
      expect((await bench.serve({ op: "ioctl", kind: "flags", value: Buffer.from([0x40, 0, 0, 0]), fh }))?.errno).toBe(errno);
      expect(bench.lower.calls.includes("setFileAttributes")).toBe(errno === 0);
    }
  });
});

describe("who asks", () => {
  it("works as another one just now: what /proc says of it does not count", async () => {
    const bench = benchOf({ uid: ANOTHER });
    bench.who = { uid: 0, gid: 0, groups: [], capabilities: CAP_FOWNER };
    const chmod = { op: "setattr" as const, fuseNodeid: bench.file.fuseNodeid, fh: null, change: { mode: 0o600 } };
    expect((await bench.serve(chmod))?.errno).toBe(E.EPERM);
  });

  it("has capabilities for the ids of its user namespace", () => {
    const who = { ...me, capabilities: CAP_FOWNER, idMaps: { uids: [{ from: 1000, count: 2 }], gids: [{ from: 0, count: 10 }] } };
    const rows: readonly [number, number, boolean, boolean][] = [
      [1001, 9, true, true],
      [1002, 9, false, false],
      [1001, 10, true, false],
      [999, 9, false, false],
    ];
    for (const [uid, gid, owner, capable] of rows) {
      const attr = attrOf(ROOT, { uid, gid });
      expect([uid, gid, isOwner(who, attr), isCapable(who, CAP_FOWNER, attr)]).toEqual([uid, gid, owner, capable]);
    }
  });
});

/** Entries: tag, bits, id. */
function aclOf(...entries: readonly (readonly [number, number, number])[]): Buffer {
  const buffer = Buffer.alloc(4 + entries.length * 8);
  buffer.writeUInt32LE(2, 0);
  entries.forEach(([tag, bits, id], at) => {
    buffer.writeUInt16LE(tag, 4 + at * 8);
    buffer.writeUInt16LE(bits, 6 + at * 8);
    buffer.writeUInt32LE(id, 8 + at * 8);
  });
  return buffer;
}

describe("an access ACL (posix_acl_permission)", () => {
  const file = attrOf(FILE, { uid: ANOTHER, gid: 60 });
  const [USER, GROUP_OBJ, GROUP, MASK, OTHER] = [0x02, 0x04, 0x08, 0x10, 0x20] as const;
  it.each([
    [
      "a named user, with the mask",
      [
        [USER, 6, MINE],
        [MASK, 6, 0],
        [OTHER, 0, 0],
      ],
      true,
    ],
    [
      "a named user, without",
      [
        [USER, 6, MINE],
        [MASK, 4, 0],
        [OTHER, 6, 0],
      ],
      false,
    ],
    [
      "a named user is not one of the others",
      [
        [USER, 4, MINE],
        [MASK, 6, 0],
        [OTHER, 6, 0],
      ],
      false,
    ],
    [
      "a named group",
      [
        [GROUP_OBJ, 0, 0],
        [GROUP, 6, MEMBER_OF],
        [MASK, 6, 0],
        [OTHER, 0, 0],
      ],
      true,
    ],
    [
      "a named group, without the mask",
      [
        [GROUP, 6, MEMBER_OF],
        [MASK, 4, 0],
        [OTHER, 6, 0],
      ],
      false,
    ],
    [
      "two groups, of which one may",
      [
        [GROUP, 4, MINE],
        [GROUP, 6, MEMBER_OF],
        [MASK, 6, 0],
        [OTHER, 0, 0],
      ],
      true,
    ],
    [
      "others",
      [
        [USER, 0, ANOTHER],
        [GROUP_OBJ, 0, 0],
        [MASK, 0, 0],
        [OTHER, 2, 0],
      ],
      true,
    ],
    [
      "others, and it is not for them",
      [
        [GROUP_OBJ, 6, 0],
        [MASK, 6, 0],
        [OTHER, 4, 0],
      ],
      false,
    ],
  ] as const)("%s", (_what, entries, allows) => {
    expect(aclAllows(me, file, aclOf(...entries), 2)).toBe(allows);
  });

  it("of the file's own group", () => {
    const acl = aclOf([GROUP_OBJ, 6, 0], [MASK, 6, 0], [OTHER, 0, 0]);
    expect([aclAllows(me, { ...file, gid: MEMBER_OF }, acl, 2), aclAllows(me, file, acl, 2)]).toEqual([true, false]);
  });
});
