/** Hazard F38: requests whose change was made by a process that has died are answered, and the change is not made again. */
import { describe, expect, it } from "vitest";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { E } from "../../../dlmd/base/errno.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { ACCESS_ACL } from "../../../overlay/lower/linux.ts";
import type { AnswerOf, CallName } from "../../../overlay/lower/wire/call-types.ts";
import { CALLS } from "../../../overlay/lower/wire/calls.ts";
import { FrameType } from "../../../overlay/lower/wire/frame.ts";
import { answerMade, type MadeOutcome } from "../../../overlay/op/made-before.ts";
import type { Operation } from "../../../overlay/op/perform.ts";
import { type OperationRow, operationRows, prepare } from "./operation-rows.ts";
import { attrOf, entryOf, FILE, OTHER } from "./scripted-lower.ts";
import { type Reply, Workbench } from "./workbench.ts";

const name = Buffer.from("name");
const supplementaryGids: readonly number[] = [];
const O_EXCL = 0o200;
const O_APPEND = 0o2000;

function outcomeOf<K extends CallName>(call: K, answer: AnswerOf<K>): MadeOutcome {
  const writer = new ByteWriter();
  CALLS[call].answer.write(writer, answer);
  return { type: CALLS[call].type | FrameType.ANSWER, body: writer.copy() };
}

const made = { entry: entryOf(OTHER), parent: null };
const OUTCOMES: { readonly [K in CallName]?: MadeOutcome } = {
  setattr: outcomeOf("setattr", { attr: attrOf(FILE), room: true }),
  create: outcomeOf("create", { ...made, room: true }),
  tmpfile: outcomeOf("tmpfile", entryOf(OTHER, { nlink: 0 })),
  mkdir: outcomeOf("mkdir", { ...made, entry: entryOf(OTHER, { mode: 0o040755 }) }),
  mknod: outcomeOf("mknod", made),
  symlink: outcomeOf("symlink", { ...made, entry: entryOf(OTHER, { mode: 0o120777 }) }),
  unlink: outcomeOf("unlink", { parent: null }),
  rmdir: outcomeOf("rmdir", { parent: null }),
  rename: outcomeOf("rename", { oldParent: null, newParent: null, moved: null }),
  link: outcomeOf("link", { attr: attrOf(FILE), parent: null }),
  write: outcomeOf("write", { offset: 0, bytes: 10, room: false, attr: null }),
  fallocate: outcomeOf("fallocate", undefined),
  copyFileRange: outcomeOf("copyFileRange", 10),
  setxattr: outcomeOf("setxattr", undefined),
  removexattr: outcomeOf("removexattr", undefined),
  setFileAttributes: outcomeOf("setFileAttributes", undefined),
};

const outcomeFor = (call: OperationRow["lower"]): MadeOutcome => OUTCOMES[call as CallName] ?? { errno: E.EIO };

async function answer(
  bench: Workbench,
  request: Record<string, unknown> & { op: Operation["op"] },
  outcome: MadeOutcome,
): Promise<Reply | undefined> {
  await bench.serve(request, bench.call(request.op), (call, given) => answerMade(bench.mount, call, given, outcome));
  return bench.replies.at(-1);
}

/** Nothing is left pinned or in use. */
const left = ({ coherence, inodes, mount, file }: Workbench): unknown => ({
  violations: coherence.violations,
  held: coherence.held,
  tokens: coherence.tokens - mount.handles.takeAll().filter(({ writeToken }) => writeToken).length,
  used: inodes.root.useCount + file.useCount,
});
const NOTHING_LEFT = { violations: [], held: 0, tokens: 0, used: 0 };

const entryValid = (reply: Reply | undefined): boolean => (reply?.body.readBigUInt64LE(16) ?? 0n) > 0n;
const attrValid = (reply: Reply | undefined): boolean => (reply?.body.readBigUInt64LE(24) ?? 0n) > 0n;
const written = (reply: Reply | undefined): number | undefined => reply?.body.readUInt32LE(0);

/** What is answered by the outcome; a sync that went well is made once more. */
const changes = operationRows.filter(({ isMadeFor, op }) => isMadeFor === true && op !== "fsync" && op !== "fsyncdir");

