/**
 * Nobody writes to the disk who has been declared dead: an owner that is cut off from the others, keeps its file system mounted and writes on. The disk below
 * the lab sees each write, and by whose path it came.
 */
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, expect, it } from "vitest";
import { labFiles } from "../../overlay/lab/layout.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import type { DeviceWrites, DiskAnswer } from "../chaos/volatile-disk.ts";
import { startVolatileDisk, type VolatileDisk } from "../chaos/disk-client.ts";
import { type Actor, endActors, startActor, until, untilWaiting } from "./actor.ts";
import { logOf, type TestLab, withLab } from "./lab.ts";
import { hasSuperblock, lowerDirectory } from "./owner-lower.ts";

const DISK_BYTES = 128 * 2 ** 20;
/** The lab's agent looks for 20 s whether the device can be detached. */
const GOES_ON_MS = 90_000;
/** So many more, and it is sure that it goes on. */
const MORE = 20;

/**
 * Writes over a block of a file again and again, by the device and past all caches, as a host does that lives. And it keeps the file system mounted, so
 * that its node cannot let go of the disk by itself. The descriptor stays open: the loop device cannot become another one meanwhile.
 */
const WRITER = `
root = os.open(lower, os.O_RDONLY)
file = os.open("late", os.O_RDONLY, dir_fd=root)
block = struct.unpack("i", fcntl.ioctl(file, 1, struct.pack("i", 0)))[0]  # FIBMAP
os.close(file)
block_bytes = os.fstatvfs(root).f_bsize
fd = os.open(device, os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, block_bytes)
written, refused = 0, []
def writes():
    global written
    while True:
        page[0:8] = struct.pack("<q", written + 1)
        try:
            os.pwrite(fd, page, block * block_bytes)
            written += 1
        except OSError as error: refused.append(errno.errorcode.get(error.errno))
        time.sleep(0.001)
assert block > 0
threading.Thread(target=writes, daemon=True).start()
`;

const disks: { readonly dir: string; readonly disk: VolatileDisk }[] = [];
afterEach(async () => {
  endActors();
  for (const { dir, disk } of disks.splice(0)) {
    await disk.end();
    rmSync(dir, { recursive: true });
  }
});

async function volatileDisk(): Promise<VolatileDisk> {
  const dir = realpathSync(mkdtempSync(path.join(os.tmpdir(), "coverlay-test-volatile-")));
  const disk = await startVolatileDisk(dir, DISK_BYTES);
  disks.push({ dir, disk });
  return disk;
}

interface Writing {
  readonly owner: number;
  readonly others: readonly number[];
  readonly devices: ReadonlyMap<number, string>;
  /** The owner's device. */
  readonly device: string;
  readonly writer: Actor;
  readonly written: () => Promise<number>;
  readonly writesOn: () => Promise<void>;
}

async function startWriter(lab: TestLab): Promise<Writing> {
  const owner = await lab.owner();
  const others = [1, 2, 3].filter((nodeid) => nodeid !== owner);
  const devices = new Map((await lab.status()).map(({ nodeid, device }) => [nodeid, device ?? ""]));
  const device = devices.get(owner) ?? "";
  const own = startActor({ cwd: lab.node(owner).mount });
  await own.run(`put("late", "." * 4096); put("kept", "synced")
for name in ("late", "kept", "."): os.fsync(os.open(name, os.O_RDONLY))`);
  const writer = startActor({ cwd: "/" });
  const { overlayPid } = (await lab.status()).find(({ nodeid }) => nodeid === owner) ?? {};
  await writer.run(WRITER, { lower: lowerDirectory(overlayPid ?? 0, device), device });
  const written = (): Promise<number> => writer.run<number>(`result = written`);
  const writesOn = async (): Promise<void> => {
    const then = await written();
    await until("the old owner writes on", async () => (await written()) > then + MORE);
  };
  return { owner, others, devices, device, writer, written, writesOn };
}

