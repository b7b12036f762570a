/**
 * The scripts that mount(8) and umount(8) look for under /sbin, and their installation. util-linux runs /sbin/mount.TYPE and
 * /sbin/umount.TYPE where they exist (mount(8), "EXTERNAL HELPERS"); a mounted volume has the type fuse.clustered, so that a
 * remount asks for mount.fuse.clustered.
 */
import { chmodSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { OperatingError } from "../../dlmd/base/error.ts";

/** By this line a script is known to be ours. */
const MARK = "# Installed by coverlay install-mount-helper; remove it with --uninstall.";

export interface HelperPrograms {
  /** The node that runs, and the compiled coverlay: absolute, because mount(8) has a short PATH. */
  readonly node: string;
  readonly program: string;
}

export type LocalType = "ext4" | "xfs";

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

function forward({ node, program }: HelperPrograms, command: string): string {
  return `#!/bin/sh\n${MARK}\nexec ${quote(node)} ${quote(program)} ${command} "$@"\n`;
}

/** Everything without the option goes on to the kernel as before: -i keeps mount(8) from asking for this script again. */
function wrapper({ node, program }: HelperPrograms, type: LocalType): string {
  return `#!/bin/sh
${MARK}
# mount -o clustered: to coverlay. Everything else: as if this script were not here.
previous=
for word in "$@"; do
  if [ "$previous" = -o ]; then
    case ",$word," in
      *,clustered,*) exec ${quote(node)} ${quote(program)} mount "$@" ;;
    esac
  fi
  previous=$word
done
exec mount -i -t ${type} "$@"
`;
}

/** File name -> text. `wrapped`: local file systems for which \`-o clustered\` shall work. */
export function helperScripts(programs: HelperPrograms, wrapped: readonly LocalType[]): ReadonlyMap<string, string> {
  return new Map([
    ["mount.clustered", forward(programs, "mount")],
    ["mount.fuse.clustered", forward(programs, "mount")],
    ["umount.fuse.clustered", forward(programs, "umount")],
    ...wrapped.map((type): [string, string] => [`mount.${type}`, wrapper(programs, type)]),
  ]);
}

function isOurs(file: string): boolean {
  return readFileSync(file, "utf8").includes(MARK);
}

/** Writes the scripts; all or none. Throws OperatingError "helper-exists" for a file that is somebody else's, "helper-write". */
export function installHelpers(directory: string, scripts: ReadonlyMap<string, string>): string[] {
  const files = [...scripts.keys()].map((name) => path.join(directory, name));
  for (const file of files) {
    if (existsSync(file) && !isOurs(file)) {
      throw new OperatingError(`${file} is there already, and not from coverlay`, {
        code: "helper-exists",
        hint: "Another program uses it: move it away first, if nobody needs it.",
      });
    }
  }
  for (const [name, text] of scripts) writeScript(path.join(directory, name), text);
  return files;
}

function writeScript(file: string, text: string): void {
  const temporary = `${file}.new`;
  try {
    writeFileSync(temporary, text);
    chmodSync(temporary, 0o755);
    renameSync(temporary, file);
  } catch (error) {
    throw new OperatingError(`${file} cannot be written: ${(error as NodeJS.ErrnoException).code}`, {
      code: "helper-write",
      hint: "Root is needed, and a writable file system.",
      cause: error,
    });
  }
}

/** Removes what is ours; gives the files that were removed. */
export function uninstallHelpers(directory: string): string[] {
  const names = ["mount.clustered", "mount.fuse.clustered", "umount.fuse.clustered", "mount.ext4", "mount.xfs"];
  const files = names.map((name) => path.join(directory, name)).filter((file) => existsSync(file) && isOurs(file));
  for (const file of files) rmSync(file);
  return files;
}
