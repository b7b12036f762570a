/**
 * The files of a cluster: cluster.yaml and the key file. A key is 32 random bytes in base64 on a line, with a number behind it if it
 * was added to others: the highest is the newest. The first is spoken with, all are accepted (tls/keyring.ts). The file may be read by its owner only, who is root or the user
 * that reads it: whoever has a key is a member.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  linkSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { OperatingError } from "../base/error.ts";
import { NoSmallFileError, readChecked, readSmallText } from "../base/small-file.ts";
import { type ClusterConfig, MIN_TIMEOUT_MS, decodeClusterConfig } from "../config/cluster-config.ts";
import { type Keyring, clusterKeyId, createKeyring } from "../tls/keyring.ts";

export const CLUSTER_KEY_BYTES = 32;
/** In one file: more than the old, the new and one that was forgotten is a mistake. */
export const MAX_CLUSTER_KEYS = 4;

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

export interface ClusterConfigFile {
  readonly config: ClusterConfig;
  readonly text: string;
}

/** Reads and checks a cluster.yaml. Throws OperatingError. */
export function readClusterConfig(file: string, minimumMs: number = MIN_TIMEOUT_MS): ClusterConfigFile {
  let text: string;
  try {
    text = readSmallText(file);
  } catch (error) {
    throw unreadable("cluster configuration", file, error, "Name the file with --config; examples/cluster.yaml is one to start from.");
  }
  return { config: decodeClusterConfig(text, file, minimumMs), text };
}

/** Where the key of that configuration is. */
export function clusterKeyPath(configFile: string, config: ClusterConfig): string {
  return path.resolve(path.dirname(configFile), config.keyFile);
}

/** A key as its file has it. */
export interface StoredKey {
  readonly bytes: Uint8Array;
  /** Which of the keys that the file ever had; 0: it says nothing, so it is the first one. */
  readonly serial: number;
}

/** The keys to work with. Throws as readKeys. */
export function readKeyring(file: string): Keyring {
  const [first, ...others] = readKeys(file).map(({ bytes }) => bytes);
  return createKeyring([first as Uint8Array, ...others]);
}

/** Reads a key file: at least one key. Throws OperatingError when it is not there, open to others or another user's, or holds something else than keys. */
export function readKeys(file: string): StoredKey[] {
  return decodeKeys(readKeyFile(file), file);
}

function readKeyFile(file: string): string {
  try {
    return readChecked(file, (stat) => checkKeyFile(file, stat));
  } catch (error) {
    if (error instanceof OperatingError) throw error;
    if (error instanceof NoSmallFileError) throw badKeys(file, error.found);
    const isBad = (error as NodeJS.ErrnoException).code === "EIO";
    const hint = isBad
      ? "See dmesg; copy the key file from another node."
      : "Make one with `coverlay keygen`, and copy the same file to every node.";
    throw unreadable("cluster key", file, error, hint);
  }
}

function checkKeyFile(file: string, stat: Stats): void {
  const mode = stat.mode & 0o7777;
  if ((mode & 0o077) !== 0) {
    throw new OperatingError(`the cluster key ${file} must have mode 0600, found 0${mode.toString(8)}`, {
      code: "key-mode",
      hint: `Others on this machine may have read it. Run chmod 600 ${file}, or make a new key for all nodes.`,
    });
  }
  const ownUid = process.geteuid?.() ?? 0;
  if (stat.uid !== 0 && stat.uid !== ownUid) throw keyOfAnother(file, stat.uid, ownUid);
}

function keyOfAnother(file: string, uid: number, ownUid: number): OperatingError {
  const wanted = ownUid === 0 ? "root" : `root or user id ${ownUid}`;
  return new OperatingError(`the cluster key ${file} must be a file of ${wanted}, found user id ${uid}`, {
    code: "key-owner",
    hint: `That user can read and change it. Run chown ${ownUid === 0 ? "root" : ownUid} ${file}, or make a new key for all nodes.`,
  });
}

