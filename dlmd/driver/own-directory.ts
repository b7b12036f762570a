/**
 * The folders of a dlmd: its sockets, its state. A folder that is not there is made with mode 0700. One that is there is taken as it is, or
 * refused: whose it is, and who may enter it, is not for dlmd to change.
 */
import { mkdirSync, statSync } from "node:fs";
import { OperatingError } from "../base/error.ts";
import { unkept } from "./atomic-file.ts";

/** `what`: "run directory". `option`: which one names another. Throws OperatingError. */
export function makeOwnDirectory(what: string, dir: string, option: string): void {
  let found;
  try {
    if (mkdirSync(dir, { recursive: true, mode: 0o700 }) !== undefined) return;
    found = statSync(dir);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOSPC" || code === "EDQUOT") throw unkept(`the ${what}`, dir, error);
    throw new OperatingError(`the ${what} ${dir} cannot be made: ${(error as Error).message}`, {
      code: "no-run-dir",
      hint:
        code === "EACCES" || code === "EPERM"
          ? `Start dlmd as root, or name a folder of your own with ${option}.`
          : `Look what stands there (ls -ld ${dir}), and move it away, or name another folder with ${option}.`,
      cause: error,
    });
  }
  const mode = found.mode & 0o7777;
  const ours = process.geteuid?.() ?? found.uid;
  if (found.uid === ours && (mode & 0o077) === 0) return;
  throw new OperatingError(
    `the ${what} ${dir} must be user id ${ours}'s alone, mode 0700; found user id ${found.uid}, mode 0${mode.toString(8)}`,
    {
      code: "open-run-dir",
      hint: `Others could reach dlmd's sockets and files there. Run chmod 700 ${dir} if it is for dlmd alone, or name a folder that is not there yet with ${option}.`,
    },
  );
}