describe.each(changes)("$op ($lower), made before", (row) => {
  it.each([false, true])("is answered under pins, once, and not made again; the lower answers later: %s", async (later) => {
    const { bench, request } = prepare(row);
    bench.lower.later = later;
    bench.lower.found = OTHER;
    const reply = await answer(bench, request, outcomeFor(row.lower));
    expect([bench.replies.length, reply?.errno]).toEqual([1, 0]);
    expect(reply?.held).toBeGreaterThan(0);
    expect([bench.lower.madeForRequests, bench.lower.calls.filter((call) => call.startsWith(row.lower))]).toEqual([[], []]);
    expect(left(bench)).toEqual(NOTHING_LEFT);
  });

  it("waits for its locks", async () => {
    const { bench, request } = prepare(row);
    bench.coherence.locks = "away";
    bench.lower.found = OTHER;
    expect((await answer(bench, request, outcomeFor(row.lower)))?.errno).toBe(0);
    expect(left(bench)).toEqual(NOTHING_LEFT);
  });

  it("is given up if its caller is killed while it waits, and gives nothing", async () => {
    const { bench, request } = prepare(row);
    bench.coherence.locks = "never";
    const call = bench.call(row.op);
    const handles = bench.mount.handles.size;
    const served = bench.serve(request, call, (one, given) => answerMade(bench.mount, one, given, outcomeFor(row.lower)));
    await new Promise((resolve) => setImmediate(resolve));
    call.interrupt();
    await served;
    expect([bench.replies.map(({ errno }) => errno), bench.mount.handles.size, bench.inodes.size]).toEqual([[E.EINTR], handles, 2]);
    expect(left(bench)).toEqual(NOTHING_LEFT);
  });

  it("gives nothing if the kernel does not take the reply", async () => {
    const { bench, request } = prepare(row);
    bench.writeResult = -E.ENOENT;
    const handles = bench.mount.handles.size;
    await answer(bench, request, outcomeFor(row.lower));
    expect([bench.replies.length, bench.mount.handles.size, bench.inodes.size, bench.file.nlookup]).toEqual([1, handles, 2, 1]);
    expect(left(bench)).toEqual(NOTHING_LEFT);
  });

  it("an error is told as it was, and an answer to something else to nobody", async () => {
    const { bench, request } = prepare(row);
    expect((await answer(bench, request, { errno: E.ENOSPC }))?.errno).toBe(E.ENOSPC);
    expect(bench.lower.calls).toEqual([]);
    await expect(answer(bench, request, outcomeOf("collect", { found: true }))).rejects.toThrow(/^the owner answered collect for /);
    expect(bench.replies.length).toBe(1);
  });
});

describe("what is made again", () => {
  const create = { op: "create" as const, name, mode: 0o644, umask: 0, flags: 0o102, supplementaryGids };

  it("what found another file than it was told of, and a creation that may open what is there", async () => {
    const bench = new Workbench();
    bench.coherence.told.set("2.0 name", bench.file);
    expect((await answer(bench, { op: "unlink", name }, { errno: E.ESTALE }))?.errno).toBe(0);
    expect((await answer(bench, create, { errno: E.EEXIST }))?.errno).toBe(0);
    expect(bench.lower.madeForRequests).toEqual(["unlink 2", "create 4"]);
    expect((await answer(bench, { ...create, flags: create.flags | O_EXCL }, { errno: E.EEXIST }))?.errno).toBe(E.EEXIST);
  });

  it.each<[string, number, Record<string, unknown> & { op: Operation["op"] }, number]>([
    // Opened here, under a check of our own.
    ["create", E.EEXIST, create, 0],
    ["setattr", E.ESTALE, { op: "setattr", fh: null, change: { mode: 0o600 } }, E.ENOENT],
  ])("%s: no second ESTALE, which would reach the program (hazard F12)", async (call, errno, request, told) => {
    const bench = new Workbench();
    bench.lower.errors.set(call as "create", [errno]);
    bench.lower.dirMode = 0o040777;
    const { fuseNodeid } = call === "create" ? bench.inodes.root : bench.file;
    const reply = await answer(bench, { ...request, fuseNodeid }, { errno });
    expect([reply?.errno, bench.replies.length]).toEqual([told, 1]);
    bench.lower.errors.set(call as "create", [errno]);
    expect((await bench.serve({ ...request, fuseNodeid }))?.errno).toBe(E.ESTALE);
  });

  it("a sync that went well, but not one whose error is told once", async () => {
    const bench = new Workbench();
    const { fh } = bench.openFile();
    const sync = { op: "fsync" as const, fh, dataOnly: false, fuseNodeid: bench.file.fuseNodeid };
    expect([(await answer(bench, sync, outcomeOf("fsync", undefined)))?.errno, bench.lower.calls]).toEqual([0, ["fsync"]]);
    expect([(await answer(bench, sync, { errno: E.EIO }))?.errno, bench.lower.calls]).toEqual([E.EIO, ["fsync"]]);
  });
});

