/** A lab whose node 2 is served by libfuse, beside our own transport on the others. */
import { OperatingError } from "../../dlmd/base/error.ts";
import { mountAt } from "../../dlmd/base/mount-table.ts";
import type { RunResult } from "../../overlay/lab/command.ts";
import { readMountRecord } from "../../overlay/volume/mount-record.ts";
import { loadFuseNative } from "../../overlay/session/fuse-native/binding.ts";
import type { TestLab } from "./lab.ts";
import { mountOn } from "./mount-again.ts";

/** The node whose transport is fuse-native. */
export const NATIVE_NODE = 2;

/** Why the tests are skipped; null: they are not. */
export function noFuseNative(): string | null {
  try {
    loadFuseNative();
    return null;
  } catch (error) {
    if (error instanceof OperatingError) return error.message;
    throw error;
  }
}

/** `coverlay mount` of that node. */
export function mountNative(lab: TestLab, device: string, options: string): Promise<RunResult> {
  return mountOn(lab.node(NATIVE_NODE), device, options);
}

/** Gives the device that is mounted. */
export async function useFuseNative(lab: TestLab): Promise<string> {
  const { mount } = lab.node(NATIVE_NODE);
  const device = readMountRecord(mountAt(mount)?.device ?? "")?.source ?? "";
  await lab.unmount(NATIVE_NODE);
  const mounted = await mountNative(lab, device, "localflocks,transport=fuse-native");
  if (mounted.status !== 0) throw new Error(`mount ${mount}: ${mounted.stderr}`);
  return device;
}
