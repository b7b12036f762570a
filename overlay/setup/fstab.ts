/**
 * Lines that mount a device plainly: fstab(5) and the mount units of systemd.mount(5). Pure: texts in, lines out. A plain mount beside a
 * clustered one destroys the file system, so each line that names the device in any way is told of.
 */
import { type Finding, judge } from "./finding.ts";

export interface MountLine {
  /** "/etc/fstab line 3". */
  readonly where: string;
  /** As written: a path, or UUID=, LABEL=, PARTUUID=, PARTLABEL=. */
  readonly source: string;
  readonly mountPoint: string;
  readonly type: string;
  readonly options: readonly string[];
  /** It is mounted at the start of the machine, or by mount -a. */
  readonly isAutomatic: boolean;
}

/** What a device is called. */
export interface DeviceNames {
  readonly device: string;
  /** UUID, LABEL, PARTUUID, PARTLABEL, as far as they are known; "": it has none. */
  readonly tags: ReadonlyMap<string, string>;
  /** Paths of the lines that lead to this very device; null: they could not be looked at. */
  readonly paths: ReadonlySet<string> | null;
}

/** fstab(5): space, tab, backslash and # are written as octal numbers, and other bytes may be. */
const unescape = (field: string): string =>
  field.replace(/(?:\\[0-7]{3})+/g, (bytes) =>
    Buffer.from(bytes.match(/[0-7]{3}/g)?.map((octal) => Number.parseInt(octal, 8)) ?? []).toString("utf8"),
  );

/** As libmount parts a line: a no-break space belongs to a name. */
const wordsOf = (line: string): string[] => line.split(/[ \t]+/).filter((word) => word !== "");

export function parseFstab(text: string, file: string): MountLine[] {
  return text.split(/\r?\n/).flatMap((line, at) => {
    const words = wordsOf(line);
    const [source, mountPoint, type, options = "defaults"] = words.map(unescape);
    if (source === undefined || source === "" || source.startsWith("#") || mountPoint === undefined || type === undefined) return [];
    const list = options.split(",");
    // An automount is mounted by the first program that looks there.
    const isAutomatic = !list.includes("noauto") || list.includes("x-systemd.automount");
    return [{ where: `${file} line ${at + 1}`, source, mountPoint, type, options: list, isAutomatic }];
  });
}

