/**
 * Groups of processes for which the kernel limits block devices (Documentation/admin-guide/cgroup-v1/, cgroup-v2.rst). A process that is taken
 * into a group comes back to where it was: the group has a mirror of that place below it, so that nothing else must be remembered.
 */
import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { OperatingError } from "../../dlmd/base/error.ts";

/** The groups of one machine, or a container's part of them. */
export interface CgroupTree {
  /** Where its root group is mounted. */
  readonly root: string;
  /** 1: the hierarchy of blkio alone. */
  readonly version: 1 | 2;
  /** One value into one of its files. */
  readonly write: (file: string, value: string) => void;
  /** /proc/PID/cgroup. Throws ENOENT for a process that is gone. */
  readonly cgroupOf: (pid: number) => string;
}

const V1 = "/sys/fs/cgroup/blkio";
const V2 = "/sys/fs/cgroup";

export function cgroupTree(): CgroupTree {
  const isV1 = existsSync(path.join(V1, "blkio.throttle.read_bps_device"));
  return {
    root: isV1 ? V1 : V2,
    version: isV1 ? 1 : 2,
    write: writeFileSync,
    cgroupOf: (pid) => readFileSync(`/proc/${pid}/cgroup`, "latin1"),
  };
}

/** Writes it, with words for what a container refuses. Throws OperatingError "no-cgroup". */
export function writeCgroup({ root, write }: CgroupTree, group: string, file: string, value: string): void {
  try {
    write(path.join(group, file), value);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    const refusal = refusals[code];
    if (refusal === undefined) throw error;
    throw new OperatingError(`${refusal.expected} expected, found that ${value} into ${path.join(group, file)} gives ${code}`, {
      code: "no-cgroup",
      hint: refusal.hint(root),
      cause: error,
    });
  }
}

interface Refusal {
  readonly expected: string;
  readonly hint: (root: string) => string;
}

const elsewhere = "or run the lab outside of a container. `coverlay lab cut` needs no group: I/O fails instead.";
const readOnly: Refusal = {
  expected: "a cgroup tree that may be changed",
  hint: (root) => `Mount ${root} read-write in the container, ${elsewhere}`,
};
/** By errno. cgroup-v2.rst: "No Internal Process Constraint", "Threads". */
const refusals: Readonly<Record<string, Refusal>> = {
  EBUSY: {
    expected: "a group without processes of its own, as only a machine's root group may have them beside groups with limits,",
    hint: (root) =>
      `Move them: mkdir ${root}/init && for pid in $(cat ${root}/cgroup.procs); do echo $pid > ${root}/init/cgroup.procs; done; ${elsewhere}`,
  },
  EOPNOTSUPP: {
    expected: "a group that takes whole processes, not threads (cgroup.type: domain),",
    hint: (root) => `See cgroup.type in ${root} and in the group of that process: it may not be threaded; ${elsewhere}`,
  },
  EROFS: readOnly,
  EACCES: readOnly,
  EPERM: readOnly,
};

/** Processes that were taken into a group of that name below the root group. */
export class TakenGroup {
  readonly #tree: CgroupTree;
  readonly path: string;

  constructor(tree: CgroupTree, name: string) {
    this.#tree = tree;
    this.path = path.join(tree.root, name);
  }

  /** It, and its mirrors of other groups: those above come first. */
  groups(): readonly string[] {
    const all = (group: string): string[] => [
      group,
      ...readdirSync(group, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? all(path.join(group, entry.name)) : [])),
    ];
    return existsSync(this.path) ? all(this.path) : [];
  }

  /** Gives the group for it, which is there by then; null: it is in it already, or gone. */
  placeFor(pid: number): string | null {
    const from = unlessGone(() => this.#placeOf(pid));
    if (from === null) return null;
    const taken = path.join(this.path, from);
    const own = `/${path.basename(this.path)}`;
    if (from === own || from.startsWith(`${own}/`)) return null;
    mkdirSync(taken, { recursive: true });
    return taken;
  }

  take(pid: number, place: string): void {
    unlessGone(() => writeCgroup(this.#tree, place, "cgroup.procs", String(pid)));
  }

  /** All go back to where they were; to the root group, if that is gone. The group stays for as long as a process that ends is in it. */
  end(): void {
    for (const group of this.groups().toReversed()) {
      const before = path.join(this.#tree.root, path.relative(this.path, group));
      const to = existsSync(path.join(before, "cgroup.procs")) ? before : this.#tree.root;
      for (const pid of readFileSync(path.join(group, "cgroup.procs"), "latin1").split("\n").filter(Boolean))
        unlessGone(() => writeCgroup(this.#tree, to, "cgroup.procs", pid));
      try {
        rmdirSync(group);
      } catch (error) {
        // Such a process cannot be moved. The group has no limit any more.
        if ((error as NodeJS.ErrnoException).code !== "EBUSY") throw error;
      }
    }
  }

  /** As a path from the root group. What the tree does not show is the root group. */
  #placeOf(pid: number): string {
    const lines = this.#tree.cgroupOf(pid).split("\n");
    const wanted = (line: string): boolean => (this.#tree.version === 2 ? line.startsWith("0::") : /^\d+:([^:]*,)?blkio[,:]/.test(line));
    const place = lines.find(wanted)?.split(":").slice(2).join(":") ?? "/";
    return existsSync(path.join(this.#tree.root, place, "cgroup.procs")) && !place.includes("/..") ? place : "/";
  }
}

/** null: the process is gone. */
function unlessGone<T>(work: () => T): T | null {
  try {
    return work();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ESRCH" || (code === "ENOENT" && (error as NodeJS.ErrnoException).path?.startsWith("/proc/") === true)) return null;
    throw error;
  }
}
