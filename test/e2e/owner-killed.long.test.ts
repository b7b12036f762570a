/**
 * The owner's overlay is killed while calls of other nodes are under way in its file system, each of them seen there. Another node
 * goes on as soon as the device is free. Only a change that nobody can judge ends with EIO.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { type Actor, endActors, startActor, until, untilWaiting } from "./actor.ts";
import { HungDisk, noHang } from "./hung-disk.ts";
import { startLab, type TestLab } from "./lab.ts";
import { FROZEN, freeze, hasSuperblock, lowerDirectory, unfreeze, untilWaitingIn } from "./owner-lower.ts";

const AT_DISK = /folio_wait|io_schedule|wait_on_page|submit_bio_wait|wait_transaction_locked|log_wait_commit/;
const READ_BYTES = 1 << 20;

interface Owner {
  readonly nodeid: number;
  readonly pid: number;
  readonly device: string;
}

describe.each(["ext4", "xfs"] as const)("%s: an owner that is killed", (lower) => {
  let lab: TestLab;
  let owner: Owner;
  let near = 0;
  let far = 0;
  let frozen: string | null = null;
  let hung: HungDisk | null = null;

  const on = (nodeid: number): Actor => startActor({ cwd: lab.node(nodeid).mount });

  async function findOwner(): Promise<void> {
    const nodeid = await lab.owner();
    const { pid, device } = await queryOverlayStatus(lab.node(nodeid).runDir);
    owner = { nodeid, pid, device };
    [near, far] = [1, 2, 3].filter((other) => other !== nodeid) as [number, number];
  }

  /** Kills it, and lets go of what holds its calls. Says how long after its device is free the last of the answers came. */
  async function killed<T>(letGo: () => void | Promise<void>, answers: readonly Promise<T>[]): Promise<T[]> {
    process.kill(owner.pid, "SIGKILL");
    await letGo();
    await until("the device is free", () => !hasSuperblock(lower, owner.device));
    const free = performance.now();
    const all = await Promise.all(answers);
    const ms = performance.now() - free;
    process.stdout.write(`${lower}: after ${Math.round(ms)} ms: ${JSON.stringify(all)}\n`);
    expect([near, far]).toContain(await lab.owner());
    await lab.start(owner.nodeid);
    return all;
  }

  beforeAll(async () => {
    lab = await startLab({ nodes: 3, lower });
  });
  afterEach(async () => {
    endActors();
    if (frozen !== null) await unfreeze(frozen);
    frozen = null;
    hung?.end();
    hung = null;
  });
  afterAll(async () => {
    await lab?.end();
  });

  it("with known changes in its hands: what can be judged goes on, the rest ends with EIO, once", async () => {
    await findOwner();
    const [writer, appender, maker, reader, late] = [on(near), on(near), on(near), on(far), on(far)];
    await maker.run(`for name in ("a", "b", "c"): os.mkdir(name)`);
    // Through handles that did not make the files, so that the pool writes: several calls are in the owner's hands then.
    await writer.run(`put("written", "before"); fd = os.open("written", os.O_RDWR)`);
    await appender.run(`put("appended", "first "); fd = os.open("appended", os.O_RDWR | os.O_APPEND)`);
    // A name that is looked up during it would keep others from its directory.
    await late.run(`result = [os.stat(name).st_ino for name in ("b", "c")]`);

    const directory = lowerDirectory(owner.pid, owner.device);
    await freeze(directory);
    frozen = directory;
    const written = writer.run(`result = code(os.pwrite, fd, b"during", 0)`);
    const appended = appender.run(`result = code(os.write, fd, b"second")`);
    await untilWaitingIn(owner.pid, FROZEN, ["pwritev2", "pwritev2"]);
    const made = maker.run(`result = code(os.mkdir, "a/made")`);
    await untilWaitingIn(owner.pid, FROZEN, ["mkdirat", "pwritev2", "pwritev2"]);
    // The thread that serves stands still: what comes now is in the socket, and not in the owner's hands.
    const read = reader.run(`result = os.listdir("b")`);
    const unseen = late.run(`result = code(os.mkdir, "c/unseen")`);
    await untilWaiting(reader);
    await untilWaiting(late);
    const letGo = async (): Promise<void> => {
      await unfreeze(directory);
      frozen = null;
    };
    const answers = await killed(letGo, [written, appended, made, read, unseen]);
    // The frozen calls are made as soon as they are let go, by a process that is dead already.
    expect(answers).toEqual(["ok", "EIO", "EIO", [], "ok"]);
    // Once: the same files and programs go on without an error, and what was made is there once or not at all.
    expect(await writer.run(`result = [code(os.fsync, fd), get("written")]`)).toEqual(["ok", "during"]);
    expect(await maker.run(`result = [os.listdir("a"), os.listdir("c"), code(os.mkdir, "c/again")]`)).toEqual([["made"], ["unseen"], "ok"]);
    expect(await appender.run(`result = [code(os.write, fd, b"third"), code(os.fsync, fd)]`)).toEqual(["ok", "ok"]);
    expect(await reader.run(`result = get("appended")`)).toMatch(/^first (second)?third$/);
  });

  it("with a read and a sync that wait for its disk: both go on, and nothing is lost", async (ctx) => {
    ctx.skip(noHang() !== null, noHang() ?? "");
    await findOwner();
    const [reader, syncer, maker] = [on(near), on(near), on(far)];
    await maker.run(`put("cold", b"c" * ${READ_BYTES}); fd = os.open("cold", os.O_RDONLY); os.fsync(fd); os.close(fd); os.mkdir("e")`);
    await reader.run(`fd = os.open("cold", os.O_RDONLY); os.fstat(fd)`);
    await syncer.run(`fd = os.open("synced", os.O_RDWR | os.O_CREAT); os.pwrite(fd, b"x" * ${READ_BYTES}, 0)`);
    // Out of the owner's page cache, so that the read needs its disk.
    const cold = startActor({ cwd: "/" });
    await cold.run(`fd = os.open(directory + "/cold", os.O_RDONLY); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED); os.close(fd)`, {
      directory: lowerDirectory(owner.pid, owner.device),
    });
    hung = new HungDisk(owner.device);
    hung.hang(owner.pid);
    const read = reader.run(`result = os.pread(fd, 8192, 524288) == b"c" * 8192`);
    const synced = syncer.run(`result = code(os.fsync, fd)`);
    await untilWaitingIn(owner.pid, AT_DISK, ["preadv2", "fsync"]);
    const answers = await killed(() => hung?.letGo(), [read, synced]);
    expect(answers).toEqual([true, "ok"]);
    expect(await maker.run(`result = [get("synced") == "x" * ${READ_BYTES}, code(os.mkdir, "e/later")]`)).toEqual([true, "ok"]);
  });
});