/** Gives what came to the disk from the old owner: when the others had gone on, and when all was over. */
async function fencedWhileItWrites(lab: TestLab, disk: VolatileDisk): Promise<(DeviceWrites | undefined)[]> {
  const { owner, others, devices, device, writer, written, writesOn } = await startWriter(lab);
  const figures = (): Promise<DiskAnswer> => disk.command({ do: "figures" });
  await lab.lab("partition", `node${owner}`);
  await writesOn();
  // It is by these that the next owner is seen to begin.
  const before = await figures();
  for (const nodeid of others) expect(before.writesBy[devices.get(nodeid) ?? ""]).toBeUndefined();

  const programs = others.map((nodeid) => startActor({ cwd: lab.node(nodeid).mount }));
  const goOn = `put(name, "anew"); os.fsync(os.open(name, os.O_RDONLY)); result = get("kept")`;
  const went = programs.map((program, at) => program.run<string>(goOn, { name: `of-${at}` }, GOES_ON_MS));
  expect(await Promise.all(went)).toEqual(["synced", "synced"]);
  const next = await lab.owner();
  expect(others).toContain(next);
  expect(logOf(lab, next)).toMatch(/lower mounted epoch=2 .*proof=fenced/);
  const { writesBy } = await figures();
  const [old, first] = [writesBy[device], writesBy[devices.get(next) ?? ""]?.first ?? 0];
  expect(old?.writes).toBeGreaterThan(before.writesBy[device]?.writes ?? 0);
  expect(old?.last).toBeLessThan(first);

  // It lives, and still tries to; and then its kernel unmounts.
  const refusals = (): Promise<string[]> => writer.run<string[]>(`result = refused`);
  const then = (await refusals()).length;
  await until("the old owner tries on", async () => (await refusals()).length > then + MORE);
  const last = await written();
  const seen = await programs[0]?.run<number>(`result = struct.unpack("<q", get("late").encode("latin1")[0:8])[0]`);
  // One that was under way may have come to the disk without an answer.
  expect([last, last + 1]).toContain(seen);
  endActors();
  await until("its kernel has unmounted", () => !hasSuperblock("ext4", device));
  return [old, (await figures()).writesBy[device]];
}

it("an owner that is fenced while it writes: none of its writes comes to the disk after the first one of the next owner", async () => {
  const disk = await volatileDisk();
  // The writer has the device open, and the lab could not be taken down.
  const [then, now] = await withLab({ nodes: 3, image: disk.image }, (lab) => fencedWhileItWrites(lab, disk).finally(endActors));
  expect(now).toEqual(then);
});

/** It says that all is done, and does nothing; the rest is as in the lab's agent, a shell script. */
const LIES = `
case "$*" in *metadata*) ;; *)
  case "$(cat)" in *action=status*) echo "Status: OFF"; exit 2 ;; *action=off*) echo "Success: Powered OFF"; exit 0 ;; esac
  exit 1 ;;
esac
`;

it("a fence that lies: the old owner writes on, so no other node mounts its disk, and it is said which node and which device", async () => {
  const disk = await volatileDisk();
  await withLab({ nodes: 3, image: disk.image }, async (lab) => {
    try {
      const { owner, others, devices, device, writesOn } = await startWriter(lab);
      const { fenceAgent } = labFiles(lab.dir);
      writeFileSync(fenceAgent, readFileSync(fenceAgent, "utf8").replace("\n", LIES));
      await lab.lab("partition", `node${owner}`);
      const program = startActor({ cwd: lab.node(others[0] ?? 0).mount });
      // Never answered: it ends with the test.
      program.run(`put("anew", "anew")`).catch(() => undefined);
      const lied = new RegExp(
        `the fence of node${owner} \\(.*power-node${owner}.*\\) lied: ${device} of \\S+ was written after it, so nothing is mounted`,
      );
      const whys = async (): Promise<string[]> =>
        Promise.all(others.map(async (nodeid) => String((await queryOverlayStatus(lab.node(nodeid).runDir))["why"])));
      await until(
        "a node says that the fence lied",
        async () => (await whys()).some((why) => lied.test(why)),
        () => others.map((nodeid) => logOf(lab, nodeid)).join(""),
      );
      await writesOn();
      await untilWaiting(program);
      const { writesBy } = await disk.command({ do: "figures" });
      for (const nodeid of others) expect(writesBy[devices.get(nodeid) ?? ""]).toBeUndefined();
      for (const nodeid of others) expect(logOf(lab, nodeid)).not.toMatch(/lower mounted/);
    } finally {
      endActors();
    }
  });
});
