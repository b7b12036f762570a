/**
 * `coverlay why PATH`: the locks of a file of a mount of this node. The path is looked up by a process of its own, because a lookup may be what
 * hangs: then that process's own request is explained.
 */
import { execFile } from "node:child_process";
import path from "node:path";
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type ClusterLocks, decodeClusterLocks, joinClusterLocks } from "../query/cluster-locks.ts";
import { askClusterAll, nodeName } from "../query/dlmd-query.ts";
import { reportFiles } from "./file-locks.ts";
import { gatherLocks } from "../query/gather-locks.ts";
import { lockNamesOf, volumeName } from "../query/lock-names.ts";
import { EXIT, print, printJson } from "./output.ts";
import { listOverlays } from "../query/overlay-query.ts";
import { queryOverlayInode } from "../query/overlay-requests.ts";
import { callsBefore, explainProcess, printProcess } from "./why-process.ts";
import { askChain } from "./chain.ts";
import { describeChain, describeWhy } from "./why-words.ts";

/** A lookup that takes longer waits for a lock, or for the owner. */
export const LOOKUP_LIMIT_MS = 2000;

interface Found {
  /** st_dev and st_ino, as stat(1) prints them. */
  readonly device: string;
  readonly ino: number;
}

/** "slow": it did not answer within the limit; the process is alive until `end`. */
type Lookup = { readonly kind: "found"; readonly found: Found } | { readonly kind: "slow"; readonly pid: number; readonly end: () => void };

function lookUp(target: string, limitMs: number): Promise<Lookup> {
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    const child = execFile("stat", ["-L", "-c", "%d %i", "--", target], (error, stdout, stderr) => {
      clearTimeout(timer);
      const [device, ino] = stdout.trim().split(" ");
      if (error === null && device !== undefined && ino !== undefined) {
        return resolve({ kind: "found", found: { device: deviceName(Number(device)), ino: Number(ino) } });
      }
      reject(
        new OperatingError(`${target}: ${stderr.trim() || "it cannot be looked up"}`, { code: "no-path", hint: "Name a file of a mount." }),
      );
    });
    timer = setTimeout(() => {
      const end = (): void => {
        child.kill("SIGKILL");
        // It may sleep in the kernel, where no signal ends it: this command ends without it.
        child.unref();
        child.stdout?.destroy();
        child.stderr?.destroy();
      };
      resolve({ kind: "slow", pid: child.pid ?? 0, end });
    }, limitMs);
  });
}

/** "major:minor" of st_dev (makedev(3)). */
function deviceName(dev: number): string {
  const number = BigInt(dev);
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn);
  const minor = (number & 0xffn) | ((number >> 12n) & ~0xffn);
  return `${major}:${minor & 0xffff_ffffn}`;
}

/** Exit status 0: it has locks, or somebody waits. */
export async function whyPath(runDir: string, target: string, json: boolean, limitMs: number = LOOKUP_LIMIT_MS): Promise<number> {
  const absolute = path.resolve(target);
  const lookup = await lookUp(absolute, limitMs);
  if (lookup.kind === "slow") return whySlow(runDir, absolute, json, lookup);
  const { device, ino } = lookup.found;
  const overlay = listOverlays(runDir).find(({ connection, alive }) => alive && `0:${connection}` === device);
  if (overlay === undefined) throw notClustered(absolute, runDir);
  const { keys, lockspace } = await queryOverlayInode(runDir, overlay.connection, ino);
  const wanted = keys.flatMap((key) => lockNamesOf(key)).map((resource) => ({ lockspace, resource, nodeid: 0, waitingMs: null }));
  const ask = async (): Promise<{ readonly info: ClusterInfo; readonly locks: ClusterLocks }> => {
    const { info, answers } = await askClusterAll(runDir, wanted);
    return { info, locks: joinClusterLocks(answers.map((answer) => decodeClusterLocks(answer))) };
  };
  let { info, locks } = await ask();
  if (await gatherLocks(runDir, locks)) ({ info, locks } = await ask());
  const pathOf = (): string => absolute;
  const [first] = locks.files.flatMap(({ waiting }) => waiting).toSorted((a, b) => b.waitingMs - a.waitingMs);
  const chain = first === undefined ? null : await askChain(runDir, first);
  if (json) {
    printJson({
      path: absolute,
      volume: volumeName(lockspace, info.volumes),
      inode: String(ino),
      ...locks,
      files: reportFiles(locks, info, pathOf),
      chain,
    });
  } else {
    print(`${absolute}: inode ${ino} of volume ${volumeName(lockspace, info.volumes)}`);
    print(describeWhy(locks, nodeName(info), pathOf));
    for (const line of describeChain(chain)) print(line);
  }
  return isHeld(locks) ? EXIT.OK : EXIT.FAILURE;
}

function isHeld({ resources, files }: ClusterLocks): boolean {
  return resources.length + files.length > 0;
}

async function whySlow(runDir: string, target: string, json: boolean, { pid, end }: { pid: number; end: () => void }): Promise<number> {
  try {
    const report = await explainProcess(runDir, pid);
    if (!json) print(`${target}: a lookup of it does not come back. It waits itself, as process ${pid}:`);
    printProcess(report, json, callsBefore(report, target));
    return EXIT.OK;
  } finally {
    end();
  }
}

function notClustered(target: string, runDir: string): OperatingError {
  return new OperatingError(`${target} is not in a clustered mount of this node`, {
    code: "not-clustered",
    hint: `findmnt -t fuse.clustered lists the mounts; \`coverlay why\` asks those of the run directory ${runDir}.`,
  });
}