describe("a name that was made", () => {
  const mknod = { op: "mknod" as const, name, mode: 0o644, umask: 0, rdevMajor: 0, rdevMinor: 0, supplementaryGids };
  const nodeOf = (reply: Reply | undefined): number => Number(reply?.body.readBigUInt64LE(0));

  it.each<[string, FileId, readonly number[], boolean]>([
    ["is told with validity, its attributes without", OTHER, [], true],
    ["and is another file's by now is told of the one that was made, without validity", FILE, [], false],
    ["and is gone by now, too", OTHER, [E.ENOENT], false],
    ["in a directory that is gone, too", OTHER, [E.ESTALE], false],
  ])("%s", async (_what, found, errors, valid) => {
    const bench = new Workbench();
    bench.lower.found = found;
    bench.lower.errors.set("lookup", [...errors]);
    const reply = await answer(bench, mknod, outcomeFor("mknod"));
    const child = bench.inodes.get(nodeOf(reply));
    expect([reply?.errno, child?.id, child?.nlookup]).toEqual([0, OTHER, 1]);
    expect([entryValid(reply), attrValid(reply)]).toEqual([valid, false]);
    expect(bench.coherence.events.filter((event) => event.startsWith("pin"))).toEqual(["pin 2.0 PR", "pin 21.1 PR"]);
    // The kernel has it under that name all the same.
    expect(bench.coherence.events).toContain("tell 2.0 name 21.1");
    // Others may know it by now.
    expect(bench.coherence.events).not.toContain("born 21.1");
  });

  it("whose inode is gone: ENOENT", async () => {
    const bench = new Workbench();
    bench.lower.errors.set("getattr", [E.ESTALE]);
    expect((await answer(bench, mknod, outcomeFor("mknod")))?.errno).toBe(E.ENOENT);
    expect(left(bench)).toEqual(NOTHING_LEFT);
  });

  it("of a link: the same", async () => {
    const bench = new Workbench();
    const link = { op: "link" as const, name, targetFuseNodeid: bench.file.fuseNodeid };
    const outcome = outcomeFor("link");
    bench.lower.found = FILE;
    expect(entryValid(await answer(bench, link, outcome))).toBe(true);
    bench.lower.found = OTHER;
    const reply = await answer(bench, link, outcome);
    expect([nodeOf(reply), entryValid(reply), bench.file.nlookup]).toEqual([bench.file.fuseNodeid, false, 3]);
  });
});

describe("a file that was created", () => {
  const create = { op: "create" as const, name, mode: 0o644, umask: 0, flags: 0o1302, supplementaryGids };

  it("is opened by a handle of this process, and neither made nor cut again", async () => {
    const bench = new Workbench();
    bench.lower.found = OTHER;
    const flags: number[] = [];
    const open = bench.lower.open.bind(bench.lower);
    bench.lower.open = ((_id: FileId, given: number) => {
      flags.push(given);
      return open();
    }) as never;
    const reply = await answer(bench, create, outcomeFor("create"));
    expect([reply?.errno, entryValid(reply), flags, bench.mount.handles.size]).toEqual([0, true, [0o102], 1]);
    expect(bench.coherence.tokens).toBe(1);
  });

  it("gets the set-group-id bit that its process had no time to restore (hazard F15)", async () => {
    const bench = new Workbench();
    bench.lower.found = OTHER;
    bench.lower.fileGid = 55;
    const setgid = { ...create, mode: 0o102644, supplementaryGids: [55] };
    await answer(bench, setgid, outcomeFor("create"));
    expect(bench.lower.calls).toContain("setattr");
    expect(bench.coherence.events).toContain("pin 21.1 EX");
  });

  it("that cannot be opened: its error, and nothing stays", async () => {
    const bench = new Workbench();
    bench.lower.errors.set("open", [E.ENFILE]);
    expect((await answer(bench, create, outcomeFor("create")))?.errno).toBe(E.ENFILE);
    bench.lower.errors.set("getattr", [E.ESTALE]);
    expect((await answer(bench, create, outcomeFor("create")))?.errno).toBe(E.ENOENT);
    expect([bench.lower.closed.length, left(bench)]).toEqual([1, NOTHING_LEFT]);
  });
});

