/** The lower of a lab's owner, from outside: it is held still, and what its overlay has under way in it is seen thread by thread. */
import { existsSync, readFileSync, readdirSync, readlinkSync, statSync } from "node:fs";
import path from "node:path";
import { run } from "../../overlay/lab/command.ts";
import { until } from "./actor.ts";

/** The root directory of the lower, by a descriptor of the overlay: it is mounted nowhere. `device`: the owner's. */
export function lowerDirectory(overlayPid: number, device: string): string {
  const { rdev } = statSync(device);
  const folder = `/proc/${overlayPid}/fd`;
  const found = readdirSync(folder)
    .map((fd) => `${folder}/${fd}`)
    .find((file) => {
      const stat = statSync(file, { throwIfNoEntry: false });
      return stat?.isDirectory() === true && stat.dev === rdev && readlinkSync(file) === "/";
    });
  if (found === undefined) throw new Error(`process ${overlayPid} has no descriptor of a directory of ${device}`);
  return found;
}

/** Every change of the file system waits from now on, those of a killed process as well: those end when it is let go. */
export async function freeze(directory: string): Promise<void> {
  const { status, stderr } = await run("fsfreeze", ["--freeze", directory]);
  if (status !== 0) throw new Error(`fsfreeze: ${stderr}`);
}

/** Not an error if it is not frozen any more. */
export async function unfreeze(directory: string): Promise<void> {
  await run("fsfreeze", ["--unfreeze", directory]);
}

/** Where a change of a frozen file system waits. */
export const FROZEN: RegExp = /percpu_rwsem_wait|percpu_down_read/;

/** x86_64, asm/unistd_64.h; other machines have other numbers, and the test says so. */
const SYSCALLS: Readonly<Record<string, string>> = {
  18: "pwrite64",
  74: "fsync",
  75: "fdatasync",
  82: "rename",
  91: "fchmod",
  258: "mkdirat",
  263: "unlinkat",
  296: "pwritev",
  327: "preadv2",
  328: "pwritev2",
};

/** What threads of the process wait for in the kernel, in a function whose name matches: the names of their system calls. */
export function waitingIn(pid: number, where: RegExp): string[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((tid) => {
    try {
      if (!where.test(readFileSync(`/proc/${pid}/task/${tid}/stack`, "latin1"))) return [];
      const [number = ""] = readFileSync(`/proc/${pid}/task/${tid}/syscall`, "latin1").split(" ");
      return [SYSCALLS[number] ?? number];
    } catch (error) {
      if (["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return []; // It ended meanwhile.
      throw error;
    }
  });
}

/** Each of those system calls is under way and waits there; others may, too. */
export async function untilWaitingIn(pid: number, where: RegExp, calls: readonly string[]): Promise<void> {
  let seen: readonly string[] = [];
  const count = (call: string, of: readonly string[]): number => of.filter((one) => one === call).length;
  await until(
    `process ${pid} waits in ${where}: ${calls.join(" ")}`,
    () => {
      seen = waitingIn(pid, where);
      return calls.every((call) => count(call, seen) >= count(call, calls));
    },
    () => `seen: ${seen.join(" ")}`,
  );
}

/** Its file system is mounted by this machine's kernel. Looks at sysfs only: an open of the device would disturb those who prove that it is free. */
export function hasSuperblock(type: "ext4" | "xfs", device: string): boolean {
  return existsSync(path.join("/sys/fs", type, path.basename(device)));
}
