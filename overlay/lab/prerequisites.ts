/** What a machine must have for a lab; everything that is missing is said at once, with what to do about it. */
import { accessSync, closeSync, constants, existsSync, openSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { LabEngine, LowerKind } from "./layout.ts";

/** The machine, as far as a lab asks about it. */
export interface Machine {
  readonly uid: number;
  /** null, or why the device cannot be opened. */
  readonly device: (path: string) => string | null;
  readonly hasTool: (name: string) => boolean;
}

interface Tool {
  readonly name: string;
  /** Debian package. */
  readonly package: string;
  readonly lowers: readonly LowerKind[];
}

const every: readonly LowerKind[] = ["ext4", "xfs", "directory"];
const tools: readonly Tool[] = [
  { name: "ip", package: "iproute2", lowers: every },
  { name: "nsenter", package: "util-linux", lowers: every },
  { name: "mount", package: "mount", lowers: every },
  { name: "umount", package: "mount", lowers: every },
  { name: "losetup", package: "mount", lowers: ["ext4", "xfs"] },
  { name: "fallocate", package: "util-linux", lowers: ["ext4", "xfs"] },
  { name: "mkfs.ext4", package: "e2fsprogs", lowers: ["ext4"] },
  { name: "mkfs.xfs", package: "xfsprogs", lowers: ["xfs"] },
];

const corosyncTools: readonly Tool[] = [
  { name: "corosync", package: "corosync libcpg4 libquorum5 libvotequorum8", lowers: every },
  { name: "unshare", package: "util-linux", lowers: every },
];

export function thisMachine(): Machine {
  return { uid: process.getuid?.() ?? -1, device: openProblem, hasTool };
}

function openProblem(path: string): string | null {
  try {
    closeSync(openSync(path, constants.O_RDWR));
    return null;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return code === "ENOENT" ? "it is not there" : (code ?? message);
  }
}

function hasTool(name: string): boolean {
  return (process.env["PATH"] ?? "").split(":").some((folder) => {
    if (folder === "" || !existsSync(`${folder}/${name}`)) return false;
    try {
      accessSync(`${folder}/${name}`, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

export interface Missing {
  readonly what: string;
  readonly todo: string;
}

/** What stands against a lab with that lower on that machine. */
export function missingFor(lower: LowerKind, machine: Machine, engine: LabEngine = "builtin"): Missing[] {
  if (machine.uid !== 0) return [{ what: `root is needed, found user id ${machine.uid}`, todo: "run it as root (sudo)" }];
  const missing: Missing[] = [];
  const fuse = machine.device("/dev/fuse");
  if (fuse !== null) {
    const todo = "run modprobe fuse; a container needs --device /dev/fuse and CAP_SYS_ADMIN";
    missing.push({ what: `/dev/fuse cannot be opened: ${fuse}`, todo });
  }
  const loop = lower === "directory" ? null : machine.device("/dev/loop-control");
  if (loop !== null) {
    const todo = "run modprobe loop; a container must be privileged, or use --lower directory";
    missing.push({ what: `loop devices cannot be had, /dev/loop-control: ${loop}`, todo });
  }
  for (const tool of engine === "builtin" ? tools : [...tools, ...corosyncTools]) {
    if (!tool.lowers.includes(lower) || machine.hasTool(tool.name)) continue;
    missing.push({ what: `the tool ${tool.name} is not there`, todo: `apt-get install ${tool.package}` });
  }
  return missing;
}

/** Throws OperatingError "prerequisites" that names everything that is missing. */
export function checkPrerequisites(lower: LowerKind, engine: LabEngine = "builtin", machine: Machine = thisMachine()): void {
  const missing = missingFor(lower, machine, engine);
  if (missing.length === 0) return;
  throw new OperatingError(`a lab cannot run here: ${missing.map(({ what }) => what).join("; ")}`, {
    code: "prerequisites",
    hint: `${[...new Set(missing.map(({ todo }) => todo))].join("; ")}.`,
  });
}

/** Only root may look at or change a lab. */
export function checkRoot(machine: Pick<Machine, "uid"> = thisMachine()): void {
  if (machine.uid === 0) return;
  throw new OperatingError(`a lab needs root, found user id ${machine.uid}`, { code: "prerequisites", hint: "Run it as root (sudo)." });
}
