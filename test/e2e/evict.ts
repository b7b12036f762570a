/** A kernel forgets the inodes that some programs have brought into it, and those alone: they count for a group of memory of theirs. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Actor } from "./actor.ts";

/** Documentation/admin-guide/cgroup-v1/memory.rst, "force_empty"; cgroup-v2.rst, "memory.reclaim". */
const V1 = "/sys/fs/cgroup/memory";
const V2 = "/sys/fs/cgroup";

const isV1 = existsSync(path.join(V1, "memory.force_empty"));

/** Why this machine cannot; null: it can. */
export const cannotEvict: string | null =
  isV1 || existsSync(path.join(V2, "memory.reclaim")) || hasController() ? null : "no cgroup of memory from which it can be taken";

function hasController(): boolean {
  const controllers = path.join(V2, "cgroup.subtree_control");
  return existsSync(controllers) && readFileSync(controllers, "utf8").includes("memory");
}

export interface Group {
  /** Whatever the kernel can do without of what the programs' calls have brought into it goes. */
  readonly evict: () => void;
  /** When the programs have ended. */
  readonly remove: () => void;
}

let groups = 0;

/** From now on what those programs have looked up counts for a group of its own. */
export function groupOf(...programs: readonly Pick<Actor, "pid">[]): Group {
  groups += 1;
  const group = path.join(isV1 ? V1 : V2, `coverlay-evict-${process.pid}-${groups}`);
  mkdirSync(group);
  for (const { pid } of programs) writeFileSync(path.join(group, "cgroup.procs"), String(pid));
  return {
    evict: () => {
      try {
        writeFileSync(path.join(group, isV1 ? "memory.force_empty" : "memory.reclaim"), isV1 ? "0" : "1G");
      } catch (error) {
        // Less could be taken than was asked for, or nothing is left.
        if (!["EAGAIN", "EBUSY"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
      }
    },
    remove: () => rmdirSync(group),
  };
}
