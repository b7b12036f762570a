/**
 * The scripts that mount(8) and umount(8) look for under /sbin, and their installation. util-linux runs /sbin/mount.TYPE and
 * /sbin/umount.TYPE where they exist (mount(8), "EXTERNAL HELPERS"); a mounted volume has the type fuse.clustered, so that a
 * remount asks for mount.fuse.clustered.
 */
import { chmodSync, closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { OperatingError } from "../../dlmd/base/error.ts";

/** By this line a script is known to be ours. Those of the Debian package are dpkg's: they are neither replaced nor removed here. */
const MARKS = {
  command: "# Installed by coverlay install-mount-helper; remove it with --uninstall.",
  package: "# Of the package coverlay.",
} as const;

export type InstalledBy = keyof typeof MARKS;

export interface HelperPrograms {
  /** The node that runs, and the compiled coverlay: absolute, because mount(8) has a short PATH. */
  readonly node: string;
  readonly program: string;
}

export type LocalType = "ext4" | "xfs";

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

function forward({ node, program }: HelperPrograms, command: string, by: InstalledBy): string {
  return `#!/bin/sh\n${MARKS[by]}\nexec ${quote(node)} ${quote(program)} ${command} "$@"\n`;
}

/**
 * Everything without the option goes on to the kernel as before: -i keeps mount(8) from asking for this script again. It starts this script with the rights
 * of who called it, and users may name nothing but a place of fstab, -r and -v.
 */
function wrapper({ node, program }: HelperPrograms, type: LocalType): string {
  return `#!/bin/sh
${MARKS.command}
# mount -o clustered: to coverlay. Everything else: as if this script were not here.
previous= read_only= verbose=
for word in "$@"; do
  if [ "$previous" = -o ]; then
    case ",$word," in
      *,clustered,*) exec ${quote(node)} ${quote(program)} mount "$@" ;;
      *,ro,*) read_only=-r ;;
    esac
  elif [ "$word" = -v ]; then
    verbose=-v
  fi
  previous=$word
done
[ "$(id -u)" = 0 ] || exec mount -i $read_only $verbose "$2"
exec mount -i -t ${type} "$@"
`;
}

/** File name -> text. `wrapped`: local file systems for which \`-o clustered\` shall work. */
export function helperScripts(
  programs: HelperPrograms,
  wrapped: readonly LocalType[],
  by: InstalledBy = "command",
): ReadonlyMap<string, string> {
  return new Map([
    ["mount.clustered", forward(programs, "mount", by)],
    ["mount.fuse.clustered", forward(programs, "mount", by)],
    ["umount.fuse.clustered", forward(programs, "umount", by)],
    ...wrapped.map((type): [string, string] => [`mount.${type}`, wrapper(programs, type)]),
  ]);
}

function isFrom(file: string, by: InstalledBy): boolean {
  return existsSync(file) && readFileSync(file, "utf8").includes(MARKS[by]);
}

/** Writes the scripts, all or none, but for those of the package; gives the files that were written. Throws OperatingError "helper-exists" for a file that is somebody else's, "helper-write". */
export function installHelpers(directory: string, scripts: ReadonlyMap<string, string>): string[] {
  const places = [...scripts].map(([name, text]) => ({ file: path.join(directory, name), text }));
  const wanted = places.filter(({ file }) => !isFrom(file, "package"));
  for (const { file } of wanted) {
    if (existsSync(file) && !isFrom(file, "command")) {
      throw new OperatingError(`${file} is there already, and not from coverlay`, {
        code: "helper-exists",
        hint: "Another program uses it: move it away first, if nobody needs it.",
      });
    }
  }
  for (const { file, text } of wanted) writeScript(file, text);
  return wanted.map(({ file }) => file);
}

function writeScript(file: string, text: string): void {
  const temporary = `${file}.new`;
  try {
    // On the disk before its name: an empty mount.ext4 after a power cut would keep ext4 from being mounted at all.
    writeFileSync(temporary, text, { flush: true });
    chmodSync(temporary, 0o755);
    renameSync(temporary, file);
    syncFolder(path.dirname(file));
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new OperatingError(`${file} cannot be written: ${(error as NodeJS.ErrnoException).code}`, {
      code: "helper-write",
      hint: "Root is needed, and a writable file system.",
      cause: error,
    });
  }
}

function syncFolder(folder: string): void {
  const fd = openSync(folder, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Removes what is ours; gives the files that were removed. */
export function uninstallHelpers(directory: string): string[] {
  const names = ["mount.clustered", "mount.fuse.clustered", "umount.fuse.clustered", "mount.ext4", "mount.xfs"];
  const files = names.map((name) => path.join(directory, name)).filter((file) => isFrom(file, "command"));
  for (const file of files) rmSync(file);
  return files;
}
