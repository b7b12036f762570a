/** The version of this program. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { OperatingError } from "../../dlmd/base/error.ts";

/** The version in package.json, which stands above the sources and above the compiled tree. */
export function packageVersion(): string {
  const candidates = ["../../package.json", "../../../package.json"].map((at) => fileURLToPath(new URL(at, import.meta.url)));
  const found = candidates.find((file) => existsSync(file));
  if (found === undefined) {
    throw new OperatingError(`package.json expected at ${candidates.join(" or ")}`, {
      code: "no-package",
      hint: "Install coverlay again.",
    });
  }
  return String((JSON.parse(readFileSync(found, "utf8")) as { version?: unknown }).version);
}
