/** Debian's mmdebstrap(1), as tests may run it. */
import { execFileSync } from "node:child_process";
import { LEAVE_COPIES } from "../overlay/lab/fuse-mounts.ts";

/**
 * In root mode it binds /dev/shm, /proc and /sys of this machine into the root that it makes below `scratch`. Its mounts are seen by it alone, and go with it,
 * however it ends: else a removal of what it left would empty this machine's own.
 */
export function mmdebstrap(words: readonly string[], scratch: string): void {
  const alone = ["--mount", "--propagation", "private", "--mount-proc", "--pid", "--fork", "--kill-child"];
  const script = `${LEAVE_COPIES}\nexec mmdebstrap --quiet --mode=root "$@"`;
  execFileSync("setpriv", ["--pdeathsig", "KILL", "unshare", ...alone, "sh", "-c", script, "sh", ...words], {
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, TMPDIR: scratch },
  });
}

/** Never goes into what is mounted there. */
export function removeOwn(folder: string): void {
  execFileSync("rm", ["-rf", "--one-file-system", folder], { stdio: ["ignore", "ignore", "inherit"] });
}
