/**
 * The compiled part of the package fuse-native, which is no dependency of ours: it is used where an administrator has installed it. Its
 * index.js is left alone. That would give each call 15 seconds, has no way to ask for a timeout of 0, and gives fstat(2) the wrong callback.
 *
 * Source: fuse-native 2.2.6, fuse-native.c. Checked against that version, so no other one is taken.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { OperatingError } from "../../../dlmd/base/error.ts";

const PACKAGE = "fuse-native";
export const PACKAGE_VERSION = "2.2.6";

/** The memory of one thread of libfuse: fuse_thread_locals_t. It names the call that is to be answered. */
export type ThreadLocals = Buffer;
/** A callback: what it is given besides the first two depends on the operation. */
export type Handler = (locals: ThreadLocals, opcode: number, ...words: never[]) => void;
/** Ends a callback. `result`: as an operation of libfuse returns it. */
export type Signal = (locals: ThreadLocals, result: number, ...words: unknown[]) => void;

/** Besides these, `op_NAME` and `fuse_native_signal_NAME` of each operation. */
export interface FuseNativeBinding {
  readonly sizeof_fuse_thread_t: number;
  fuse_native_mount(
    mountpoint: string,
    options: string,
    thread: Buffer,
    self: object,
    malloc: (bytes: number) => Buffer,
    handlers: readonly Handler[],
    implemented: Uint32Array,
  ): void;
  readonly [name: string]: unknown;
}

/** Rows of its table of handlers. */
export const HANDLERS = 35;

export function opcodeOf(binding: FuseNativeBinding, name: string): number {
  return binding[`op_${name}`] as number;
}

export function signalOf(binding: FuseNativeBinding, name: string): Signal {
  return binding[`fuse_native_signal_${name}`] as Signal;
}

function notThere(message: string, cause?: unknown): OperatingError {
  return new OperatingError(message, {
    code: "no-fuse-native",
    hint: `Run, in the folder of coverlay: npm install --no-save ${PACKAGE}@${PACKAGE_VERSION}; and install libfuse2.`,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Throws OperatingError "no-fuse-native". */
export function loadFuseNative(from: string = import.meta.url): FuseNativeBinding {
  const fromHere = createRequire(from);
  let manifest: string;
  try {
    manifest = fromHere.resolve(`${PACKAGE}/package.json`);
  } catch (error) {
    throw notThere(`transport=fuse-native needs the package ${PACKAGE}, which is not installed`, error);
  }
  const { version } = JSON.parse(readFileSync(manifest, "utf8")) as { version: string };
  if (version !== PACKAGE_VERSION) throw notThere(`${PACKAGE} ${PACKAGE_VERSION} expected, found ${version}`);
  try {
    const load = createRequire(manifest)("node-gyp-build") as (folder: string) => FuseNativeBinding;
    return load(path.dirname(manifest));
  } catch (error) {
    throw notThere(`the package ${PACKAGE} does not load: ${error instanceof Error ? error.message : String(error)}`, error);
  }
}
