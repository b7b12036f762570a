/** `coverlay umount`: what /sbin/umount.fuse.clustered runs; returns when the volume is released, not just unmounted. */
import type { CommandModule } from "yargs";
import { RELEASE_LIMIT_MS, unmount } from "../volume/remount.ts";
import { requireRoot } from "./mount.ts";
import { print, runCommand } from "./output.ts";

interface UmountArguments {
  readonly directory: string;
  readonly lazy: boolean;
  readonly force: boolean;
  readonly verbose: boolean;
}

const details = `It waits until the volume is released, for ${RELEASE_LIMIT_MS / 1000} s. If other mount namespaces (containers, services) hold it up, it names their processes.
Exit status: 0 unmounted and released; 1 wrong command line, or not root; 32 it could not be.`;

export const umountCommand: CommandModule<object, UmountArguments> = {
  command: "umount <directory>",
  describe: "unmount a volume and wait until this node has released it",
  builder: (yargs) =>
    yargs
      .positional("directory", { type: "string", demandOption: true, describe: "the mount point" })
      .option("lazy", { alias: "l", type: "boolean", default: false, describe: "take it out of the tree now; it ends with its last user" })
      .option("force", { alias: "f", type: "boolean", default: false, describe: "end waiting requests with an error" })
      .option("no-mtab", { alias: "n", type: "boolean", default: false, describe: "for umount(8): nothing to us" })
      .option("read-only", { alias: "r", type: "boolean", default: false, describe: "for umount(8): nothing to us" })
      .option("type", { alias: "t", type: "string", describe: "for umount(8): nothing to us" })
      .option("verbose", { alias: "v", type: "boolean", default: false, describe: "say what is done" })
      .example("$0 umount /shared", "the owner hands the volume over to the other nodes")
      .epilogue(details),
  handler: ({ directory, lazy, force, verbose }) =>
    runCommand(false, async () => {
      requireRoot("unmount");
      const note = await unmount(directory, { lazy, force, tell: (line) => process.stderr.write(`coverlay: ${line}\n`) });
      if (note !== null) process.stderr.write(`coverlay: ${directory}: unmounted; ${note}\n`);
      else if (verbose) print(`${directory}: unmounted`);
    }),
};
