/** Looks at this machine: files of the cluster, addresses, names, fstab and mount units, /dev/fuse, kernel, memory. Writes nothing. */
import { readFileSync, readdirSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { networkInterfaces, release, totalmem } from "node:os";
import path from "node:path";
import { mountTable } from "../../dlmd/base/mount-table.ts";
import { run } from "../lab/command.ts";
import { deviceNumber } from "../volume/device.ts";
import { isOfRunDir, readMountRecord } from "../volume/mount-record.ts";
import { type MountLine, type UnitFile, parseFstab, parseMountUnit } from "./fstab.ts";
import type { FileFact, MachineFacts } from "./judge-machine.ts";

/** Where systemd looks for units (systemd.unit(5)); those that it makes from fstab are told of with fstab's line. */
const UNIT_DIRECTORIES = [
  "etc/systemd/system",
  "run/systemd/system",
  "usr/local/lib/systemd/system",
  "usr/lib/systemd/system",
  "lib/systemd/system",
];

export function fileFact(file: string): FileFact | null {
  const stat = statSync(file, { throwIfNoEntry: false });
  return stat === undefined ? null : { path: file, mode: stat.mode & 0o7777, uid: stat.uid, isFile: stat.isFile() };
}

/** The folders above a file: as it is named, and with links followed. */
export function folderFacts(file: string): FileFact[] {
  const folders = new Set<string>();
  const addAbove = (name: string): void => {
    for (let at = path.dirname(name); !folders.has(at); at = path.dirname(at)) folders.add(at);
  };
  addAbove(path.resolve(file));
  try {
    addAbove(realpathSync(file));
  } catch {
    // That the file cannot be read is told of with the file.
  }
  return [...folders].flatMap((folder) => fileFact(folder) ?? []);
}

export function ownAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((each) =>
    (each ?? []).flatMap(({ address, family }) => (family === "IPv4" ? [address] : [])),
  );
}

/** The IPv4 addresses of a name, by /etc/hosts and DNS as everything else here sees them; null: it has none. Rejects after the limit. */
export async function resolveName(name: string, limitMs: number): Promise<string[] | null> {
  const { status, stdout, timedOut } = await run("getent", ["ahostsv4", name], { timeoutMs: limitMs });
  if (timedOut) throw new Error(`getent ahostsv4 ${name}: no answer within ${limitMs} ms`);
  if (status !== 0) return null;
  return [...new Set(stdout.split("\n").flatMap((line) => line.split(/\s+/)[0] || []))];
}

export function lookAtMachine(): MachineFacts {
  return {
    kernelRelease: release(),
    nodeVersion: process.version,
    fuse: describeFuse(),
    memoryBytes: totalmem(),
    memoryLimitBytes: memoryLimit(),
    descriptors: descriptorLimit(),
  };
}

function describeFuse(): string {
  const stat = statSync("/dev/fuse", { throwIfNoEntry: false });
  if (stat === undefined) return "it is not there";
  return stat.isCharacterDevice() ? `character device ${deviceNumber("/dev/fuse")}` : "another kind of file";
}

/** Each control group above limits, too (memory.max of cgroup v2). */
function memoryLimit(): number | null {
  const own = /^0::(.*)$/m.exec(readText("/proc/self/cgroup") ?? "")?.[1];
  if (own === undefined) return null;
  const limits: number[] = [];
  for (let at = path.join("/sys/fs/cgroup", own); at.startsWith("/sys/fs/cgroup"); at = path.dirname(at)) {
    const text = readText(path.join(at, "memory.max"))?.trim();
    if (text !== undefined && /^\d+$/.test(text)) limits.push(Number(text));
  }
  return limits.length === 0 ? null : Math.min(...limits);
}

function descriptorLimit(): number | null {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(readText("/proc/self/limits") ?? "")?.[1];
  return hard === undefined || hard === "unlimited" ? null : Number(hard);
}

function readText(file: string): string | null {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return null;
  }
}

export interface MountLines {
  readonly lines: readonly MountLine[];
  /** Files and folders that could not be read, and why. */
  readonly unread: readonly string[];
}

