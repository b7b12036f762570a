/**
 * CREATE without O_EXCL that found the name taken for the second time within one call (hazard F12): opens what is there, after the
 * checks that the kernel did not make, because for it the file is new (fs/namei.c, do_open: none of them for FMODE_CREATED).
 */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { CreateRequest } from "../fuse/request.ts";
import type { OpenFile } from "../inode/handles.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { Attr } from "../lower/lower.ts";
import { accessAcl } from "./access-acl.ts";
import type { Call } from "./call.ts";
import { changed, resized } from "./change.ts";
import { O_ACCMODE, O_RDONLY, O_TRUNC, S_IFMT, S_IFREG } from "./linux.ts";
import { lookupPinned } from "./lookup.ts";
import { type Mount, remembered, withRestarts } from "./mount.ts";
import { enterFile, forgetFile, giveCreated, writeAccess } from "./open.ts";
import { checkAccess, checkCreateInSticky, credentialsFor, MAY_READ, MAY_WRITE } from "./permission.ts";
import { pinnedAll } from "./pinned.ts";
import { hasSetId, killSetId } from "./set-id.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";

export function openExisting(mount: Mount, call: Call, request: CreateRequest, dir: InodeRecord): MaybePromise<void> {
  return withRestarts(mount, request.op, async () => {
    const entry = await lookupPinned(mount, call, dir, request.name);
    // Only a regular file can be the answer to a CREATE.
    if ((entry.attr.mode & S_IFMT) !== S_IFREG) throw errnoError(E.EEXIST);
    return remembered(mount, entry, (child) => openChild(mount, call, request, dir, child));
  });
}

/** False: the name is another file by now. */
async function openChild(mount: Mount, call: Call, request: CreateRequest, dir: InodeRecord, child: InodeRecord): Promise<boolean> {
  const { coherence } = mount;
  const writes = (request.flags & O_ACCMODE) !== O_RDONLY;
  const truncates = (request.flags & O_TRUNC) !== 0;
  const access = writes ? await writeAccess(mount, call, child, request.flags) : null;
  let entered = false;
  const wants = [
    { inode: dir, mode: Mode.PR },
    { inode: child, mode: truncates ? Mode.EX : Mode.PR },
  ];
  const answer = (file: OpenFile, attr: Attr): void => {
    // The kernel installs what a CREATE says whatever it has learned since (fuse_iget without a version), and it may have this inode: hazard F4.
    giveCreated(mount, call, file, attr, coherence.terms.of(child, attr.size, call.pid, null, { dir, name: request.name }));
  };
  const open = async (): Promise<OpenFile> => {
    const handle = await changed(mount, call, truncates ? [child] : [], () => mount.lower.open(child.id, request.flags));
    entered = true;
    return enterFile(mount, child, handle, access, request.flags);
  };
  try {
    return await pinnedAll(mount, call, { wants }, async () => {
      const now = await mount.lower.lookup(dir.id, request.name);
      if (now.id.ino !== child.id.ino || now.id.generation !== child.id.generation) return false;
      await checkOpen(mount, call, request, dir, child, now.attr);
      const file = truncates ? await openCut(mount, call, child, request, open) : await open();
      await tellSize(mount, call, child, file, (attr) => answer(file, attr));
      return true;
    });
  } finally {
    if (!entered && access === "cached") coherence.closeForWrite(child);
  }
}

/** The kernel has the child's lock for none of this: so it is given the new size before the reply, as any that it does not have (tellSize). */
function openCut(
  mount: Mount,
  call: Call,
  child: InodeRecord,
  request: CreateRequest,
  open: () => Promise<OpenFile>,
): MaybePromise<OpenFile> {
  return resized(mount, call, child, "plain", async (made) => {
    const file = await open();
    made();
    mount.coherence.sizes.toldSentinel(child);
    try {
      if (request.killSuidgid && (await hasSetId(mount, file))) await killSetId(mount, call, file);
    } catch (error) {
      forgetFile(mount, file);
      throw error;
    }
    return file;
  });
}

/** Where the kernel does not know the child, it takes whatever it is told. */
async function tellSize(mount: Mount, call: Call, child: InodeRecord, file: OpenFile, answer: (attr: Attr) => void): Promise<void> {
  const { sizes } = mount.coherence;
  try {
    const read = (): MaybePromise<Attr> => mount.lower.getattr(child.id);
    if (child.nlookup === 0) answer(await read());
    else await sizes.tell(child, call, read, answer);
  } catch (error) {
    forgetFile(mount, file);
    throw error;
  }
}

async function checkOpen(
  mount: Mount,
  call: Call,
  request: CreateRequest,
  dir: InodeRecord,
  child: InodeRecord,
  attr: Attr,
): Promise<void> {
  const who = credentialsFor(mount, call);
  const access = request.flags & O_ACCMODE;
  const mask = (access === 1 ? 0 : MAY_READ) | (access === O_RDONLY && (request.flags & O_TRUNC) === 0 ? 0 : MAY_WRITE);
  checkAccess(who, attr, mask, (await accessAcl(mount, child)) !== null);
  checkCreateInSticky(who, await mount.lower.getattr(dir.id), attr);
}
