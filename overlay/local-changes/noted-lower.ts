/** A local lower whose changes are noted, so that they are not taken for those of other programs (own-times.ts, hazard R21). */
import { finallyDo, andThen, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import { O } from "../lower/linux.ts";
import type { FileId, Lower, LowerHandle } from "../lower/lower.ts";
import type { LocalLower } from "../lower/local/local.ts";
import type { OwnTimes } from "./own-times.ts";

type Call = (...args: readonly unknown[]) => MaybePromise<unknown>;
type Of<K extends keyof Lower> = Lower[K] extends (...args: infer A) => unknown ? A : never;

const CHANGES = [
  "create",
  "tmpfile",
  "mkdir",
  "mknod",
  "symlink",
  "unlink",
  "rmdir",
  "rename",
  "link",
  "open",
  "setattr",
  "setxattr",
  "removexattr",
  "setFileAttributes",
  "write",
  "fallocate",
  "copyFileRange",
] as const;
type Change = (typeof CHANGES)[number];

/** What is known before the call. */
function changedBy(local: LocalLower, name: Change, args: readonly unknown[]): readonly FileId[] {
  switch (name) {
    case "create":
    case "mkdir":
    case "mknod":
    case "symlink":
    case "setattr":
    case "setxattr":
    case "removexattr":
      return [args[0] as FileId];
    case "tmpfile":
      return [];
    case "unlink":
    case "rmdir": {
      const [parent, , expected] = args as Of<"unlink">;
      return [parent, expected];
    }
    case "rename": {
      const [oldParent, , newParent, , , moved, replaced] = args as Of<"rename">;
      return replaced === null ? [oldParent, newParent, moved] : [oldParent, newParent, moved, replaced];
    }
    case "link": {
      const [id, newParent] = args as Of<"link">;
      return [id, newParent];
    }
    case "open": {
      const [id, flags] = args as Of<"open">;
      return (flags & O.TRUNC) === 0 ? [] : [id];
    }
    case "setFileAttributes":
    case "write":
    case "fallocate":
      return [local.identityOf(args[0] as LowerHandle)];
    case "copyFileRange":
      return [local.identityOf((args as Of<"copyFileRange">)[2])];
    default:
      return name satisfies never;
  }
}

/** The inode that it has made. */
function madeBy(name: Change, result: unknown): FileId | null {
  if (name === "create" || name === "tmpfile") return (result as { readonly entry: { readonly id: FileId } }).entry.id;
  if (name === "mkdir" || name === "mknod" || name === "symlink") return (result as { readonly id: FileId }).id;
  return null;
}

export function notedLower(local: LocalLower, times: OwnTimes, nowMs: () => number): LocalLower {
  const noted: Partial<Record<Change, Call>> = {};
  for (const name of CHANGES) {
    const call = local[name] as Call;
    noted[name] = (...args) => {
      const ids = changedBy(local, name, args);
      if (ids.length === 0 && name === "open") return call(...args);
      const beganMs = nowMs();
      times.begin(ids, beganMs);
      return finallyDo(
        () =>
          andThen(call(...args), (result) => {
            const made = madeBy(name, result);
            if (made !== null) {
              times.begin([made], beganMs);
              times.end([made], nowMs());
            }
            return result;
          }),
        () => times.end(ids, nowMs()),
      );
    };
  }
  // Some of its properties are counted when they are asked.
  return Object.assign(Object.create(local) as LocalLower, noted);
}
