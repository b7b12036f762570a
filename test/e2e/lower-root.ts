/** The file system that a lab's owner has mounted, from outside: it is mounted nowhere, and reached by a descriptor of the overlay. */
import { readdirSync, statSync } from "node:fs";
import { run } from "../../overlay/lab/command.ts";
import type { TestLab } from "./lab.ts";

/** fspick(2) and fsconfig(2) have the same numbers on every machine. 1: FSCONFIG_SET_STRING, 7: FSCONFIG_CMD_RECONFIGURE. */
const RECONFIGURE = `
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*words):
    result = libc.syscall(*words)
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
fd = call(433, -100, sys.argv[1].encode(), 1)
call(431, fd, 1, sys.argv[2].encode(), sys.argv[3].encode(), 0)
call(431, fd, 7, None, None, 0)
`;

/** The root of the lower. */
export function lowerRoot(lab: TestLab, owner: number): string {
  const folder = `/proc/${lab.overlayPid(owner)}/fd`;
  const mountDev = statSync(lab.node(owner).mount).dev;
  const found = readdirSync(folder)
    .map((fd) => `${folder}/${fd}`)
    .find((file) => {
      const stat = statSync(file, { throwIfNoEntry: false });
      return stat?.isDirectory() === true && stat.ino === 2 && stat.dev !== mountDev;
    });
  if (found === undefined) throw new Error("the owner has no descriptor of the lower's root");
  return found;
}

/** ext4 commits every five seconds, also what nobody synced. From now on it does not, for as long as a test takes. */
export async function holdCommits(lab: TestLab, owner: number): Promise<void> {
  const { status, stderr } = await run("python3", ["-c", RECONFIGURE, lowerRoot(lab, owner), "commit", "900"]);
  if (status !== 0) throw new Error(`fsconfig: ${stderr}`);
}
