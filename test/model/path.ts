/** From a path to an inode, or to the place of a name. Sources: path_resolution(7); fs/namei.c, link_path_walk and what it calls. */
import { EXEC, may, STICKY } from "./permission.ts";
import { holds, refuse, Refusal, type Rule } from "./rule.ts";
import { type Ino, type Inode, ROOT } from "./state.ts";
import type { World } from "./world.ts";

export const PATH_MAX = 4096;
const NAME_MAX = 255;
const MAX_SYMLINKS = 40;
const always = (): boolean => true;

const R = {
  empty: refuse("ENOENT", "path: it is empty", "path_resolution(7); fs/namei.c getname_flags", always),
  long: refuse("ENAMETOOLONG", "path: it has 4096 bytes or more", "path_resolution(7); fs/namei.c getname_flags", always),
  search: refuse("EACCES", "path: a directory on it may not be searched", "path_resolution(7); fs/namei.c may_lookup", always),
  longName: refuse("ENAMETOOLONG", "path: a name has more than 255 bytes", "path_resolution(7); fs/ext4/namei.c ext4_lookup", always),
  absent: refuse("ENOENT", "path: a directory on it is not there", "path_resolution(7); fs/namei.c walk_component", always),
  noDirectory: refuse(
    "ENOTDIR",
    "path: what stands before a slash and a name is no directory",
    "path_resolution(7); fs/namei.c link_path_walk",
    always,
  ),
  loop: refuse("ELOOP", "path: more than 40 symbolic links", "path_resolution(7); fs/namei.c pick_link", always),
  stickyLink: refuse(
    "EACCES",
    "path: the last symbolic link is a stranger's, in a sticky directory of all",
    "proc_sys_fs(5) protected_symlinks; fs/namei.c may_follow_link",
    always,
  ),
  lastAbsent: refuse("ENOENT", "path: its last name is not there", "path_resolution(7); fs/namei.c lookup_last", always),
  lastNoDirectory: refuse(
    "ENOTDIR",
    "path: it ends with a slash and is no directory",
    "path_resolution(7); fs/namei.c lookup_last",
    always,
  ),
  follows: holds("path: a symbolic link is followed", "path_resolution(7)"),
  dotdot: holds("path: .. of the root is the root", "path_resolution(7)"),
};
export const pathRules: readonly Rule[] = Object.values(R);

/** What the last part of a path is; only a normal one names an entry. */
export type LastKind = "normal" | "dot" | "dotdot" | "root";

export interface Last {
  readonly dir: Inode;
  readonly name: string;
  readonly kind: LastKind;
  /** A slash stands behind it. */
  readonly slash: boolean;
  /** Symbolic links that were followed so far. */
  readonly links: { count: number };
}

export interface Place extends Last {
  /** What the name stands for. */
  readonly inode: Inode | null;
}

export function mustSearch(world: World, dir: Inode): void {
  if (!may(world.caller.user, dir, EXEC)) throw new Refusal(R.search);
}

function above(world: World, dir: Inode): Inode {
  if (dir.ino === ROOT) world.reach(R.dotdot);
  return world.inode(dir.parent);
}

/** An entry, or null. */
export function lookup(world: World, dir: Inode, name: string): Inode | null {
  if (Buffer.byteLength(name) > NAME_MAX) throw new Refusal(R.longName);
  const ino = dir.entries.get(name);
  return ino === undefined ? null : world.inode(ino);
}

/** What is left of a path whose directories were walked before (at-once/steps.ts): a name, or nothing. No path of a program has a NUL. */
export const restOfPath = (ino: Ino, rest: string): string => `\0${ino}/${rest}`;
const REST = /^\0(\d+)\/(.*)$/s;

