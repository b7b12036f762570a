/** Whether the file system on a disk is clean: e2fsck(8), xfs_repair(8). */
import { rmSync } from "node:fs";
import path from "node:path";
import { must, run } from "../../overlay/lab/command.ts";
import { LEAVE_COPIES } from "../../overlay/lab/fuse-mounts.ts";
import type { VolatileDisk } from "./disk-client.ts";

export type FileSystem = "ext4" | "xfs";

const LIMIT = { timeoutMs: 120_000 } as const;

/** Nobody has it mounted, and its journal is empty. */
export async function checkFileSystem(lower: FileSystem, image: string): Promise<string[]> {
  const [tool, args] = lower === "ext4" ? (["e2fsck", ["-fn", image]] as const) : (["xfs_repair", ["-n", "-f", image]] as const);
  const result = await run(tool, args, LIMIT);
  return result.status === 0 ? [] : [`${tool} finds damage (exit status ${result.status}):\n${result.stdout}${result.stderr}`];
}

/** While it is mounted: of a copy, whose journal is replayed as after a loss of power. `dir`: for the copy. */
export async function checkLive(lower: FileSystem, disk: VolatileDisk, dir: string): Promise<string[]> {
  const copy = path.join(dir, "snapshot.img");
  await disk.command({ do: "snapshot", to: copy });
  try {
    const bad = await replay(lower, copy);
    return [...bad, ...(await checkFileSystem(lower, copy))].map((what) => `the disk as it is now: ${what}`);
  } finally {
    rmSync(copy, { force: true });
  }
}

/** By the kernel, as it does after a loss of power: e2fsck would wait for MMP, and xfs_repair does not do it. */
async function replay(lower: FileSystem, image: string): Promise<string[]> {
  // The owner of the original holds it, and updates it no more in the copy.
  if (lower === "ext4") await must("tune2fs", ["-f", "-E", "clear_mmp", image], LIMIT);
  // In a mount namespace of its own, where no other mount of this machine stays busy. The original has the same uuid.
  const options = lower === "ext4" ? "loop" : "loop,nouuid";
  const script = `${LEAVE_COPIES} && mount -t "$1" -o "$2" "$3" /mnt && umount /mnt`;
  const words = ["--mount", "--propagation", "private", "sh", "-c", script, "sh", lower, options, image];
  const { status, stderr } = await run("unshare", words, LIMIT);
  return status === 0 ? [] : [`its journal is not replayed: ${stderr}`];
}
