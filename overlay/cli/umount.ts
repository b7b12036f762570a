/** `coverlay umount`: what /sbin/umount.fuse.clustered runs; returns when the volume is released, not just unmounted. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import type { Argv, CommandModule } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { mountAt, type MountEntry } from "../../dlmd/base/mount-table.ts";
import { defaultRunDir } from "../query/dlmd-query.ts";
import { canonicalPlace } from "../volume/canonical-path.ts";
import { endWaiter } from "../volume/mount-waiter.ts";
import { clusteredMountAt, RELEASE_LIMIT_MS, unmount, type UnmountOptions, waitForRelease } from "../volume/remount.ts";
import { coverlayProgram } from "../volume/start-overlay.ts";
import { isServedOf, machinePort, unmountAll, waiterWords } from "../volume/unmount-all.ts";
import { interruptedError, unlessAborted } from "./interrupt.ts";
import { keptBehind, KEPT_WAIT_MS, waitWhileKept } from "./kept-for-others.ts";
import { longWork } from "./long-work.ts";
import { requireRoot } from "./mount.ts";
import { print, printJson, runCommand, usageError } from "./output.ts";

interface UmountArguments {
  readonly directory: string | undefined;
  readonly all: boolean;
  readonly runDir: string;
  readonly lazy: boolean;
  readonly force: boolean;
  readonly verbose: boolean;
  readonly json: boolean;
}

const details = `It waits until the volume is released, for ${RELEASE_LIMIT_MS / 1000} s. If other mount namespaces (containers, services) hold it up, it names their processes.
If it is the owner, and keeps files of mounts whose dlmd is being restarted, it waits for these first, for ${KEPT_WAIT_MS / 1000} s; not with --lazy or --force.
A process that waits in the background to mount there (mount -o bg) is ended first, also where nothing is mounted: umount(8) does not ask for that.
Ctrl-C ends the command; what has begun goes on.
Exit status: 0 unmounted and released; 1 wrong command line, or not root; 8 interrupted, and the release goes on; 32 it could not be.`;

type How = Pick<UnmountOptions, "lazy" | "force" | "tell" | "following">;

/** Gives a note for the user, or null. */
async function unmountOne(directory: string, how: How): Promise<string | null> {
  const waiter = await endWaiter(directory);
  if (waiter !== null) {
    how.tell(waiterWords(waiter));
    // It may have mounted at the last moment.
    if (mountAt(waiter.mountPoint)?.type !== "fuse.clustered") return null;
  }
  await othersFirst(clusteredMountAt(directory), how);
  return unmount(directory, how);
}

/** For those of which an owner keeps something. Who forces it, or takes it out of the tree now, does not want to wait. */
function othersFirst(entry: MountEntry, { lazy, force, tell }: How): Promise<void> {
  return waitWhileKept(entry.mountPoint, () => keptBehind(entry), { waits: !lazy && !force, tell });
}

/** What the dlmd of that run directory serves at one place, also one mount over another. What else is on top there stays. */
async function unmountPlace(directory: string, runDir: string, how: How): Promise<string | null> {
  const place = canonicalPlace(directory);
  let note: string | null = null;
  for (let entry = mountAt(place); entry !== null && isServedOf(entry, runDir); entry = mountAt(place)) {
    await othersFirst(entry, how);
    note = await unmount(place, how);
  }
  return note;
}

/** In a process of its own: umount(2) writes back what is dirty in memory, and returns when that is done. */
async function unmountApart(place: string, runDir: string, { lazy, force }: How): Promise<boolean> {
  const flags = [...(lazy ? ["--lazy"] : []), ...(force ? ["--force"] : [])];
  const child = spawn(process.execPath, [coverlayProgram(), "umount", "--all", "--run-dir", runDir, ...flags, place], { stdio: "inherit" });
  const [status] = (await once(child, "exit")) as [number | null];
  return status === 0;
}

/** What the dlmd of that run directory serves: dlmd.service stops so. One that is in use does not keep the others. */
async function unmountEach(runDir: string, how: How): Promise<void> {
  const left = await unmountAll(runDir, {
    ...machinePort,
    unmount: (place) => unmountApart(place, runDir, how),
    waitForRelease: how.lazy ? null : (mount, record) => waitForRelease(mount, record, { tell: how.tell }),
    tell: how.tell,
  });
  if (left.length === 0) return;
  throw new OperatingError(`${left.join(", ")}: not unmounted, or not released`, {
    code: "umount-failed",
    hint: "See above. If dlmd stops now, these mounts end: what was not synced may be lost.",
    exitStatus: 32,
  });
}

export const umountCommand: CommandModule<object, UmountArguments> = {
  command: "umount [directory]",
  describe: "unmount a volume and wait until this node has released it",
  builder: (yargs) =>
    yargs
      .positional("directory", { type: "string", describe: "the mount point" })
      .option("all", { alias: "a", type: "boolean", default: false, describe: "all volumes of this node, also those that are waited for" })
      .option("run-dir", { type: "string", default: defaultRunDir(), describe: "with --all: where the dlmd of this node has its socket" })
      .option("lazy", { alias: "l", type: "boolean", default: false, describe: "take it out of the tree now; it ends with its last user" })
      .option("force", { alias: "f", type: "boolean", default: false, describe: "end waiting requests with an error" })
      .option("no-mtab", { alias: "n", type: "boolean", default: false, describe: "for umount(8): nothing to us" })
      .option("mtab", { type: "boolean", hidden: true, describe: "what yargs makes of --no-mtab" })
      .option("read-only", { alias: "r", type: "boolean", default: false, describe: "for umount(8): nothing to us" })
      .option("type", { alias: "t", type: "string", describe: "for umount(8): nothing to us" })
      .option("verbose", { alias: "v", type: "boolean", default: false, describe: "say what is done" })
      .option("json", { type: "boolean", default: false, describe: "print JSON" })
      .example("$0 umount /shared", "the owner hands the volume over to the other nodes")
      .example("$0 umount --all", "before this node leaves the cluster; `systemctl stop dlmd` does it")
      .epilogue(details) as unknown as Argv<UmountArguments>,
  handler: ({ directory, all, runDir, lazy, force, verbose, json }) =>
    runCommand(json, async () => {
      requireRoot("unmount");
      const tell = json ? (): void => {} : (line: string): void => void process.stderr.write(`coverlay: ${line}\n`);
      const goesOn = (): OperatingError =>
        interruptedError("it is unmounted, and this node goes on releasing the volume", "coverlay status says so until it is released.");
      const following = (wait: Promise<void>): Promise<void> => longWork(json, goesOn, ({ signal }) => unlessAborted(wait, signal));
      const how = { lazy, force, tell, following };
      if (directory === undefined) {
        if (!all) throw usageError("a mount point is needed, or --all", "coverlay umount DIRECTORY");
        await unmountEach(path.resolve(runDir), how);
        return json ? printJson({ unmounted: "all" }) : undefined;
      }
      const note = await (all ? unmountPlace(directory, runDir, how) : unmountOne(directory, how));
      if (json) return printJson({ unmounted: directory, note });
      if (note !== null) process.stderr.write(`coverlay: ${directory}: unmounted; ${note}\n`);
      else if (verbose) print(`${directory}: unmounted`);
    }),
};