describe("data that was written", () => {
  it("counts as much as was, also where the caller's set-user-ID is gone by then", async () => {
    const bench = new Workbench();
    bench.lower.fileMode = 0o104755;
    const { fh } = bench.openFile();
    const node = bench.file.fuseNodeid;
    const write = {
      op: "write" as const,
      fh,
      fuseNodeid: node,
      offset: 0,
      data: Buffer.alloc(10),
      flags: 2,
      fromCache: false,
      killSuidgid: true,
    };
    expect(written(await answer(bench, write, outcomeOf("write", { offset: 0, bytes: 6, room: false, attr: null })))).toBe(6);
    const copy = { op: "copyFileRange" as const, fh, fuseNodeid: node, offset: 0, outFh: fh, outOffset: 50, length: 10, flags: 0 };
    expect(written(await answer(bench, copy, outcomeOf("copyFileRange", 4)))).toBe(4);
    expect(bench.lower.calls).toEqual([]);
  });

  it("may end behind the file's end by now: the kernel's size counts for nothing until that was looked at (hazard F38)", async () => {
    const bench = new Workbench();
    const effects: string[] = [];
    bench.coherence.sizes = {
      ...bench.coherence.sizes,
      replied: (_inode, _tid, effect) => void effects.push(effect),
      toldSentinel: () => void effects.push("in doubt"),
    };
    const { fh } = bench.openFile();
    const at = { fh, fuseNodeid: bench.file.fuseNodeid, offset: 0 };
    const write = { op: "write" as const, ...at, data: Buffer.alloc(10), flags: 2, fromCache: false, killSuidgid: false };
    const copy = { op: "copyFileRange" as const, ...at, outFh: fh, outOffset: 50, length: 10, flags: 0 };
    const allocate = { op: "fallocate" as const, ...at, length: 10, mode: 0 };
    await answer(bench, write, outcomeFor("write"));
    await answer(bench, copy, outcomeFor("copyFileRange"));
    await answer(bench, allocate, outcomeFor("fallocate"));
    // As of any copy, and any hole, pages are still to be dropped or zeroed.
    expect(effects.splice(0)).toEqual(["misplaced", "clears", "in doubt", "misplaced", "in doubt"]);
    await answer(bench, { ...allocate, mode: 0x10 }, outcomeFor("fallocate"));
    expect(effects.splice(0)).toEqual(["clears", "in doubt"]);
    // Those that keep it.
    await answer(bench, { ...allocate, mode: 1 }, outcomeFor("fallocate"));
    await answer(bench, { ...allocate, mode: 3 }, outcomeFor("fallocate"));
    expect(effects).toEqual(["misplaced", "clears"]);
  });

  it("at another end than the kernel believes is put right in the kernel (hazard F5)", async () => {
    const bench = new Workbench();
    const { fh } = bench.openFile(false);
    const append = {
      op: "write" as const,
      fh,
      fuseNodeid: bench.file.fuseNodeid,
      offset: 40,
      data: Buffer.alloc(10, 7),
      flags: 2 | O_APPEND,
    };
    const outcome = outcomeOf("write", { offset: 100, bytes: 10, room: false, attr: null });
    expect(written(await answer(bench, { ...append, fromCache: false, killSuidgid: false }, outcome))).toBe(10);
    expect(bench.coherence.events).toContain("raiseSize 20.1 110 7");
  });

  it("from a mapping, of which the part beyond the end was not written, counts whole", async () => {
    const bench = new Workbench();
    const { fh } = bench.openFile();
    const back = {
      op: "write" as const,
      fh,
      fuseNodeid: bench.file.fuseNodeid,
      offset: 96,
      data: Buffer.alloc(10),
      flags: 2,
      fromCache: true,
    };
    const outcome = (bytes: number): MadeOutcome => outcomeOf("write", { offset: 96, bytes, room: false, attr: null });
    expect(written(await answer(bench, { ...back, killSuidgid: false }, outcome(4)))).toBe(10);
    expect(written(await answer(bench, { ...back, killSuidgid: false }, outcome(3)))).toBe(3);
  });
});

describe("what was set", () => {
  it("is told as it is now, and not judged by who may do so now (hazard F36)", async () => {
    const bench = new Workbench();
    bench.lower.fileUid = 2000;
    const chown = { op: "setattr" as const, fh: null, fuseNodeid: bench.file.fuseNodeid, change: { uid: 2000 } };
    expect((await answer(bench, chown, outcomeFor("setattr")))?.errno).toBe(0);
    expect(bench.lower.calls).toEqual(["getattr"]);
  });

  it("an ACL takes set-group-id, if its process had no time to", async () => {
    const bench = new Workbench();
    bench.lower.fileMode = 0o102755;
    const set = { op: "setxattr" as const, fuseNodeid: bench.file.fuseNodeid, name: ACCESS_ACL, value: name, flags: 0, aclKillSgid: true };
    expect((await answer(bench, set, outcomeFor("setxattr")))?.errno).toBe(0);
    expect(bench.lower.calls).toEqual(["getattr", "setattr"]);
  });
});

it("names that were removed or moved are so in the kernel, and here", async () => {
  const bench = new Workbench();
  await answer(bench, { op: "unlink", name }, outcomeFor("unlink"));
  const rename = { op: "rename" as const, name, newFuseNodeid: 1, newName: Buffer.from("new") };
  await answer(bench, { ...rename, flags: 0 }, outcomeFor("rename"));
  await answer(bench, { ...rename, flags: 2 }, outcomeFor("rename"));
  const names = bench.coherence.events.filter((event) => /^(drop|move|exchange)/.test(event));
  expect(names).toEqual(["drop 2.0 name", "move 2.0 name 2.0 new", "exchange 2.0 name 2.0 new"]);
});
