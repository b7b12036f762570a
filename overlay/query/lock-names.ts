/** The names that mounts give to their locks (coherence/lock-requests.ts, file-lock/api.ts), taken apart for people. */
import { volumeLockspace } from "../volume/owner.ts";
import { electionWords, type LockWords } from "./election-words.ts";

/** fileKey: inode number and generation. */
export interface FileKey {
  readonly ino: string;
  readonly generation: string;
}

const kinds = { i: "inode lock", w: "write token", f: "file locks" } as const;
export type InodeLockKind = keyof typeof kinds;

/** The locks of an inode, by its key. */
export function lockNamesOf(key: string): readonly string[] {
  return Object.keys(kinds).map((kind) => `${kind}${key}`);
}

export function parseKey(key: string): FileKey | null {
  const found = /^(\d+)\.(\d+)$/.exec(key);
  return found === null ? null : { ino: found[1] ?? "", generation: found[2] ?? "" };
}

/** null: not a lock of an inode of a volume. */
export function inodeLock(lockspace: string, resource: string): (FileKey & { readonly kind: InodeLockKind; readonly key: string }) | null {
  const kind = resource[0] as InodeLockKind;
  const key = parseKey(resource.slice(1));
  if (!lockspace.startsWith(volumeLockspace("")) || !(kind in kinds) || key === null) return null;
  return { ...key, kind, key: resource.slice(1) };
}

/** The lock that says where a file's locks are (overlay/file-lock): whoever has EX of it has them in its memory. */
export function fileStateWords(lockspace: string, resource: string): LockWords | null {
  const lock = inodeLock(lockspace, resource);
  if (lock?.kind !== "f") return null;
  return {
    title: `place of the file locks of inode ${lock.ino}`,
    has: ({ granted }) =>
      granted === "EX" ? "keeps them in its memory: no other node uses them" : "has them in the file-lock service, with others",
    waits: () => "asks for them",
  };
}

/** What a lock is, in words; null: a program's own. */
export function lockTitle(lockspace: string, resource: string): string | null {
  const lock = inodeLock(lockspace, resource);
  // coherence/births-lock.ts
  if (lock?.kind === "i" && lock.key === "0.0") return "lock of new inodes that only their maker knows";
  if (lock !== null) return `${kinds[lock.kind]} of inode ${lock.ino}`;
  return electionWords(lockspace, resource)?.title ?? null;
}

/** The volume's name, or its uuid where the cluster does not know it. */
export function volumeName(lockspace: string, volumes: readonly { readonly name: string; readonly uuid: string }[]): string {
  return volumes.find(({ uuid }) => volumeLockspace(uuid) === lockspace)?.name ?? lockspace;
}
