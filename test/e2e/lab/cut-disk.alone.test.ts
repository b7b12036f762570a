/** Hazard R11: when the lab has cut a node off its disk, nothing that the node sent before, sends then or still holds comes to the image. */
import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { afterEach, expect, it } from "vitest";
import { cutLoop, joinLoop } from "../../../overlay/lab/disk.ts";
import { type Actor, endActors, startActor, until } from "../actor.ts";
import { HungDisk, noHang } from "../hung-disk.ts";
import { run, withDisk } from "../volume/disk.ts";

const ENDS_TIMEOUT_MS = 60_000;
const BLOCK = 4096;
/** Where a file has no largest size. */
const TMPFS = "/dev/shm";

let hung: HungDisk | null = null;
afterEach(() => {
  endActors();
  hung?.end();
  hung = null;
});

/** As much of the image as its device showed: on tmpfs a write that was held back lies far behind that. */
function contents(image: string, bytes: number): Buffer {
  const fd = openSync(image, "r");
  try {
    const found = Buffer.alloc(bytes);
    expect(readSync(fd, found, 0, bytes, 0)).toBe(bytes);
    return found;
  } finally {
    closeSync(fd);
  }
}

const digest = (image: string, bytes: number): string => createHash("sha256").update(contents(image, bytes)).digest("hex");

it("R11: a write that the kernel held back before the cut fails after it, and does not come to the image", async (ctx) => {
  ctx.skip(noHang() !== null, noHang() ?? "");
  await withDisk("none", async ({ device, image }) => {
    const bytes = statSync(image).size;
    const writer = startActor({ cwd: "/" });
    await writer.run(
      `fd = os.open(device, os.O_WRONLY | os.O_DIRECT); block = mmap.mmap(-1, ${BLOCK}); block[:] = b"held back " * 409 + b"......"`,
      {
        device,
      },
    );
    hung = new HungDisk(device);
    hung.hang(writer.pid);
    const wrote = writer.run<string>(`result = code(os.pwrite, fd, block, ${BLOCK})`, {}, ENDS_TIMEOUT_MS);
    // Compared with the size of the device already, and not sent to it.
    await until("the write is held back", () => /blkdev_direct|__blkdev|bio_wait|submit_bio_wait/.test(stackOf(writer.pid)));
    await cutLoop(device);
    hung.letGo();
    // "ok" on tmpfs, where no file is too long.
    expect(["ok", "EIO"]).toContain(await wrote);
    expect(contents(image, bytes).includes("held back")).toBe(false);
    expect(await writer.run(`result = code(os.pwrite, fd, block, ${BLOCK})`)).toMatch(/EIO|ENOSPC/);
    // And the path that is given back is whole.
    joinLoop(device, bytes);
    expect(await writer.run(`result = code(os.pwrite, fd, block, ${BLOCK})`)).toBe("ok");
    expect(contents(image, bytes).indexOf("held back")).toBe(BLOCK);
  });
});

const NUMBERS = `
fd = os.open(device, os.O_RDWR | os.O_DIRECT | os.O_DSYNC)
def works(place):
    block = mmap.mmap(-1, 4096)
    try:
        for number in range(1, 10**9):
            block[0:8] = number.to_bytes(8, "little")
            os.pwrite(fd, block, 4096 * place)
            answered[place] = number
    except OSError as error: errors.append(error.errno)
answered, errors = [0] * 8, []
threads = [threading.Thread(target=works, args=(place,)) for place in range(1, 8)]
for thread in threads: thread.start()
while min(answered[1:]) < 20: time.sleep(0.001)
`;

it("R11: a write that was answered is on the image, also if it came while the path was being cut", async () => {
  for (let round = 0; round < 4; round++) {
    await withDisk(
      "none",
      async ({ device, image }) => {
        const bytes = statSync(image).size;
        const writer = startActor({ cwd: "/" });
        await writer.run(NUMBERS, { device }, ENDS_TIMEOUT_MS);
        await cutLoop(device);
        const answered = await writer.run<number[]>(`[thread.join() for thread in threads]; result = answered`, {}, ENDS_TIMEOUT_MS);
        const found = contents(image, bytes);
        const lost = answered.map((number, place) => number - Number(found.readBigUInt64LE(4096 * place))).filter((many) => many > 0);
        expect([lost, statSync(image).size]).toEqual([[], bytes]);
        writer.signal("SIGKILL");
        await writer.ended;
      },
      TMPFS,
    );
  }
});

const WRITES = `
def works(number):
    fd = os.open(f"{place}/f{number}", os.O_CREAT | os.O_RDWR | (os.O_DIRECT if number % 2 else 0))
    block = mmap.mmap(-1, 65536); block[:] = bytes([65 + number]) * 65536
    try:
        for turn in range(10**9):
            os.pwrite(fd, block, turn % 16 * 65536)
            if number % 4 == 0 and turn % 8 == 0: os.fsync(fd)
            counts[number] += 1
            if number % 4 == 2 and turn > 10**4: return
    except OSError as error: errors.append(error.errno)
counts, errors = [0] * 8, []
threads = [threading.Thread(target=works, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
while min(counts) < 20: time.sleep(0.001)
`;

it("R11: with eight writers in a file system the image stays, byte for byte, as it was when the cut was done", async () => {
  await withDisk("ext4", async ({ device, image, mountPoint: place }) => {
    const bytes = statSync(image).size;
    run("mount", device, place);
    const writer: Actor = startActor({ cwd: "/" });
    await writer.run(WRITES, { place }, ENDS_TIMEOUT_MS);
    await cutLoop(device);
    const then = digest(image, bytes);
    const errors = await writer.run<number[]>(`[thread.join() for thread in threads]; result = errors`, {}, ENDS_TIMEOUT_MS);
    expect(errors.length).toBeGreaterThan(0);
    expect(digest(image, bytes)).toBe(then);
    writer.signal("SIGKILL");
    await writer.ended;
    // What its kernel has in memory goes nowhere either.
    run("umount", place);
    expect(digest(image, bytes)).toBe(then);
  });
});

function stackOf(pid: number): string {
  return readFileSync(`/proc/${pid}/stack`, "latin1");
}
