/** How the trouble of a disk is seen: a read past every cache in its time, and the errors that the kernel counts. */
import { closeSync, openSync, chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { PROBE_LIMIT_MS } from "../../../overlay/lower/server/disk-fault.ts";
import { deviceNumber } from "../../../overlay/volume/device.ts";
import { pathIsWell } from "../../../overlay/volume/disk-probe.ts";
import { createKernelErrors, shutdown } from "../../../overlay/volume/kernel-errors.ts";
import { withoutDescriptors } from "../../without-descriptors.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-disk-"));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(dir, { recursive: true, force: true });
});

function command(script: string): string {
  const file = path.join(dir, "command");
  writeFileSync(file, `#!/bin/sh\n${script}\n`);
  chmodSync(file, 0o755);
  return file;
}

it("the path is well if a whole block comes", async () => {
  expect(await pathIsWell("/dev/x", PROBE_LIMIT_MS, command("head -c 4096 /dev/zero"))).toBe(true);
  // A device that was cut to nothing gives no bytes, and no error.
  expect(await pathIsWell("/dev/x", PROBE_LIMIT_MS, command("head -c 512 /dev/zero"))).toBe(false);
  expect(await pathIsWell("/dev/x", PROBE_LIMIT_MS, command("head -c 4096 /dev/zero; exit 1"))).toBe(false);
  expect(await pathIsWell("/dev/x", PROBE_LIMIT_MS, path.join(dir, "no such command"))).toBe(false);
  expect(await pathIsWell(path.join(dir, "no such device"))).toBe(false);
});

it("a disk that does not answer within the limit is not well", async () => {
  const timers = vi.spyOn(globalThis, "setTimeout");
  await pathIsWell(path.join(dir, "no such device"));
  expect(timers.mock.calls.map(([, delayMs]) => delayMs)).toContain(5000);
  timers.mockRestore();
  expect(await pathIsWell("/dev/x", 50, command("exec sleep 60"))).toBe(false);
});

it("where descriptors are all in use, or no process can be made, the path is not well: nothing is thrown, now or later", async () => {
  const timers = vi.spyOn(globalThis, "setTimeout");
  const cleared = vi.spyOn(globalThis, "clearTimeout");
  const { result, refusal } = withoutDescriptors(() => pathIsWell("/dev/zero", 54_321));
  expect([refusal, await result]).toEqual(["EMFILE", false]);
  const made = timers.mock.results[timers.mock.calls.findIndex(([, delayMs]) => delayMs === 54_321)]?.value as unknown;
  expect(made).toBeDefined();
  expect(cleared.mock.calls.flat()).toContain(made);
  // As each error that Node.js throws instead.
  expect(await pathIsWell("/dev/zero", PROBE_LIMIT_MS, "a command\0")).toBe(false);
});

it("an error that ext4 counts since it was mounted turned it read-only", () => {
  const sysfs = path.join(dir, "sys");
  const counted = path.join(sysfs, "fs/ext4/sdx");
  mkdirSync(counted, { recursive: true });
  mkdirSync(path.join(sysfs, "dev/block"), { recursive: true });
  mkdirSync(path.join(sysfs, "block/sdx"), { recursive: true });
  symlinkSync(path.join(sysfs, "block/sdx"), path.join(sysfs, "dev/block", deviceNumber("/dev/null")));
  writeFileSync(path.join(counted, "errors_count"), "3\n");
  const errors = createKernelErrors("ext4", "/dev/null", -1, sysfs);
  expect(errors.look()).toBeNull();
  writeFileSync(path.join(counted, "errors_count"), "4\n");
  writeFileSync(path.join(counted, "last_error_func"), "ext4_journal_check_start\n");
  const failed = { words: "the kernel has turned the file system read-only (ext4_journal_check_start)", isDamage: false };
  expect(errors.look()).toEqual(failed);
  // What ext4 counts later follows from the first error.
  rmSync(counted, { recursive: true });
  expect(errors.look()).toEqual(failed);
});

it.each(["4", "5"])("an error of ext4 with code %s is damage on the disk", (code) => {
  const sysfs = path.join(dir, `sys${code}`);
  const counted = path.join(sysfs, "fs/ext4/sdx");
  mkdirSync(counted, { recursive: true });
  mkdirSync(path.join(sysfs, "dev/block"), { recursive: true });
  mkdirSync(path.join(sysfs, "block/sdx"), { recursive: true });
  symlinkSync(path.join(sysfs, "block/sdx"), path.join(sysfs, "dev/block", deviceNumber("/dev/null")));
  writeFileSync(path.join(counted, "errors_count"), "0\n");
  const errors = createKernelErrors("ext4", "/dev/null", -1, sysfs);
  writeFileSync(path.join(counted, "errors_count"), "1\n");
  writeFileSync(path.join(counted, "last_error_func"), "__ext4_iget\n");
  writeFileSync(path.join(counted, "last_error_errcode"), `${code}\n`);
  expect(errors.look()).toMatchObject({ isDamage: true, words: expect.stringMatching(/damaged.*__ext4_iget.*fsck/) as string });
});

it("XFS that was shut down ends a stat of its root with EIO, and stays so; another error says nothing", () => {
  const root = openSync(dir, "r");
  expect(createKernelErrors("xfs", "/dev/null", root).look()).toBeNull();
  closeSync(root);
  let error: string | null = "EBADF";
  const errors = shutdown(() => {
    if (error !== null) throw Object.assign(new Error(error), { code: error });
  });
  expect(errors.look()).toBeNull();
  error = "EIO";
  const down = { words: "the kernel has shut the file system down", isDamage: false };
  expect(errors.look()).toEqual(down);
  error = null;
  expect(errors.look()).toEqual(down);
});
