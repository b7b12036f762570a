/** The kernel's mount table: /proc/PID/mountinfo (proc_pid_mountinfo(5)), of this process or of every mount namespace. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

export interface MountEntry {
  readonly mountId: number;
  /** st_dev of the file system, "major:minor". */
  readonly device: string;
  /** The directory of the file system that is mounted: "/", or another one with a bind mount. */
  readonly root: string;
  readonly mountPoint: string;
  /** Per-mount options: ro, nosuid ... */
  readonly options: readonly string[];
  readonly type: string;
  readonly source: string;
  readonly superOptions: readonly string[];
}

/** Space, tab, newline, backslash and # are written as \\ooo (seq_escape); all other bytes stand as they are. */
function unescape(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

export function parseMountinfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split("\n")) {
    const fields = line.split(" ");
    const separator = fields.indexOf("-", 6);
    if (separator < 0 || fields.length < separator + 4) continue;
    entries.push({
      mountId: Number(fields[0]),
      device: fields[2] as string,
      root: unescape(fields[3] as string),
      mountPoint: unescape(fields[4] as string),
      options: (fields[5] as string).split(","),
      type: unescape(fields[separator + 1] as string),
      source: unescape(fields[separator + 2] as string),
      superOptions: (fields[separator + 3] as string).split(","),
    });
  }
  return entries;
}

/** The minor of its device number, which names the connection of a FUSE mount (Documentation/filesystems/fuse.rst). */
export function minorOf({ device }: MountEntry): number {
  return Number(device.split(":")[1]);
}

export function mountTable(): MountEntry[] {
  return parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8"));
}

/** The mount that is seen at exactly that path (the last one on top), or null. */
export function mountAt(mountPoint: string, table: readonly MountEntry[] = mountTable()): MountEntry | null {
  return table.findLast((entry) => entry.mountPoint === mountPoint) ?? null;
}

export interface MountPlace extends MountEntry {
  /** A process in the mount namespace where it is mounted; null: our own namespace. */
  readonly pid: number | null;
  readonly command: string;
}

/** Where, in any mount namespace on this machine that has a process, a device ("major:minor") is mounted. */
export function mountsOfDevice(device: string): MountPlace[] {
  const places: MountPlace[] = mountTable()
    .filter((entry) => entry.device === device)
    .map((entry) => ({ ...entry, pid: null, command: "" }));
  const seen = new Set([readlinkSync("/proc/self/ns/mnt")]);
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const text = readNamespaceTable(name, seen);
    if (text === null) continue;
    for (const entry of parseMountinfo(text.table)) {
      if (entry.device === device) places.push({ ...entry, pid: Number(name), command: text.command });
    }
  }
  return places;
}

/** The table of that process if its namespace was not seen before; null also when it ended meanwhile. */
function readNamespaceTable(pid: string, seen: Set<string>): { table: string; command: string } | null {
  try {
    const namespace = readlinkSync(`/proc/${pid}/ns/mnt`);
    if (seen.has(namespace)) return null;
    seen.add(namespace);
    return { table: readFileSync(`/proc/${pid}/mountinfo`, "utf8"), command: readFileSync(`/proc/${pid}/comm`, "utf8").trim() };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    // ENOENT, ESRCH: gone. EINVAL: a zombie has no table. EACCES, EPERM: not root; then O_EXCL decides alone.
    if (code === "ENOENT" || code === "ESRCH" || code === "EINVAL" || code === "EACCES" || code === "EPERM") return null;
    throw error;
  }
}
