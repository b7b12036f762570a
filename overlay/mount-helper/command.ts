/** `coverlay install-mount-helper`: makes `mount -t clustered` work. */
import type { CommandModule } from "yargs";
import { print, printJson, runCommand } from "../cli/output.ts";
import { coverlayProgram } from "../volume/start-overlay.ts";
import { type LocalType, helperScripts, installHelpers, uninstallHelpers } from "./install.ts";

interface InstallArguments {
  readonly uninstall: boolean;
  readonly ext4: boolean;
  readonly xfs: boolean;
  readonly directory: string;
  readonly json: boolean;
}

const details = `Installs /sbin/mount.clustered, /sbin/mount.fuse.clustered (for -o remount) and /sbin/umount.fuse.clustered. Then these work:
  mount -t clustered /dev/sdb1 /shared
  /dev/sdb1  /shared  clustered  rw,_netdev  0  0      (a line of /etc/fstab)
  mount -o remount,ro /shared
A umount of what has the option _netdev returns when the volume is released; another one may return when it is unmounted, because umount(8)
does not ask then, and the release follows. \`coverlay umount\` always waits for it.

\`mount -o clustered /dev/sdb1 /shared\` alone cannot: mount(8) finds ext4 on the device and gives the option to ext4, which refuses it.
With --ext4 (and --xfs) a script /sbin/mount.ext4 (mount.xfs) is installed too, which mount(8) asks before the kernel: it takes what has
the option \`clustered\` and leaves everything else to mount -i, as before. Its limits: every ext4 mount of this machine goes through a
small shell script; programs that call mount(2) themselves do not see it; the option \`clustered\` must stand in -o, not in the
superblock's own mount options; an initramfs does not have it; and where /etc/fstab has two lines for one mount point, a user who is not
root gets what the first one names.`;

export const installMountHelperCommand: CommandModule<object, InstallArguments> = {
  command: "install-mount-helper",
  describe: "make `mount -t clustered` work on this machine",
  builder: (yargs) =>
    yargs
      .option("uninstall", { type: "boolean", default: false, describe: "remove the scripts again" })
      .option("ext4", { type: "boolean", default: false, describe: "also let `mount -o clustered` work for ext4" })
      .option("xfs", { type: "boolean", default: false, describe: "also let `mount -o clustered` work for XFS" })
      .option("directory", { type: "string", default: "/sbin", describe: "where mount(8) looks" })
      .option("json", { type: "boolean", default: false, describe: "print JSON" })
      .example("$0 install-mount-helper", "then: mount -t clustered /dev/sdb1 /shared")
      .epilogue(details),
  handler: ({ uninstall, ext4, xfs, directory, json }) =>
    runCommand(json, async () => {
      if (uninstall) {
        const removed = uninstallHelpers(directory);
        if (json) return printJson({ removed });
        return print(removed.length === 0 ? `nothing of coverlay in ${directory}` : `removed ${removed.join(", ")}`);
      }
      const wrapped: LocalType[] = [...(ext4 ? ["ext4" as const] : []), ...(xfs ? ["xfs" as const] : [])];
      const scripts = helperScripts({ node: process.execPath, program: coverlayProgram() }, wrapped);
      const installed = installHelpers(directory, scripts);
      if (json) return printJson({ installed });
      print(installed.length === 0 ? `the package coverlay has them in ${directory} already` : `installed ${installed.join(", ")}`);
    }),
};
