/** mount(8) and umount(8) with our scripts under /sbin: in mount namespaces of their own, so that this machine keeps its own. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { LEAVE_COPIES } from "../../overlay/lab/fuse-mounts.ts";
import { type HelperPrograms, type LocalType, helperScripts, installHelpers } from "../../overlay/mount-helper/install.ts";
import { run } from "./volume/disk.ts";

const SCRIPT_TIMEOUT_MS = 60_000;

export interface OwnSbin {
  /** Runs a shell script there, in that network namespace if one is named. What it mounts is seen by nobody else, and gone with it. */
  run(script: string, netns?: string): { readonly status: number | null; readonly stdout: string; readonly stderr: string };
  end(): void;
}

export function ownSbin(programs: HelperPrograms, wrapped: readonly LocalType[]): OwnSbin {
  const dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-sbin-"));
  run("mount", "-t", "tmpfs", "tmpfs", dir);
  for (const name of ["upper", "work"]) mkdirSync(path.join(dir, name));
  installHelpers(path.join(dir, "upper"), helperScripts(programs, wrapped));
  const prepare = `${LEAVE_COPIES} && mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=${dir}/upper,workdir=${dir}/work /usr/sbin`;
  return {
    run(script, netns) {
      const words = ["unshare", "-m", "--propagation", "private", "sh", "-c", `${prepare} && ${script}`];
      if (netns !== undefined) words.unshift("nsenter", `--net=/run/netns/${netns}`, "--");
      const [command = "", ...args] = words;
      return spawnSync(command, args, { encoding: "utf8", timeout: SCRIPT_TIMEOUT_MS });
    },
    end() {
      run("umount", "--lazy", dir);
      rmSync(dir, { recursive: true });
    },
  };
}
