/** A dlmd that is restarted without the service manager: the installed program takes the place of this one. packaging/README.md, "Upgrading". */
import { errnoName } from "../base/errno.ts";
import { OperatingError } from "../base/error.ts";
import { nativeAddon } from "../../native/index.ts";

/**
 * execve(2) of the program that this process was started with, with its arguments. To whoever started it it is the same process. `environment`: what this one has taken
 * out of its own. Returns only what went wrong.
 */
export function startAnew(environment: Readonly<Record<string, string>>): OperatingError {
  const zeroEnded = (words: readonly string[]): Buffer => Buffer.from(words.map((word) => `${word}\0`).join(""));
  const words = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const variables = Object.entries({ ...process.env, ...environment }).map(([name, value = ""]) => `${name}=${value}`);
  const errno = -nativeAddon().exec(process.execPath, zeroEnded(words), zeroEnded(variables));
  return new OperatingError(`${process.execPath} cannot be started: ${errnoName(errno)}`, {
    code: "no-program",
    hint: "Start dlmd again.",
  });
}
