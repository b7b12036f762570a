/**
 * The files of a cluster: cluster.yaml and the cluster key. The key is 32 random bytes in base64 on one line, and
 * its file may be read by its owner only: whoever has it is a member.
 */
import { randomBytes } from "node:crypto";
import { closeSync, fstatSync, openSync, readFileSync, writeSync } from "node:fs";
import path from "node:path";
import { OperatingError } from "../base/error.ts";
import { type ClusterConfig, MIN_TIMEOUT_MS, decodeClusterConfig } from "../config/cluster-config.ts";

export const CLUSTER_KEY_BYTES = 32;

/** The least time-out: MIN_TIMEOUT_MS, or less where the environment says so. For tests: a busy node looks dead. */
export function minTimeoutMs(environment: Readonly<Record<string, string | undefined>>): number {
  const lowered = Number(environment["COVERLAY_TEST_TIMEOUT_MS"]);
  return Number.isInteger(lowered) && lowered > 0 ? Math.min(lowered, MIN_TIMEOUT_MS) : MIN_TIMEOUT_MS;
}

function unreadable(what: string, file: string, cause: unknown, hint: string): OperatingError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const found = code === "ENOENT" ? "no such file" : message;
  return new OperatingError(`${what} expected in ${file}, found: ${found}`, { code: `no-${what.replace(" ", "-")}`, hint, cause });
}

/** Reads and checks a cluster.yaml. Throws OperatingError. */
export function readClusterConfig(file: string, minimumMs: number = MIN_TIMEOUT_MS): ClusterConfig {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw unreadable("cluster configuration", file, error, "Name the file with --config; examples/cluster.yaml is one to start from.");
  }
  return decodeClusterConfig(text, file, minimumMs);
}

/** Where the key of that configuration is. */
export function clusterKeyPath(configFile: string, config: ClusterConfig): string {
  return path.resolve(path.dirname(configFile), config.keyFile);
}

/** Reads a cluster key: 32 bytes. Throws OperatingError when it is not there, open to others, or not a key. */
export function readClusterKey(file: string): Buffer {
  let fd: number;
  try {
    fd = openSync(file, "r");
  } catch (error) {
    throw unreadable("cluster key", file, error, "Make one with `coverlay keygen`, and copy the same file to every node.");
  }
  try {
    const mode = fstatSync(fd).mode & 0o7777;
    if ((mode & 0o077) !== 0) {
      throw new OperatingError(`the cluster key ${file} must have mode 0600, found 0${mode.toString(8)}`, {
        code: "key-mode",
        hint: `Others on this machine may have read it. Run chmod 600 ${file}, or make a new key for all nodes.`,
      });
    }
    return decodeClusterKey(readFileSync(fd, "utf8"), file);
  } finally {
    closeSync(fd);
  }
}

function decodeClusterKey(text: string, file: string): Buffer {
  const line = text.trimEnd();
  const key = Buffer.from(line, "base64");
  if (key.length !== CLUSTER_KEY_BYTES || key.toString("base64") !== line) {
    throw new OperatingError(
      `${file} must hold ${CLUSTER_KEY_BYTES} bytes in base64 on one line, found ${line.length} characters of something else`,
      {
        code: "bad-key",
        hint: "Copy the key file from another node as it is, or make a new one for all nodes with `coverlay keygen`.",
      },
    );
  }
  return key;
}

/** A new cluster key: 32 bytes. */
export function generateClusterKey(): Buffer {
  return randomBytes(CLUSTER_KEY_BYTES);
}

/** Writes a new cluster key to a file that must not exist yet, with mode 0600. Throws OperatingError. */
export function writeClusterKey(file: string, key: Uint8Array = generateClusterKey()): void {
  let fd: number;
  try {
    fd = openSync(file, "wx", 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") {
      throw new OperatingError(`${file} is there already`, {
        code: "key-exists",
        hint: "A key is never overwritten: nodes that have it would lose their cluster. Remove the file, or name another.",
        cause: error,
      });
    }
    throw new OperatingError(`the cluster key cannot be written to ${file}: ${(error as Error).message}`, {
      code: "key-write",
      hint: "Name a file in a folder that exists and may be written.",
      cause: error,
    });
  }
  try {
    writeSync(fd, `${Buffer.from(key).toString("base64")}\n`);
  } finally {
    closeSync(fd);
  }
}
