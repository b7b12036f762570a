/** Files of the run directories are root's: one that another user may not read is no defect of coverlay. */
import { OperatingError } from "../../dlmd/base/error.ts";

/** OperatingError "permission" if the path may not be read; else what was caught. */
export function unreadable(path: string, caught: unknown): unknown {
  const { code } = caught as NodeJS.ErrnoException;
  if (code !== "EACCES" && code !== "EPERM") return caught;
  return new OperatingError(`${path} may not be read by user id ${process.geteuid?.() ?? "?"}`, {
    code: "permission",
    hint: "Use sudo, or be the user that runs dlmd and the mounts.",
    cause: caught,
  });
}