/** Walks all but the last part. `start`: where a relative path begins; a link's own directory. */
export function parentOf(world: World, path: string, start: Ino = ROOT, links: { count: number } = { count: 0 }): Last {
  if (path === "") throw new Refusal(R.empty);
  const [, ino, rest] = REST.exec(path) ?? [];
  if (rest !== undefined) return { dir: world.inode(Number(ino)), name: rest, kind: rest === "" ? "root" : "normal", slash: false, links };
  if (Buffer.byteLength(path) >= PATH_MAX) throw new Refusal(R.long);
  let dir = world.inode(path.startsWith("/") ? ROOT : start);
  const parts = path.split("/").filter((part) => part !== "");
  const last = parts.pop();
  if (last === undefined) return { dir, name: "", kind: "root", slash: false, links };
  for (const part of parts) {
    mustSearch(world, dir);
    let next: Inode | null;
    if (part === ".") next = dir;
    else if (part === "..") next = above(world, dir);
    else next = lookup(world, dir, part);
    if (next === null) throw new Refusal(R.absent);
    if (next.type === "symlink") next = followed(world, dir, next, links, false);
    if (next.type !== "directory") throw new Refusal(R.noDirectory);
    dir = next;
  }
  mustSearch(world, dir);
  const kind = last === "." ? "dot" : last === ".." ? "dotdot" : "normal";
  return { dir, name: last, kind, slash: path.endsWith("/"), links };
}

/** What a symbolic link leads to, as the place of a name. Only the last link of the path that was given is `trailing`. */
export function throughLink(world: World, dir: Inode, link: Inode, links: { count: number }, trailing: boolean): Last {
  if (links.count++ >= MAX_SYMLINKS) throw new Refusal(R.loop);
  const { user } = world.caller;
  const guarded = trailing && world.kernel.protectedSymlinks > 0 && (dir.mode & (STICKY | 0o002)) === (STICKY | 0o002);
  if (guarded && user.uid !== link.uid && dir.uid !== link.uid) throw new Refusal(R.stickyLink);
  world.change(link.ino, { atime: null });
  world.reach(R.follows);
  return parentOf(world, link.target, dir.ino, links);
}

/** One part of a path, as the kernel looks it up: what it stands for, or the parts to which a symbolic link leads from the same directory. */
export function lookupPart(world: World, at: Ino, name: string, isLast: boolean, follow: boolean, links: number): Ino | readonly string[] {
  const dir = world.inode(at);
  mustSearch(world, dir);
  const inode = lookup(world, dir, name);
  if (inode === null) throw new Refusal(isLast ? R.lastAbsent : R.absent);
  if (inode.type === "symlink" && (follow || !isLast)) {
    throughLink(world, dir, inode, { count: links }, isLast);
    return inode.target.split("/");
  }
  if (!isLast && inode.type !== "directory") throw new Refusal(R.noDirectory);
  return inode.ino;
}

function followed(world: World, dir: Inode, link: Inode, links: { count: number }, trailing: boolean): Inode {
  return arrive(world, throughLink(world, dir, link, links, trailing), true, trailing);
}

function arrive(world: World, last: Last, follow: boolean, trailing: boolean): Inode {
  const { dir, kind, name, slash, links } = last;
  if (kind === "root" || kind === "dot") return dir;
  if (kind === "dotdot") return above(world, dir);
  let inode = lookup(world, dir, name);
  if (inode === null) throw new Refusal(R.lastAbsent);
  if (inode.type === "symlink" && (follow || slash)) inode = followed(world, dir, inode, links, trailing);
  if (slash && inode.type !== "directory") throw new Refusal(R.lastNoDirectory);
  return inode;
}

/** The inode of a path. A slash at its end follows a link, and asks for a directory. */
export function walk(world: World, path: string, follow: boolean): Inode {
  return arrive(world, parentOf(world, path), follow, true);
}

/** The place of a name that is to be made, moved or taken away: a link there is never followed. */
export function placeOf(world: World, path: string): Place {
  const last = parentOf(world, path);
  return { ...last, inode: null };
}

/** Whether `dir` is `inode`, or below it. */
export function isWithin(world: World, inode: Inode, dir: Inode): boolean {
  for (let at = dir; ; at = world.inode(at.parent)) {
    if (at.ino === inode.ino) return true;
    if (at.ino === ROOT) return false;
  }
}