/** A value as udev keeps it: other bytes than those of plain names are written as \\xNN. `raw` has one character for each byte. */
export function udevText(raw: string): string {
  const bytes = raw.replace(/\\x([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(bytes, "latin1").toString("utf8");
}

export interface UnitFile {
  readonly file: string;
  readonly text: string;
}

/** systemd.syntax(7): a line goes on behind a backslash at its end, which counts as a space; comments between are passed over. */
function unitLines(text: string): string[] {
  const lines: string[] = [];
  let begun = "";
  for (const part of text.split(/\r\n?|\n\r?/)) {
    if (/^[ \t]*[#;]/.test(part)) continue;
    const line = begun + part;
    // Two are one sign, and end nothing.
    const goesOn = (/\\*$/.exec(line)?.[0].length ?? 0) % 2 === 1;
    begun = goesOn ? `${line.slice(0, -1)} ` : "";
    if (!goesOn) lines.push(line);
  }
  return [...lines, begun];
}

/**
 * `files`: the unit, and its drop-ins in their order, of which the last word counts. `isWanted`: another unit asks for it, or for its automount, at the
 * start. null: it names nothing to mount.
 */
export function parseMountUnit(files: readonly UnitFile[], isWanted: boolean): MountLine | null {
  const values = new Map<string, string>();
  let where = "";
  for (const { file, text } of files) {
    let section = "";
    for (const raw of unitLines(text)) {
      const line = raw.replace(/^[ \t]+|[ \t]+$/g, "");
      const [, name] = /^\[(\w+)\]$/.exec(line) ?? [];
      if (name !== undefined) section = name;
      const [, key, value] = /^(\w+)[ \t]*=[ \t]*(.*)$/.exec(line) ?? [];
      if (section !== "Mount" || key === undefined || value === undefined) continue;
      values.set(key, value);
      if (key === "What") where = file;
    }
  }
  const source = values.get("What");
  if (source === undefined || source === "") return null;
  return {
    where,
    source: source.replace(/^"(.*)"$/, "$1"),
    mountPoint: values.get("Where") ?? "?",
    type: values.get("Type") ?? "auto",
    options: (values.get("Options") ?? "defaults").split(","),
    isAutomatic: isWanted,
  };
}

/** The path that a source is; ID= is a link of udev. Null: it is none. */
export function pathOf(source: string): string | null {
  const [, id] = /^ID=["']?([^"']*)["']?$/.exec(source) ?? [];
  if (id !== undefined) return `/dev/disk/by-id/${id}`;
  return source.startsWith("/") ? source : null;
}

/** A link that udev makes of a tag is that tag, whether it is there now or not. null: it is none. */
function taggedLink(source: string): string[] | null {
  const [, kind, name] = /^\/dev\/disk\/by-(uuid|label|partuuid|partlabel)\/(.+)$/.exec(source) ?? [];
  if (kind === undefined || name === undefined) return null;
  return [kind.toUpperCase(), udevText(Buffer.from(name, "utf8").toString("latin1"))];
}

/** fstab(5): tags may stand in quotes. */
function names({ source: written }: MountLine, { device, tags, paths }: DeviceNames): boolean | "unknown" {
  const source = pathOf(written) ?? written;
  if (source === device || paths?.has(source) === true) return true;
  const link = taggedLink(source);
  const [tag, value] = link ?? /^(UUID|LABEL|PARTUUID|PARTLABEL)=["']?([^"']*)["']?$/.exec(source)?.slice(1) ?? [];
  const own = tag === undefined ? "" : tags.get(tag);
  if (tag !== undefined && value !== undefined && own !== undefined && own !== "") {
    if (tag.endsWith("UUID") ? own.toLowerCase() === value.toLowerCase() : own === value) return true;
  }
  return own === undefined || (paths === null && source.startsWith("/dev/")) ? "unknown" : false;
}

/** Through coverlay: by its type, or by the option that the helper for ext4 and XFS looks for. */
function isClustered({ type, options }: MountLine): boolean {
  return type === "clustered" || type === "fuse.clustered" || options.includes("clustered");
}

/** `unread`: files of which the lines are not known, and why. */
export function judgeMountLines(lines: readonly MountLine[], device: DeviceNames, unread: readonly string[] = []): Finding {
  const fstab = judge("fstab", device.device, "no line of fstab and no mount unit that mounts this device plainly");
  const own = lines.filter((line) => names(line, device) === true);
  const plain = own.filter((line) => !isClustered(line));
  const doubtful = lines.filter((line) => names(line, device) === "unknown" && !isClustered(line));
  const words = ({ where, source, mountPoint, type }: MountLine): string => `${where}: ${source} at ${mountPoint}, type ${type}`;
  const change = "Give the line the type clustered (and _netdev), or remove it; then systemctl daemon-reload.";
  if (plain.length === 0 && doubtful.length > 0) {
    return fstab.unknown(
      `what this device has of UUID, LABEL, PARTUUID and PARTLABEL is not all known, and so whether these lines name it: ${doubtful.map(words).join("; ")}`,
      "Compare them with lsblk -o +UUID,LABEL,PARTUUID,PARTLABEL. udev not running here, or a file system that cannot be read, is the cause.",
    );
  }
  if (plain.length === 0 && unread.length > 0) {
    return fstab.unknown(`not all could be read: ${unread.join("; ")}`, "Run it as root, and name the right file with --fstab.");
  }
  if (plain.length === 0) {
    return fstab.ok(own.length === 0 ? "no line names it" : own.map(words).join("; "));
  }
  const found = plain.map(words).join("; ");
  return plain.some(({ isAutomatic }) => isAutomatic)
    ? fstab.fail(`at the next start it is mounted plainly: ${found}`, change)
    : fstab.warn(`by hand it would be mounted plainly: ${found}`, change);
}
