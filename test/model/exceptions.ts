/** Calls in which coverlay is known to differ from Linux. They are not made there, and counted; overlay/EXCEPTIONS.md has those of the contract. */
import { CHOWN_OF_NOTHING } from "./attributes.ts";
import { FALLOCATE_TOO_FAR, WRITE_TOO_FAR } from "./data.ts";
import type { Call } from "./file-system.ts";
import { LINK_OF_SET_ID, RENAME_SAME } from "./names.ts";
import type { Rule } from "./rule.ts";
import type { Kind, State } from "./state.ts";
import { USERS } from "./state.ts";

export interface Exception {
  readonly id: string;
  readonly reason: string;
  /** Looked at in the state before the call; `reached`: what decides it in the model. */
  readonly applies: (call: Call, user: number, mount: number, state: State, reached: readonly Rule[]) => boolean;
  /** What may be answered, without an effect, where calls are made at once and it is not known before whether it applies. */
  readonly answers?: readonly string[];
}

/** Not root: of its changes the kernel says nothing before. */
function ownsOpened(state: State, mount: number, slot: number, user: number): boolean {
  const uid = USERS[user]?.uid;
  return uid !== 0 && uid === state.inodes.get(state.handles.get(`${mount}:${slot}`)?.ino ?? 0)?.uid;
}

const COVERLAY: readonly Exception[] = [
  {
    id: "chown of nothing by a stranger",
    reason:
      "Exception 7 of the contract. The kernel sends a FUSE server the same empty SETATTR before a write. " +
      "So where the file is open for writing, coverlay says that it is done, and does nothing, where Linux refuses (EPERM).",
    applies: (_, __, ___, ____, reached) => reached.some(({ id }) => id === CHOWN_OF_NOTHING),
  },
  {
    id: "getdents of a removed directory",
    reason: "The kernel has read the names of an open directory from the server before, and does not ask again.",
    applies({ op, args }, _, mount, state) {
      if (op !== "getdents") return false;
      const handle = state.handles.get(`${mount}:${args.slot}`);
      return handle !== undefined && state.inodes.get(handle.ino)?.nlink === 0;
    },
  },
  {
    id: "copy_file_range within one file, behind its end",
    reason: "The kernel shortens the copy by the size that it knows, which is not always the true one, and then looks for an overlap.",
    applies({ op, args }, _, mount, state) {
      if (op !== "copy_file_range") return false;
      const from = state.handles.get(`${mount}:${args.from}`);
      const to = state.handles.get(`${mount}:${args.to}`);
      return from !== undefined && from.ino === to?.ino;
    },
  },
  {
    id: "copy_file_range of what is behind the end, by the target's owner",
    reason:
      "Where another node may have written to the source, the kernel does not know that there is nothing to copy. " +
      "So it takes set-user-ID from the target before it asks (fs/fuse/file.c, __fuse_copy_file_range: file_modified).",
    applies({ op, args }, user, mount, state) {
      if (op !== "copy_file_range" || !ownsOpened(state, mount, args.to, user)) return false;
      const from = state.inodes.get(state.handles.get(`${mount}:${args.from}`)?.ino ?? 0);
      return from !== undefined && args.fromOffset >= from.data.length;
    },
  },
  {
    id: "write and fallocate of more than a file can have, by its owner",
    reason: "Exception 7 of the contract: the kernel takes set-user-ID away before it asks, by what is chown(2) of nothing, too.",
    applies: ({ op, args }, user, mount, state, reached) =>
      (op === "write" || op === "fallocate") &&
      ownsOpened(state, mount, args.slot, user) &&
      reached.some(({ id }) => id === WRITE_TOO_FAR || id === FALLOCATE_TOO_FAR),
  },
  {
    id: "set-group-ID without group execute",
    reason: "Exception 7 of the contract: it stays when a stranger writes, and after chown(2) of an owner that is not of the file's group.",
    applies({ op, args }, user, mount, state) {
      if (USERS[user]?.uid === 0) return false;
      const changes =
        op === "write" || op === "ftruncate" || op === "fallocate" || op === "copy_file_range" || op === "truncate" || op === "open";
      const special = [...state.inodes.values()].filter(({ type, mode }) => type === "file" && (mode & 0o2010) === 0o2000);
      if (op === "chown") return special.length > 0;
      if (!changes) return false;
      if ("path" in args) return special.length > 0 && (op === "truncate" || (op === "open" && args.flags.includes("TRUNC")));
      const slot = op === "copy_file_range" ? args.to : "slot" in args ? args.slot : -1;
      const ino = state.handles.get(`${mount}:${slot}`)?.ino;
      return special.some((inode) => inode.ino === ino);
    },
  },
  {
    id: "link of another's set-user-ID file, in a directory that may not be written",
    reason:
      "Exception 15 of the contract. It is refused, with EACCES where the kernel does not know of set-user-ID yet, which another node has set: " +
      "it looks at the mode that it was told last, and the overlay never sees the call.",
    applies: (_, __, ___, ____, reached) => reached.some(({ id }) => id === LINK_OF_SET_ID),
    answers: ["EPERM", "EACCES"],
  },
  {
    id: "rename between two names of one file, by a stranger",
    reason:
      "Exception 6 of the contract: the kernel is shown another inode in place of the second name, so that it asks the server (overlay/op/README.md). " +
      "So it looks at permissions first, of which Linux needs none to do nothing.",
    applies: ({ op }, user, _, __, reached) => op === "rename" && USERS[user]?.uid !== 0 && reached.some(({ id }) => id === RENAME_SAME),
    answers: ["EACCES", "EPERM"],
  },
];

export function exceptionsOf(kind: Kind): readonly Exception[] {
  return kind.exceptions === "coverlay" ? COVERLAY : [];
}