function badKeys(file: string, found: string): OperatingError {
  return new OperatingError(
    `${file} must hold 1 to ${MAX_CLUSTER_KEYS} keys, each ${CLUSTER_KEY_BYTES} bytes in base64 on a line of its own, found ${found}`,
    { code: "bad-key", hint: "Copy the key file from another node as it is, or make a new one for all nodes with `coverlay keygen`." },
  );
}

function decodeKeys(text: string, file: string): StoredKey[] {
  const lines = text.trimEnd().split("\n");
  const keys = lines.map((line, at) => {
    const [, word = "", serial = "0"] = /^(\S+)(?: (\d{1,9}))?$/.exec(line) ?? [];
    const bytes = Buffer.from(word, "base64");
    // Never the line itself: it may be a key with a slip in it.
    if (bytes.length !== CLUSTER_KEY_BYTES || bytes.toString("base64") !== word) {
      throw badKeys(file, `${line.length} characters of something else on line ${at + 1}`);
    }
    return { bytes, serial: Number(serial) };
  });
  if (keys.length > MAX_CLUSTER_KEYS) throw badKeys(file, `${keys.length} lines`);
  if (new Set(keys.map(({ bytes }) => clusterKeyId(bytes))).size < keys.length) throw badKeys(file, "a key that is there twice");
  return keys;
}

/** A new cluster key: 32 bytes. */
export function generateClusterKey(): Buffer {
  return randomBytes(CLUSTER_KEY_BYTES);
}

/** What writers of that key file left beside it that were killed meanwhile, or still write. */
export function unfinishedKeys(file: string): string[] {
  const dir = path.dirname(file);
  const before = `${path.basename(file)}.`;
  const isOne = (name: string): boolean => name.startsWith(before) && /^\d+\.new$/.test(name.slice(before.length));
  return readdirSync(dir)
    .filter(isOne)
    .map((name) => path.join(dir, name));
}

/** Writes a key file that must not exist yet, with mode 0600: whole or not at all. Throws OperatingError. */
export function writeClusterKey(file: string, key: Uint8Array = generateClusterKey()): void {
  const beside = `${file}.${process.pid}.new`;
  try {
    rmSync(beside, { force: true });
    writeKeys(beside, [{ bytes: key, serial: 0 }]);
    // link(2) fails where a file is there already, and rename(2) does not.
    linkSync(beside, file);
    syncFolder(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") {
      throw new OperatingError(`${file} is there already`, {
        code: "key-exists",
        hint: "A key is never overwritten: nodes that have it would lose their cluster. Add one with --add, or name another file.",
        cause: error,
      });
    }
    throw unwritable(file, error as Error);
  } finally {
    rmSync(beside, { force: true });
  }
}

function syncFolder(file: string): void {
  const fd = openSync(path.dirname(file), "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** To a file that is not there yet. */
function writeKeys(file: string, keys: readonly StoredKey[]): void {
  const text = keys.map(({ bytes, serial }) => `${Buffer.from(bytes).toString("base64")}${serial === 0 ? "" : ` ${serial}`}\n`).join("");
  writeFileSync(file, text, { flag: "wx", mode: 0o600, flush: true });
}

function unwritable(file: string, error: Error): OperatingError {
  return new OperatingError(`the cluster key cannot be written to ${file}: ${error.message}`, {
    code: "key-write",
    hint: "Name a file in a folder that exists and may be written.",
    cause: error,
  });
}

/** Puts other keys into a key file, through a symbolic link: whole or not at all, so that a dlmd that reads it meanwhile finds the old or the new ones. */
export function replaceKeys(file: string, keys: readonly StoredKey[]): void {
  let beside: string | null = null;
  try {
    const place = realpathSync(file);
    beside = `${place}.${process.pid}.new`;
    rmSync(beside, { force: true });
    writeKeys(beside, keys);
    renameSync(beside, place);
    syncFolder(place);
  } catch (error) {
    if (beside !== null) rmSync(beside, { force: true });
    throw unwritable(file, error as Error);
  }
}