/** Of fstab, and of the mount units below `root` with their drop-ins. An fstab that is not there has no lines, unless it was named by a person. */
export function mountLines(root: string, fstab: string): MountLines {
  const unread: string[] = [];
  const read = <T>(file: string, look: () => T, nothing: T, mayLack: boolean): T => {
    try {
      return look();
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? String(error);
      if (!mayLack || (code !== "ENOENT" && code !== "ENOTDIR")) unread.push(`${file}: ${code}`);
      return nothing;
    }
  };
  const isDefault = path.resolve(fstab) === path.resolve(root, "etc/fstab");
  const entriesOf = (directory: string): string[] => read(directory, () => readdirSync(directory), [], true);
  const lines = parseFstab(
    read(fstab, () => readFileSync(fstab, "utf8"), "", isDefault),
    fstab,
  );
  const directories = UNIT_DIRECTORIES.map((directory) => path.join(root, directory));
  const entries = new Map(directories.map((directory) => [directory, entriesOf(directory)]));
  const wanted = new Set(directories.flatMap((directory) => wantedUnits(directory, entriesOf)));
  const units = firstOf(entries, (entry) => entry.endsWith(".mount"));
  // A link that leads nowhere is no unit.
  const textOf = (file: string): UnitFile => ({ file, text: read(file, () => readFileSync(file, "utf8"), "", true) });
  const extended = [...entries.values()].flat().filter((entry) => entry.endsWith(".mount.d") && !entry.endsWith("-.mount.d"));
  for (const name of new Set([...units.keys(), ...extended.map((entry) => entry.replace(/\.d$/, ""))])) {
    const file = units.get(name);
    const own = file === undefined ? [] : [textOf(file)];
    // An empty unit is masked.
    if (own.some(({ text }) => text === "")) continue;
    const all = [...own, ...dropIns(name, entries, entriesOf).map(textOf)];
    // A unit that systemd makes from a line of fstab has no file here, and most are wanted.
    const isWanted = file === undefined || wanted.has(name) || wanted.has(name.replace(/mount$/, "automount"));
    const unit = parseMountUnit(all, isWanted);
    if (unit !== null) lines.push(unit);
  }
  return { lines, unread };
}

/** Name -> path, in the first folder that has it. */
function firstOf(entries: ReadonlyMap<string, readonly string[]>, isOne: (entry: string) => boolean): Map<string, string> {
  const found = new Map<string, string>();
  for (const [directory, names] of entries) {
    for (const name of names) if (isOne(name) && !found.has(name)) found.set(name, path.join(directory, name));
  }
  return found;
}

/** Of a-b.mount, in the order of systemd.unit(5): *.conf in a-b.mount.d, a-.mount.d and mount.d of all folders, by their names. */
function dropIns(name: string, entries: ReadonlyMap<string, readonly string[]>, entriesOf: (directory: string) => string[]): string[] {
  const stem = name.replace(/\.mount$/, "");
  const stems = [...stem.matchAll(/-(?=.)/g)].map(({ index }) => stem.slice(0, index + 1)).toReversed();
  const folders = [stem, ...stems].map((each) => `${each}.mount.d`);
  const places = [...folders, "mount.d"].flatMap((folder) =>
    [...entries].flatMap(([directory, names]) => (names.includes(folder) ? path.join(directory, folder) : [])),
  );
  const found = firstOf(new Map(places.map((place) => [place, entriesOf(place)])), (entry) => entry.endsWith(".conf"));
  return [...found.keys()].toSorted().map((entry) => found.get(entry) as string);
}

/** Names in X.wants/ and X.requires/: links that systemctl enable makes. */
function wantedUnits(directory: string, entriesOf: (directory: string) => string[]): string[] {
  return entriesOf(directory)
    .filter((entry) => /\.(wants|requires)$/.test(entry))
    .flatMap((entry) => entriesOf(path.join(directory, entry)).map((name) => path.basename(linkTarget(path.join(directory, entry, name)))));
}

function linkTarget(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return file;
  }
}

/** Devices of clustered mounts of the node with that run directory. */
export function mountedDevices(runDir: string): string[] {
  return mountTable()
    .filter(({ type, source, device }) => {
      const record = type === "fuse.clustered" && source.startsWith("/dev/") ? readMountRecord(device) : null;
      return record !== null && isOfRunDir(record, runDir);
    })
    .map(({ source }) => source);
}
