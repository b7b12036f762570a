/**
 * A change that the owner's own mount makes, as the call that another mount would have sent for it. For a process that goes on after a crash of the owner's: it makes at the
 * next owner what this one may not have made (hazard F41).
 */
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import type { Lower } from "../lower.ts";
import type { RequestOf } from "./call-types.ts";
import { CALLS } from "./calls.ts";

type Arguments<K extends keyof Lower> = Lower[K] extends (...args: infer A) => unknown ? A : never;

export type OwnChange =
  | "setattr"
  | "create"
  | "tmpfile"
  | "mkdir"
  | "mknod"
  | "symlink"
  | "unlink"
  | "rmdir"
  | "rename"
  | "link"
  | "write"
  | "fallocate"
  | "copyFileRange"
  | "setxattr"
  | "setFileAttributes"
  | "removexattr";

/** As the place of an append: it is not known where the file ended. */
export const NO_END: number = Number.MAX_SAFE_INTEGER;

/** Of a file that is made: which number it has at the next owner is found there. */
const NO_HANDLE = 0;
const NO_DATA = new Uint8Array();

/** By the name of the call: what it asks for. Those that are not here change nothing, but for syncs. */
const REQUESTS: { readonly [K in OwnChange]: (...args: Arguments<K>) => RequestOf<K> } = {
  setattr: (id, change, handle) => ({ id, change, handle, promised: false }),
  create: (parent, name, flags, mode, caller) => ({ parent, name, tellParent: false, mode, caller, flags, handle: NO_HANDLE }),
  tmpfile: (parent, flags, mode, caller, linkable) => ({ parent, mode, caller, flags, linkable, handle: NO_HANDLE }),
  mkdir: (parent, name, mode, caller) => ({ parent, name, tellParent: false, mode, caller }),
  mknod: (parent, name, mode, rdevMajor, rdevMinor, caller) => ({ parent, name, tellParent: false, mode, caller, rdevMajor, rdevMinor }),
  symlink: (parent, name, target, caller) => ({ parent, name, tellParent: false, target, caller }),
  unlink: (parent, name, expected) => ({ parent, name, tellParent: false, expected }),
  rmdir: (parent, name, expected) => ({ parent, name, tellParent: false, expected }),
  rename: (oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew) => ({
    oldParent,
    oldName,
    newParent,
    newName,
    flags,
    expectedOld,
    expectedNew,
    tell: false,
  }),
  link: (id, newParent, newName) => ({ id, newParent, newName, tellParent: false }),
  // Its data comes again with the kernel's request.
  write: (handle, _data, offset, append) => ({ handle, offset, append, promised: false, room: false, tell: null, data: NO_DATA }),
  fallocate: (handle, mode, offset, bytes) => ({ handle, mode, offset, bytes }),
  copyFileRange: (inHandle, inOffset, outHandle, outOffset, bytes) => ({ inHandle, inOffset, outHandle, outOffset, bytes }),
  setxattr: (id, name, value, flags) => ({ id, name, value, flags }),
  setFileAttributes: (handle, kind, value) => ({ handle, kind, value }),
  removexattr: (id, name) => ({ id, name }),
};

export function isOwnChange(name: string): name is OwnChange {
  return name in REQUESTS;
}

const writer: ByteWriter = new ByteWriter();

/** What that call asks for, without the data of a write; overwritten by the next one. */
export function encodeOwnChange(name: OwnChange, args: readonly unknown[]): { readonly type: number; readonly body: Uint8Array } {
  const row = CALLS[name] as unknown as { type: number; request: { write: (to: ByteWriter, request: unknown) => void } };
  const request = (REQUESTS[name] as (...given: readonly unknown[]) => unknown)(...args);
  writer.reset();
  row.request.write(writer, request);
  return { type: row.type, body: writer.view() };
}
