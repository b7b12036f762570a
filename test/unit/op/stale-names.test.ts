/** Hazard F12: the name is not what the kernel checked. ESTALE once, then the truth under a check of our own. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { EstaleRetry, STALE_CALLS_MAX } from "../../../overlay/op/estale-retry.ts";
import { OTHER } from "./scripted-lower.ts";
import { Workbench } from "./workbench.ts";

const name = Buffer.from("name");
const create = { op: "create" as const, name, mode: 0o644, umask: 0, supplementaryGids: [], flags: 0o102 };
const O_EXCL = 0o200;

describe("CREATE over an existing file", () => {
  it("O_EXCL is told at once", async () => {
    const bench = new Workbench();
    bench.lower.errors.set("create", [E.EEXIST]);
    expect((await bench.serve({ ...create, flags: create.flags | O_EXCL }))?.errno).toBe(E.EEXIST);
  });

  it("others walk again, once; then the file is opened, if the caller may", async () => {
    const bench = new Workbench();
    bench.lower.errors.set("create", [E.EEXIST, E.EEXIST]);
    bench.lower.fileMode = 0o100600;
    bench.lower.fileUid = 1000;
    expect((await bench.serve(create))?.errno).toBe(E.ESTALE);
    const reply = await bench.serve(create);
    // The kernel may have this inode, and installs what a CREATE says however late (hazard F4).
    expect([reply?.errno, reply?.body.readBigUInt64LE(24)]).toEqual([0, 0n]);
    expect(bench.lower.calls).toContain("open");
    expect(bench.coherence.tokens).toBe(1);
    expect(bench.coherence.held).toBe(0);
    expect(bench.file.nlookup).toBe(2);
    // A later call starts anew.
    bench.lower.errors.set("create", [E.EEXIST]);
    expect((await bench.serve(create))?.errno).toBe(E.ESTALE);
  });

  it("and refused, if not: the secret of another user", async () => {
    const bench = new Workbench();
    bench.lower.errors.set("create", [E.EEXIST, E.EEXIST]);
    bench.lower.fileMode = 0o100600;
    bench.lower.fileUid = 0;
    await bench.serve(create);
    expect((await bench.serve(create))?.errno).toBe(E.EACCES);
    expect(bench.lower.calls).not.toContain("open");
    expect(bench.coherence.tokens).toBe(0);
    expect(bench.coherence.held).toBe(0);
    expect(bench.coherence.violations).toEqual([]);
  });

  it("and refused in a sticky directory that others may write to, if it is neither the caller's nor the directory's owner's", async () => {
    const outcome = async (dirMode: number, fileUid: number): Promise<number | undefined> => {
      const bench = new Workbench();
      bench.lower.errors.set("create", [E.EEXIST, E.EEXIST]);
      Object.assign(bench.lower, { dirMode, fileMode: 0o100666, fileUid });
      await bench.serve(create);
      const reply = await bench.serve(create);
      expect(bench.lower.calls.includes("open")).toBe(reply?.errno === 0);
      return reply?.errno;
    };
    expect(await outcome(0o041777, 2000)).toBe(E.EACCES);
    expect([await outcome(0o041777, 1000), await outcome(0o041777, 0), await outcome(0o040777, 2000)]).toEqual([0, 0, 0]);
  });

  it("another process has a walk of its own", async () => {
    const bench = new Workbench();
    bench.lower.errors.set("create", [E.EEXIST, E.EEXIST]);
    expect((await bench.serve(create, bench.call("create", 1)))?.errno).toBe(E.ESTALE);
    expect((await bench.serve(create, bench.call("create", 2)))?.errno).toBe(E.ESTALE);
  });
});

describe.each(["unlink", "rmdir"] as const)("%s of a name that is another file by now", (op) => {
  const request = { op, name };

  it("ESTALE; when it comes back it is done, on what is there", async () => {
    const bench = new Workbench();
    bench.coherence.told.set("2.0 name", bench.file);
    bench.lower.errors.set(op, [E.ESTALE]);
    bench.lower.found = OTHER;
    expect((await bench.serve(request))?.errno).toBe(E.ESTALE);
    bench.lower.errors.set(op, [E.ESTALE, 0]);
    expect((await bench.serve(request))?.errno).toBe(0);
    expect(bench.coherence.events).toContain("pin 21.1 EX");
    expect(bench.coherence.held).toBe(0);
    expect(bench.coherence.violations).toEqual([]);
    expect(bench.inodes.size).toBe(2);
  });

  it("but not in a sticky directory, if it is not the caller's", async () => {
    const bench = new Workbench();
    bench.lower.dirMode = 0o041777;
    bench.lower.fileUid = 0;
    bench.who = { uid: 1000, gid: 1000, groups: [], capabilities: 0n };
    // Nothing was told, so nothing was checked.
    expect((await bench.serve(request))?.errno).toBe(0 + E.EPERM);
    expect(bench.lower.calls).not.toContain(op);
    bench.lower.fileUid = 1000;
    expect((await bench.serve(request))?.errno).toBe(0);
  });

  it("ENOENT where there is none, told or not", async () => {
    const bench = new Workbench();
    bench.lower.errors.set("lookup", [E.ENOENT, E.ENOENT]);
    expect((await bench.serve(request))?.errno).toBe(E.ENOENT);
    bench.coherence.told.set("2.0 name", null);
    expect((await bench.serve(request))?.errno).toBe(E.ENOENT);
  });

  it("EBUSY after a limit, when it changes each time", async () => {
    const bench = new Workbench();
    bench.lower.errors.set(
      op,
      Array.from({ length: 1000 }, () => E.ESTALE),
    );
    expect((await bench.serve(request))?.errno).toBe(E.EBUSY);
    expect(bench.coherence.held).toBe(0);
  });
});

describe("RENAME", () => {
  const rename = { op: "rename" as const, name, newFuseNodeid: 1, newName: Buffer.from("new"), flags: 0 };

  it("over a file that was told: locks it, forgets one of its names", async () => {
    const bench = new Workbench();
    const target = bench.inodes.remember(OTHER, 0o100644);
    target.nlookup = 1;
    bench.inodes.leave(target);
    bench.coherence.told.set("2.0 name", bench.file);
    bench.coherence.told.set("2.0 new", target);
    expect((await bench.serve(rename))?.errno).toBe(0);
    expect(bench.coherence.events).toContain("pin 21.1 EX");
    expect(bench.coherence.events).toContain("move 2.0 name 2.0 new");
    bench.inodes.forget(target.fuseNodeid, 1);
    expect(bench.coherence.events).toContain("removed 21.1");
  });

  it("ESTALE once, for either name", async () => {
    const bench = new Workbench();
    bench.coherence.told.set("2.0 name", bench.file);
    bench.coherence.told.set("2.0 new", null);
    bench.lower.errors.set("rename", [E.ESTALE, E.ESTALE, 0]);
    expect((await bench.serve(rename))?.errno).toBe(E.ESTALE);
    expect((await bench.serve(rename))?.errno).toBe(0);
    expect(bench.coherence.held).toBe(0);
    expect(bench.file.useCount).toBe(0);
  });

  it("ESTALE once, though the second walk ends in another directory", async () => {
    const bench = new Workbench();
    const other = bench.inodes.remember({ ino: 31, generation: 1 }, 0o040755);
    bench.coherence.told.set("2.0 name", bench.file);
    bench.coherence.told.set("31.1 name", bench.file);
    bench.coherence.told.set("2.0 new", null);
    bench.lower.errors.set("rename", [E.ESTALE, E.ESTALE, 0]);
    expect((await bench.serve(rename))?.errno).toBe(E.ESTALE);
    expect((await bench.serve({ ...rename, fuseNodeid: other.fuseNodeid }))?.errno).toBe(0);
  });

  it("but not out of a sticky directory, if the file that is there by now is not the caller's", async () => {
    const bench = new Workbench();
    bench.lower.dirMode = 0o041777;
    bench.lower.fileUid = 0;
    bench.who = { uid: 1000, gid: 1000, groups: [], capabilities: 0n };
    bench.lower.errors.set("lookup", [0, E.ENOENT]);
    expect((await bench.serve(rename))?.errno).toBe(E.EPERM);
    expect(bench.lower.calls).not.toContain("rename");
    expect(bench.coherence.held).toBe(0);
    bench.lower.fileUid = 1000;
    bench.lower.errors.set("lookup", [0, E.ENOENT]);
    expect((await bench.serve(rename))?.errno).toBe(0);
  });

  it("EXCHANGE swaps what was told", async () => {
    const bench = new Workbench();
    bench.coherence.told.set("2.0 name", bench.file);
    expect((await bench.serve({ ...rename, flags: 2 }))?.errno).toBe(0);
    expect(bench.coherence.events).toContain("exchange 2.0 name 2.0 new");
  });
});

describe("an inode that is gone for good", () => {
  const cases = [
    { op: "setattr", fh: null, change: { mode: 0o600 } },
    { op: "open", flags: 0 },
    { op: "opendir", flags: 0 },
    { op: "getxattr", name, size: 0 },
    { op: "setxattr", name, value: name, flags: 0 },
    { op: "listxattr", size: 0 },
    { op: "removexattr", name },
  ] as const;

  it.each(cases)("$op: ESTALE, for the kernel to walk again, then ENOENT; each call anew", async (request) => {
    const bench = new Workbench();
    const serve = async (): Promise<number | undefined> => (await bench.serve({ ...request, fuseNodeid: bench.file.fuseNodeid }))?.errno;
    bench.lower.errors.set(request.op, [E.ESTALE, E.ESTALE, E.ESTALE, 0, E.ESTALE]);
    expect([await serve(), await serve()]).toEqual([E.ESTALE, E.ENOENT]);
    expect([await serve(), await serve(), await serve()]).toEqual([E.ESTALE, 0, E.ESTALE]);
    expect(bench.coherence.held).toBe(0);
  });
});

describe("EstaleRetry", () => {
  it("gives it once, forgets what went well, and is bounded", () => {
    const once = new EstaleRetry();
    expect(once.give({ op: "unlink", pid: 1 }, name)).toBe(true);
    once.settled({ op: "unlink", pid: 1 }, name);
    expect(once.give({ op: "unlink", pid: 1 }, name)).toBe(true);
    expect(once.give({ op: "unlink", pid: 1 }, name)).toBe(false);
    expect(once.give({ op: "unlink", pid: 0 }, name)).toBe(true);
    for (let pid = 1; pid <= STALE_CALLS_MAX; pid += 1) once.give({ op: "unlink", pid }, name);
    expect(once.give({ op: "unlink", pid: 0 }, name)).toBe(true);
  });
});

describe("LINK of a file that the kernel knows from before another node changed it (protected_hardlinks)", () => {
  const stranger = { uid: 1000, gid: 1000, groups: [50], capabilities: 0n };
  const outcome = async (
    mode: number,
    set: { uid?: number; gid?: number; who?: typeof stranger | null; acl?: boolean } = {},
  ): Promise<number> => {
    const bench = new Workbench();
    Object.assign(bench.lower, { fileMode: mode, fileUid: set.uid ?? 2000, fileGid: 0, hasAcls: true });
    if (set.acl !== true) bench.lower.errors.set("getxattr", [E.ENODATA]);
    bench.who = set.who === undefined ? stranger : set.who;
    const reply = await bench.serve({ op: "link", targetFuseNodeid: bench.file.fuseNodeid, name });
    expect(bench.lower.calls.includes("link")).toBe(reply?.errno === 0);
    expect([bench.coherence.held, bench.coherence.violations]).toEqual([0, []]);
    return reply?.errno ?? -1;
  };

  it("is refused if it is special, set-user-ID or set-group-ID by now, or not to be read and written", async () => {
    expect(await outcome(0o100666)).toBe(0);
    for (const mode of [0o104666, 0o102676, 0o100664, 0o100662, 0o120777, 0o010666])
      expect([mode, await outcome(mode)]).toEqual([mode, E.EPERM]);
    // Without the bit for the group's execution it means something else.
    expect(await outcome(0o102666)).toBe(0);
  });

  it("is not if it is the caller's own, or its capabilities say so", async () => {
    expect(await outcome(0o104600, { uid: 1000 })).toBe(0);
    expect(await outcome(0o104600, { who: { ...stranger, capabilities: 1n << 3n } })).toBe(0);
    expect(await outcome(0o100600, { who: { ...stranger, capabilities: 1n << 1n } })).toBe(0);
  });

  it("with an ACL, or a caller who can not be seen, only the bits that mean danger count: the kernel has asked for the others", async () => {
    expect([await outcome(0o100600, { acl: true }), await outcome(0o104600, { acl: true })]).toEqual([0, E.EPERM]);
    expect([await outcome(0o100600, { who: null }), await outcome(0o104600, { who: null })]).toEqual([0, E.EPERM]);
  });
});
