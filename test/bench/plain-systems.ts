/**
 * What coverlay is measured against: an ext4 of the lab's kind, plainly mounted, and bindfs over a directory in it, mounted
 * twice: as it comes (the kernel caches for a second), and so that the kernel caches nothing.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { OperatingError } from "../../dlmd/base/error.ts";
import { must } from "../../overlay/lab/command.ts";
import { attachLoop, detachLoops, makeDisk, removeDeviceNodes } from "../../overlay/lab/disk.ts";
import { cleanUnmount, forceUnmountUnder, mountsUnder } from "../../overlay/lab/fuse-mounts.ts";
import { labFiles } from "../../overlay/lab/layout.ts";
import type { LabState } from "../../overlay/lab/state.ts";
import { type Placement, SERVER_PLACE } from "./dlmd/placement.ts";
import { interrupted } from "./load.ts";
import type { System, SystemName } from "./system.ts";

const MOUNT_TIMEOUT_MS = 10_000;
const POLL_MS = 10;
const UNMOUNT_TIMEOUT_MS = 60_000;

/** As bindfs comes; and with nothing cached, O_DIRECT passed on. Reports show them. */
export const BINDFS_FLAGS: Readonly<Record<"bindfs" | "bindfs-uncached", readonly string[]>> = {
  bindfs: [],
  "bindfs-uncached": ["-o", "entry_timeout=0,attr_timeout=0,negative_timeout=0", "--forward-odirect=4096"],
};

export interface PlainSystems {
  readonly systems: readonly System[];
  end(): Promise<void>;
}

/** A disk made by the lab's own code, so that all columns stand on the same kind of disk. */
function diskOf(dir: string, sizeBytes: number): LabState {
  return {
    format: 1,
    id: "bench0",
    dir,
    madeDir: true,
    lower: "ext4",
    engine: "builtin",
    sizeBytes,
    givenImage: null,
    volumeUuid: "",
    phase: "making",
    step: "bench",
    up: null,
    workers: [],
    madeDevices: [],
    nodes: [],
  };
}

/** Makes those of `wanted` that are plain, all in `dir`. */
export async function startPlainSystems(
  dir: string,
  sizeBytes: number,
  wanted: ReadonlySet<SystemName>,
  placement: Placement,
  signal: AbortSignal,
): Promise<PlainSystems> {
  const madeDevices: string[] = [];
  const servers: ChildProcess[] = [];
  const { image } = labFiles(dir);
  const end = async (): Promise<void> => {
    for (const { mountPoint } of mountsUnder(dir)) await cleanUnmount(mountPoint, UNMOUNT_TIMEOUT_MS);
    await forceUnmountUnder(dir);
    for (const server of servers) server.kill("SIGKILL");
    await detachLoops(image);
    removeDeviceNodes(madeDevices);
  };
  try {
    const systems: System[] = [];
    const disk = diskOf(dir, sizeBytes);
    await makeDisk(disk, signal);
    const notes = { deviceNode: async (made: string) => void madeDevices.push(made), attaching: () => Promise.resolve() };
    const device = await attachLoop(disk, null, notes, signal);
    const mount = path.join(dir, "native");
    mkdirSync(mount);
    await must("mount", ["-t", "ext4", "-o", "nodev,errors=remount-ro", device, mount], { signal });
    if (wanted.has("native")) systems.push({ name: "native", dir: made(mount, "native-files"), lowerDir: null });
    for (const name of ["bindfs", "bindfs-uncached"] as const) {
      if (!wanted.has(name)) continue;
      const place = made(dir, name);
      const lowerDir = made(mount, `${name}-files`);
      const server = await startBindfs(lowerDir, place, BINDFS_FLAGS[name], signal);
      servers.push(server);
      if (server.pid !== undefined) placement.place(server.pid, SERVER_PLACE);
      systems.push({ name, dir: place, lowerDir });
    }
    return { systems, end };
  } catch (error) {
    await end();
    throw error;
  }
}

function made(parent: string, name: string): string {
  const dir = path.join(parent, name);
  mkdirSync(dir);
  return dir;
}

async function startBindfs(source: string, place: string, flags: readonly string[], signal: AbortSignal): Promise<ChildProcess> {
  const server = spawn("bindfs", ["-f", ...flags, source, place], { detached: true, stdio: ["ignore", "ignore", "pipe"] });
  const state: { words: string; problem: string | null } = { words: "", problem: null };
  server.stderr.on("data", (chunk: Buffer) => (state.words += chunk.toString("utf8")));
  server.on(
    "error",
    (error) => (state.problem = (error as NodeJS.ErrnoException).code === "ENOENT" ? "it is not installed" : error.message),
  );
  server.on("exit", (status) => (state.problem ??= `exit status ${status}: ${state.words.trim()}`));
  const deadline = Date.now() + MOUNT_TIMEOUT_MS;
  while (mountsUnder(place).length === 0) {
    if (signal.aborted) state.problem = "interrupted";
    if (Date.now() > deadline) state.problem ??= `not mounted within ${MOUNT_TIMEOUT_MS / 1000} s`;
    if (state.problem !== null) {
      server.kill("SIGKILL");
      if (signal.aborted) throw interrupted();
      throw new OperatingError(`bindfs did not start: ${state.problem}`, {
        code: "no-bindfs",
        hint: "Debian: apt-get install bindfs. Without it: --systems native,owner,other.",
      });
    }
    await sleep(POLL_MS);
  }
  return server;
}
