/** The remote lower: names, and what they stand for. They are known under locks, as far as answers have told them (hazard F21). */
import { E, errnoError, isErrno } from "../../../dlmd/base/errno.ts";
import { andThen, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { namesAfterRename } from "../directory-names.ts";
import { checkName, MAX_LOOKUP_MANY } from "../limits.ts";
import { NAME_MAX, PATH_MAX, RENAME } from "../linux.ts";
import { type Entry, type FileId, fileKey, type LowerNames } from "../lower.ts";
import type { AnswerOf, RequestOf } from "../wire/call-types.ts";
import { writtenBehind } from "./behind-calls.ts";
import type { RemoteCore } from "./core.ts";
import type { Reading } from "./known.ts";
import type { Hindrance } from "./pending-call.ts";

export function namesOf(core: RemoteCore): LowerNames {
  const { session, known, opens, changes, behind } = core;
  return {
    isAbsent: (parent, name) => name.length <= NAME_MAX && known.isAbsent(parent, name),
    keeps: true,
    knows: (parent, name) => name.length > NAME_MAX || known.entry(parent, name) !== undefined,
    made: (id, attr) => known.made(id, attr),
    madeFile(handle, attr) {
      const file = opens.handles.find(handle);
      if (file !== null && behind.nowMs < file.roomUntilMs) known.madeFile(file.id, attr, file.roomUntilMs);
    },
    lookup(parent, name) {
      checkName(name);
      const entry = known.entry(parent, name);
      if (entry === null) throw errnoError(E.ENOENT);
      return entry ?? lookUp(core, parent, name);
    },
    async lookupMany(parent, names) {
      if (names.length > MAX_LOOKUP_MANY) throw errnoError(E.E2BIG);
      for (const name of names) checkName(name);
      const reading = known.reading();
      const entries = await session.call("lookupMany", { parent, names });
      names.forEach((name, at) => {
        const entry = entries[at] ?? null;
        // Else it is not known what there is: nothing, or something damaged.
        if (entry !== null) known.readEntry(reading, parent, name, entry);
      });
      return entries;
    },
    byNumber: (ino) => session.call("byNumber", { ino }),
    parentOf: (id) => session.call("parentOf", { id }),
    pathOf: (id) => session.call("pathOf", { id }),
    async create(parent, name, flags, mode, caller) {
      checkName(name);
      const handle = opens.allocate();
      const askedMs = behind.nowMs;
      const { entry, room } = await changes.ofName<AnswerOf<"create">>(parent, name, made, (tellParent) =>
        session.call("create", { parent, name, tellParent, mode, caller, flags, handle }),
      );
      const roomUntilMs = behind.roomUntilMs(room, flags, askedMs);
      return { entry, handle: opens.opened(handle, entry.id, flags, roomUntilMs) };
    },
    /** Nothing of its directory changes, and its writes are waited for. */
    async tmpfile(parent, flags, mode, caller, linkable) {
      const handle = opens.allocate();
      const entry = await session.call("tmpfile", { parent, mode, caller, flags, linkable, handle });
      return { entry, handle: opens.opened(handle, entry.id, flags) };
    },
    mkdir: (parent, name, mode, caller) =>
      make(core, parent, name, (tellParent) => session.call("mkdir", { parent, name, tellParent, mode, caller })),
    mknod: (parent, name, mode, rdevMajor, rdevMinor, caller) =>
      make(core, parent, name, (tellParent) => session.call("mknod", { parent, name, tellParent, mode, caller, rdevMajor, rdevMinor })),
    symlink(parent, name, target, caller) {
      if (target.length >= PATH_MAX) throw errnoError(E.ENAMETOOLONG);
      return make(core, parent, name, (tellParent) => session.call("symlink", { parent, name, tellParent, target, caller }));
    },
    unlink: (parent, name, expected) => remove(core, "unlink", parent, name, expected),
    async rmdir(parent, name, expected) {
      await remove(core, "rmdir", parent, name, expected);
      known.forget(expected);
    },
    async rename(oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew) {
      checkName(oldName);
      checkName(newName);
      await rename(core, { oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew });
      const directories = [oldParent, newParent];
      for (const id of directories) changes.note(id, "all");
      const named = expectedNew === null || (flags & RENAME.EXCHANGE) === 0 ? [expectedOld] : [expectedOld, expectedNew];
      for (const id of named) changes.noteName(id, directories);
    },
    async link(id, newParent, newName) {
      checkName(newName);
      const linked = (): Promise<AnswerOf<"link">> =>
        changes.ofName(
          newParent,
          newName,
          () => id,
          (tellParent) => session.call("link", { id, newParent, newName, tellParent }),
        );
      const { attr } = await changes.ofOne(known.begin(id), linked, (answer) => answer.attr);
      // Hazard F30.
      changes.noteName(id, [newParent]);
      return attr;
    },
  };
}

async function lookUp(core: RemoteCore, parent: FileId, name: Buffer): Promise<Entry> {
  const { session, known } = core;
  const since = known.namesSince(parent);
  const reading = known.reading();
  if (since !== null) return lookUpSince(core, reading, parent, name, since);
  try {
    const entry = await session.call("lookup", { parent, name });
    known.readEntry(reading, parent, name, entry);
    return entry;
  } catch (error) {
    if (isErrno(error, E.ENOENT)) known.readName(reading, parent, name, null);
    throw error;
  }
}

/** Hazard F32: with what was changed of the directory since the lock was here before. */
async function lookUpSince({ session, known }: RemoteCore, reading: Reading, parent: FileId, name: Buffer, since: number): Promise<Entry> {
  const { entry, names } = await session.call("lookupSince", { parent, name, since });
  known.readNames(reading, parent, since, names);
  if (entry !== null) {
    known.readEntry(reading, parent, name, entry);
    return entry;
  }
  known.readName(reading, parent, name, null);
  throw errnoError(E.ENOENT);
}

const made = ({ entry }: { readonly entry: Entry }): FileId => entry.id;
const gone = (): null => null;

async function make(
  { changes }: RemoteCore,
  parent: FileId,
  name: Buffer,
  call: (tellParent: boolean) => Promise<AnswerOf<"mkdir">>,
): Promise<Entry> {
  checkName(name);
  return (await changes.ofName<AnswerOf<"mkdir">>(parent, name, made, call)).entry;
}

async function remove(core: RemoteCore, call: "unlink" | "rmdir", parent: FileId, name: Buffer, expected: FileId): Promise<void> {
  const { session, opens, changes } = core;
  checkName(name);
  // Hazard F22: what is opened from now on is opened at the owner.
  const change = (): Promise<AnswerOf<"unlink">> =>
    changes.ofName(parent, name, gone, (tellParent) => session.call(call, { parent, name, tellParent, expected }));
  const removed = session.carried(change);
  await changes.of(expected, async () => andThen(opens.tell(expected), removed));
}

async function rename(core: RemoteCore, request: Omit<RequestOf<"rename">, "tell">): Promise<void> {
  const { oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew } = request;
  const { session, known } = core;
  const inOne = fileKey(oldParent) === fileKey(newParent);
  const from = inOne ? known.begin(oldParent, oldName, newName) : known.begin(oldParent, oldName);
  const to = inOne ? null : known.begin(newParent, newName);
  const moved = known.begin(expectedOld);
  const replaced = expectedNew === null ? null : known.begin(expectedNew);
  const changes = [from, moved, ...(to === null ? [] : [to])];
  let answer: AnswerOf<"rename"> | null = null;
  try {
    const tell = changes.some((change) => known.wantsAttr(change));
    // An exchange replaces nothing: both have a name.
    const replaces = expectedNew !== null && (flags & RENAME.EXCHANGE) === 0;
    const renamed = session.carried(() => session.call("rename", { ...request, tell }, replaces ? [lossOf(core, expectedOld)] : []));
    answer = await andThen(replaces ? beforeReplaced(core, expectedNew) : undefined, renamed);
  } finally {
    const [old, now] = (answer === null ? null : namesAfterRename(flags, expectedOld, expectedNew)) ?? [];
    const named = (id: FileId | null | undefined): (FileId | null)[] => (id === undefined ? [] : [id]);
    known.end(from, answer?.oldParent ?? null, ...named(old), ...(inOne ? named(now) : []));
    if (to !== null) known.end(to, answer?.newParent ?? null, ...named(now));
    known.end(moved, answer?.moved ?? null);
    // Its link count is asked for by whoever has it open still.
    if (replaced !== null) known.end(replaced, null);
  }
}

/**
 * Hazard F23: what replaces a file has all that its program was told to be written. Who writes a new file and renames it over the old one, without an fsync,
 * keeps one of the two, as with auto_da_alloc of ext4 (fs/ext4/namei.c, ext4_rename).
 */
function beforeReplaced(core: RemoteCore, replaced: FileId): MaybePromise<void> {
  return andThen(writtenBehind(core), () => core.opens.tell(replaced));
}

/** Hazard F10. Looked at when the call leaves: it may have waited for an owner, and the one before died with what it had answered. */
function lossOf({ changes }: RemoteCore, id: FileId): Hindrance {
  return {
    get error() {
      return changes.unsynced.takeUntoldData(id) ? errnoError(E.EIO) : null;
    },
  };
}
