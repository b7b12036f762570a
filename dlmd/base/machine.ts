/** Which machine this is, and which of its boots: for proofs that what ran on it has ended. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { OperatingError } from "./error.ts";

/** A machine without a machine-id(5). Two of them cannot be told apart. */
export const UNKNOWN_MACHINE = "unknown";

/**
 * A hash of machine-id(5), which asks that the id itself stays on its machine: 32 hex digits. It outlives a restart; machines that were
 * cloned have the same one. OperatingError: the file is there, and cannot be read; so nothing is known of the id.
 */
export function machineId(file = "/etc/machine-id"): string {
  let text = "";
  try {
    text = readFileSync(file, "latin1").trim();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT") {
      const hint = `Make ${file} readable for root, and try again.`;
      throw new OperatingError(`the machine id cannot be read: ${message}`, { code: "machine-id-unreadable", hint, cause: error });
    }
  }
  if (!/^[0-9a-f]{32}$/.test(text)) return UNKNOWN_MACHINE;
  return createHash("sha256").update(`coverlay machine ${text}`).digest("hex").slice(0, 32);
}

/** Of the running kernel. Throws if /proc cannot be read. */
export function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
}
