/** The remote lower: attributes, symbolic links' targets, extended attributes. Most of it is known under locks (hazard F21). */
import { E, errnoError, isErrno } from "../../../dlmd/base/errno.ts";
import { andThen } from "../../../dlmd/base/maybe-promise.ts";
import { checkWritable, MAX_GETATTR_MANY } from "../limits.ts";
import { ACCESS_ACL, XATTR_SIZE_MAX } from "../linux.ts";
import type { Attr, AttrChange, FileId, LowerAttributes } from "../lower.ts";
import type { RemoteCore } from "./core.ts";
import type { RemoteHandle } from "./handles.ts";

export function attributesOf(core: RemoteCore): LowerAttributes {
  const { session, known, opens, changes } = core;
  return {
    getattr: (id) => known.attr(id) ?? toldAttr(core, id) ?? askAttr(core, id),
    ownership: (id) => known.ownership(id) ?? askAttr(core, id),
    getattrMany(ids) {
      if (ids.length > MAX_GETATTR_MANY) throw errnoError(E.E2BIG);
      return askAttrs(core, ids);
    },
    setattr: (id, change, handle) => setattr(core, id, change, handle === null ? null : opens.handles.get(handle)),
    readlink: (id) => session.call("readlink", { id }),
    getxattr(id, name) {
      const value = known.xattr(id, name);
      if (value === null) throw errnoError(E.ENODATA);
      if (value !== undefined) return value;
      return name.equals(ACCESS_ACL) ? askAccessAcl(core, id) : withXattrNames(core, id, session.call("getxattr", { id, name }));
    },
    async setxattr(id, name, value, flags) {
      if (value.length > XATTR_SIZE_MAX) throw errnoError(E.E2BIG);
      await changes.ofXattrs(id, () => session.call("setxattr", { id, name, value, flags }));
      changes.note(id, "all");
    },
    listxattr: (id) => known.xattrList(id) ?? withXattrNames(core, id, session.call("listxattr", { id })),
    async removexattr(id, name) {
      await changes.ofXattrs(id, () => session.call("removexattr", { id, name }));
      changes.note(id, "all");
    },
    fileAttributes: (handle, kind) => opens.call("fileAttributes", { handle, kind }, [opens.handles.get(handle)]),
    async setFileAttributes(handle, kind, value) {
      const file = opens.handles.get(handle);
      const set = session.carried(() => opens.call("setFileAttributes", { handle, kind, value }, [file]));
      try {
        // What is opened or written from now on may be refused (hazard F27). It has begun: an open that is answered meanwhile says nothing of later ones.
        await changes.of(file.id, async () => andThen(opens.tell(file.id), set));
      } finally {
        // A write or an open that came meanwhile may have been made before.
        opens.endRoom(file.id);
      }
      changes.note(file.id, "all");
    },
    statfs: () => session.call("statfs", undefined),
  };
}

async function setattr(
  { known, opens, changes, behind }: RemoteCore,
  id: FileId,
  change: AttrChange,
  file: RemoteHandle | null,
): Promise<Attr> {
  const resized = change.size !== undefined;
  if (resized) checkWritable(change.size, 0);
  const begun = known.begin(id);
  // Of a cut file the first write is made behind: its handle has to be open by then.
  if (resized) opens.tellBeside(id);
  const giveRoom = resized ? behind.askRoomResized(id) : null;
  const request = { id, change, handle: file === null ? null : file.handle, promised: false };
  const { attr } = await changes.ofOne(
    begun,
    () => opens.call("setattr", request, file === null ? [] : [file]),
    (answer) => {
      if (answer.room && known.isHeldSince(begun)) giveRoom?.(answer.attr.size);
      return answer.attr;
    },
  );
  if (resized) changes.note(id, "data");
  changes.note(id, "all");
  return attr;
}

/** The owner would begin the question behind that change (hazard F23): its answer comes before. */
function toldAttr(core: RemoteCore, id: FileId): Promise<Attr> | null {
  const { session, known } = core;
  const told = known.whenTold(id);
  if (told === null) return null;
  session.hurry();
  session.counters.awaited += 1;
  return told.then(() => known.attr(id) ?? askAttr(core, id));
}

async function askAttr({ session, known }: RemoteCore, id: FileId): Promise<Attr> {
  const since = known.namesSince(id);
  const reading = known.reading();
  if (since === null) {
    const attr = await session.call("getattr", { id });
    known.read(reading, id, attr);
    return attr;
  }
  // Hazard F32: its names are what is asked for next.
  const { attr, names } = await session.call("getattrSince", { id, since });
  known.readNames(reading, id, since, names);
  known.read(reading, id, attr);
  return attr;
}

export async function askAttrs({ session, known }: RemoteCore, ids: readonly FileId[]): Promise<readonly (Attr | null)[]> {
  const reading = known.reading();
  const attrs = await session.call("getattrMany", { ids });
  ids.forEach((id, at) => {
    const attr = attrs[at] ?? null;
    if (attr !== null) known.read(reading, id, attr);
  });
  return attrs;
}

/**
 * What was known before anybody on this node asked for extended attributes came without their names (server/xattr-words.ts), and does not come again by itself.
 * So it is asked for once more behind the question, and nobody waits: the next one needs no trip. An error of that is met by whoever asks for the attributes.
 */
function withXattrNames<T>(core: RemoteCore, id: FileId, answer: Promise<T>): Promise<T> {
  if (core.known.lacksXattrNames(id)) void askAttr(core, id).catch(() => undefined);
  return answer;
}

async function askAccessAcl({ session, known }: RemoteCore, id: FileId): Promise<Buffer> {
  const reading = known.reading();
  try {
    const acl = await session.call("getxattr", { id, name: ACCESS_ACL });
    known.readAcl(reading, id, acl);
    return acl;
  } catch (error) {
    if (isErrno(error, E.ENODATA)) known.readAcl(reading, id, null);
    throw error;
  }
}
