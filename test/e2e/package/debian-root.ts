/**
 * A clean Debian of its own: what mmdebstrap makes of the mirror that this machine uses, unpacked into memory in namespaces of its own (mounts,
 * processes, network). All of it ends with a shell that reads from this process: also if this process is killed.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdtempSync, readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { LEAVE_COPIES } from "../../../overlay/lab/fuse-mounts.ts";
import { mmdebstrap, removeOwn } from "../../mmdebstrap.ts";

/** Those of the package: it is installed with dpkg alone, which fetches nothing. */
const PACKAGES = "e2fsprogs,mount,libstdc++6";
/** In the mount namespace alone, where a tmpfs covers it. */
const AT = "/mnt";

export interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface DebianRoot {
  /** A shell script in the root. */
  run(script: string): Ran;
  /** The same; throws with all that was said unless its exit status is 0. */
  must(script: string): string;
  /** A file of this machine to /root there. */
  bring(file: string): void;
  /** Number of the first process there; all end with it. */
  readonly pid: number;
  end(): Promise<void>;
}

/** A tar of it, in a directory of its own; half a minute. `suite`: bookworm (12), trixie (13). */
export function debianTar(suite: string): string {
  const dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-debian-"));
  const tar = path.join(dir, `${suite}.tar`);
  try {
    mmdebstrap(["--variant=essential", `--include=${PACKAGES}`, suite, tar], dir);
    return tar;
  } catch (error) {
    removeOwn(dir);
    throw error;
  }
}

const PREPARE = `set -e
${LEAVE_COPIES}
mount -t tmpfs -o size=2g,mode=0755 tmpfs ${AT}
tar -C ${AT} -xf "$1"
mount -t proc proc ${AT}/proc
mount -t sysfs sysfs ${AT}/sys
mount -t tmpfs tmpfs ${AT}/run
[ -e ${AT}/dev/fuse ] || mknod -m 0666 ${AT}/dev/fuse c 10 229
ip link set lo up
echo prepared
cat >/dev/null`;

/** The process in the new namespace of processes: unshare(1) waits for it. */
function onlyChild(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim());
}

async function untilPrepared(holder: ChildProcess): Promise<void> {
  let words = "";
  holder.stderr?.on("data", (bytes: Buffer) => (words += bytes.toString()));
  const [first] = (await Promise.race([once(holder.stdout as NodeJS.ReadableStream, "data"), once(holder, "exit")])) as [unknown];
  if (!Buffer.isBuffer(first)) throw new Error(`the root was not prepared: ${words}`);
}

export async function startDebianRoot(tar: string): Promise<DebianRoot> {
  const words = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-c", PREPARE, "sh", tar];
  const holder = spawn("unshare", words, { stdio: ["pipe", "pipe", "pipe"] });
  const ended = once(holder, "exit");
  await untilPrepared(holder);
  const pid = onlyChild(holder.pid ?? 0);
  const run = (script: string): Ran => {
    const env = { PATH: "/usr/sbin:/usr/bin", LC_ALL: "C.UTF-8", HOME: "/root" };
    const inside = ["-t", String(pid), "--mount", "--net", "--pid", "chroot", AT, "sh", "-c", script];
    const { status, stdout, stderr } = spawnSync("nsenter", inside, { encoding: "utf8", env, timeout: 120_000 });
    return { status, stdout, stderr };
  };
  return {
    run,
    must(script) {
      const ran = run(script);
      if (ran.status === 0) return ran.stdout;
      throw new Error(`${script}: exit status ${ran.status}\n${ran.stdout}${ran.stderr}`);
    },
    bring: (file) => copyFileSync(file, `/proc/${pid}/root${AT}/root/${path.basename(file)}`),
    pid,
    async end() {
      holder.stdin?.end();
      await ended;
    },
  };
}

export function isThere(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}
