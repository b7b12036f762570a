/**
 * A directory with many names, on two nodes: each name once in a listing, also while names go, and from a position in the middle; all of them
 * looked at; memory within a bound that goes with their number. COVERLAY_MANY_NAMES has that, and then figures are printed.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, it } from "vitest";
import { type TestLab, withLab } from "./lab.ts";

const NAMES = Number(process.env["COVERLAY_MANY_NAMES"] ?? 3000);
/** Each makes its part. */
const MAKERS = 4;
/** mkfs.ext4 makes an inode for each 16 KiB; the file is sparse. */
const IMAGE_MIB: number = 512 + Math.ceil((NAMES * 18) / 1024);
const STEP_MS: number = 60_000 + 3 * NAMES;
/** A removed one in so many. */
const REMOVED_EACH = 10;
/** Of what an overlay takes for each inode that its kernel knows, and for all that goes with it, at most; and with none. */
const BYTES_OF_A_NAME = 2500;
const OVERLAY_BYTES = 250 * 2 ** 20;

const helpers = `
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = libc.readdir64.restype = ctypes.c_void_p
for one in (libc.readdir64, libc.telldir, libc.closedir): one.argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
def name_of(entry): return ctypes.string_at(entry + 19).decode()
def names(at):
    while entry := libc.readdir64(at):
        name = name_of(entry)
        if name not in (".", ".."): yield name
def must_be(found, wanted, what):
    if len(found) != len(set(found)): sys.exit("%s: %d names are there twice" % (what, len(found) - len(set(found))))
    if set(found) != wanted: sys.exit("%s: %d names missing, %d too many" % (what, len(wanted - set(found)), len(set(found) - wanted)))
path, count, each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
every = {"f%07d" % n for n in range(count)}
gone = {"f%07d" % n for n in range(0, count, each)}
`;

const programs = {
  make: `
parts, part = int(sys.argv[4]), int(sys.argv[5])
for name in sorted(every)[part::parts]: os.close(os.open(path + "/" + name, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644))`,
  list: `must_be(os.listdir(path), every, "listing")`,
  stat: `
for name in sorted(every):
    if os.stat(path + "/" + name).st_nlink != 1: sys.exit(name + " has not one name")`,
  seek: `
at = libc.opendir(path.encode())
before, position = [], 0
for name in names(at):
    before.append(name)
    if len(before) == count // 2:
        position = libc.telldir(at)
        break
rest = list(names(at))
must_be(before + rest, every, "two halves")
libc.seekdir(at, position)
if list(names(at)) != rest: sys.exit("the second half is another one after seekdir")
libc.closedir(at)`,
  remove: `
for name in sorted(gone): os.unlink(path + "/" + name)`,
  listMeanwhile: `
found = os.listdir(path)
if len(found) != len(set(found)): sys.exit("names are there twice")
must_be([name for name in found if name not in gone], every - gone, "what stays")`,
  listRest: `must_be(os.listdir(path), every - gone, "what is left")`,
} as const;

async function python(step: keyof typeof programs, directory: string, ...more: readonly number[]): Promise<void> {
  const startedMs = performance.now();
  const args = ["-c", `${helpers}${programs[step]}`, directory, ...[NAMES, REMOVED_EACH, ...more].map(String)];
  const child = spawn("python3", args, { stdio: ["ignore", "inherit", "pipe"], timeout: STEP_MS, killSignal: "SIGKILL" });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const [status, signal] = (await once(child, "close")) as [number | null, string | null];
  note(`${step}: ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
  expect([step, status, signal, stderr]).toEqual([step, 0, null, ""]);
}

/** Figures for those who try a large number. */
const note = (line: string): void => void (process.env["COVERLAY_MANY_NAMES"] !== undefined && process.stdout.write(`${line}\n`));

function residentBytes(pid: number | null): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}

function noteMemory(lab: TestLab, when: string): number[] {
  const overlays = lab.nodes.map(({ nodeid }) => residentBytes(lab.overlayPid(nodeid)));
  const daemons = lab.nodes.map(({ nodeid }) => residentBytes(lab.dlmdPid(nodeid)));
  const inMib = (sizes: readonly number[]): string => sizes.map((bytes) => Math.round(bytes / 2 ** 20)).join(" and ");
  note(`${when}: overlays ${inMib(overlays)} MiB, dlmds ${inMib(daemons)} MiB`);
  return [...overlays, ...daemons];
}

it(`a directory of ${NAMES} names on two nodes`, { timeout: 10 * STEP_MS }, async () => {
  const dir = mkdtempSync(path.join(tmpdir(), "many-names-"));
  const image = path.join(dir, "image");
  try {
    closeSync(openSync(image, "w"));
    truncateSync(image, IMAGE_MIB * 2 ** 20);
    await withLab({ nodes: 2, image }, async (lab) => {
      const [one, other] = [`${lab.node(1).mount}/many`, `${lab.node(2).mount}/many`];
      noteMemory(lab, "before");
      await lab.mustExec(1, ["mkdir", one]);
      await Promise.all(Array.from({ length: MAKERS }, (_, part) => python("make", one, MAKERS, part)));
      await python("list", one);
      await python("list", other);
      await python("stat", other);
      await python("seek", one);
      await python("seek", other);
      noteMemory(lab, "all are known");
      await Promise.all([python("remove", one), python("listMeanwhile", other)]);
      await python("listRest", one);
      await python("listRest", other);
      const most = Math.max(...noteMemory(lab, "in the end"));
      expect(most).toBeLessThan(OVERLAY_BYTES + NAMES * BYTES_OF_A_NAME);
      const startedMs = performance.now();
      for (const nodeid of [2, 1]) await lab.unmount(nodeid);
      note(`both are unmounted: ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
    });
  } finally {
    rmSync(dir, { recursive: true });
  }
});
