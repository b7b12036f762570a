/** H10: files that are open and have no name, seen by programs, while owners and openers come and go. */
import { readdirSync } from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { type Actor, endActors, startActor, until } from "./actor.ts";
import { hasSuperblock, lowerDirectory } from "./owner-lower.ts";
import { startLab, type TestLab } from "./lab.ts";

const MEBIBYTES = 16;
const BYTES: number = MEBIBYTES << 20;
/** A state of the lab. */
const STATE_TIMEOUT_MS = 60_000;

const fill = `
def fill(name):
    fd = os.open(name, os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"begin", 0)
    for at in range(${MEBIBYTES}): os.pwrite(fd, b"x" * (1 << 20), (at << 20) + 5)
    return fd
def linked(fd):
    return -1 == libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"again", 0x400) and errno.errorcode[ctypes.get_errno()]
def look(fd): return [os.pread(fd, 5, 0).decode(), os.fstat(fd).st_nlink, os.fstat(fd).st_size]
`;
const SEEN = ["begin", 0, BYTES + 5];

/** `deaths`: of openers and owners too, not only a clean hand-over. */
export function orphansSuite(lower: "ext4" | "xfs", deaths: boolean): void {
  describe(`${lower}: an open file without a name`, () => {
    let lab: TestLab;
    let owner = 0;
    let near = 0;
    let far = 0;

    const on = async (nodeid: number): Promise<Actor> => {
      const actor = startActor({ cwd: lab.node(nodeid).mount });
      await actor.run(fill);
      return actor;
    };
    /** What the hidden directory of the present owner has in it. */
    const hidden = async (): Promise<string[]> => {
      const { pid, device } = await queryOverlayStatus(lab.node(await lab.owner()).runDir);
      return readdirSync(path.join(lowerDirectory(pid, device), ".coverlay.orphans"));
    };
    async function untilHidden(count: number): Promise<void> {
      const { pid, device } = await queryOverlayStatus(lab.node(await lab.owner()).runDir);
      const directory = path.join(lowerDirectory(pid, device), ".coverlay.orphans");
      await until(
        `${count} files are kept`,
        () => readdirSync(directory).length === count,
        () => readdirSync(directory).join(" "),
      );
    }
    const free = (nodeid: number): Promise<number> =>
      startActor({ cwd: lab.node(nodeid).mount }).run<number>(`s = os.statvfs("."); result = s.f_bfree * s.f_frsize`);
    /** The space of the file is there again: XFS frees it a moment later. */
    async function untilFree(nodeid: number, before: number): Promise<void> {
      const looker = startActor({ cwd: lab.node(nodeid).mount });
      const wait = `
end = time.monotonic() + ${STATE_TIMEOUT_MS / 2000}
while (s := os.statvfs(".")).f_bfree * s.f_frsize < before - ${BYTES / 8}:
    if time.monotonic() > end: raise RuntimeError("the space does not come back: %d of %d" % (s.f_bfree * s.f_frsize, before))
    time.sleep(0.01)
`;
      await looker.run(wait, { before }, STATE_TIMEOUT_MS);
    }
    const findOwner = async (): Promise<void> => {
      owner = await lab.owner();
      [near, far] = [1, 2, 3].filter((other) => other !== owner) as [number, number];
    };

    beforeAll(async () => {
      lab = await startLab({ nodes: 3, lower });
    });
    afterEach(() => endActors());
    afterAll(async () => {
      await lab?.end();
    });

    it("goes on when the owner unmounts, on every node that has it open; its space comes back with the last close", async () => {
      await findOwner();
      const before = await free(near);
      const [opener, remover] = [await on(near), await on(far)];
      await opener.run(
        `fd = fill("unlinked"); replaced = fill("replaced"); put("mover", "mover"); os.mkdir("d"); d = os.open("d", os.O_RDONLY)`,
      );
      await remover.run(`fd = os.open("unlinked", os.O_RDWR); os.unlink("unlinked"); os.rename("mover", "replaced"); os.rmdir("d")`);
      expect(await opener.run(`result = [look(fd), look(replaced), os.fstat(d).st_nlink]`)).toEqual([SEEN, SEEN, 0]);
      expect(await hidden()).toHaveLength(3);
      await opener.run(`os.pwrite(fd, b"BEGIN", 0)`);

      await lab.stop(owner);
      expect([near, far]).toContain(await lab.owner());
      expect(await hidden()).toHaveLength(3);
      const after = `result = [look(fd), code(os.fsync, fd), linked(fd)]`;
      expect(await remover.run(after, {}, STATE_TIMEOUT_MS)).toEqual([["BEGIN", 0, BYTES + 5], "ok", "ENOENT"]);
      const use = `
os.pwrite(fd, b"again", 0); os.ftruncate(fd, 100); fcntl.lockf(fd, fcntl.LOCK_EX)
m = mmap.mmap(replaced, 4096); m[0:5] = b"mmaps"; m.flush(); m.close()
result = [look(fd), look(replaced), get("replaced"), code(os.fsync, fd), code(os.fsync, replaced), os.listdir("."), os.fstat(d).st_nlink, os.listdir(d), code(os.mkdir, "x", dir_fd=d)]`;
      expect(await opener.run(use, {}, STATE_TIMEOUT_MS)).toEqual([
        ["again", 0, 100],
        ["mmaps", 0, BYTES + 5],
        "mover",
        "ok",
        "ok",
        expect.not.arrayContaining([".coverlay.orphans"]),
        0,
        [],
        "ENOENT",
      ]);
      expect(await remover.run(`result = look(fd)`)).toEqual(["again", 0, 100]);
      await opener.run(`os.close(fd); os.close(d)`);
      await untilHidden(2);
      expect(await remover.run(`result = look(fd)`)).toEqual(["again", 0, 100]);
      await remover.run(`os.close(fd)`);
      await opener.run(`os.close(replaced)`);
      await untilHidden(0);
      await untilFree(near, before);
      await opener.run(`os.unlink("replaced")`);
      await lab.start(owner);
    });
    if (!deaths) return;

    it.each(["program", "overlay", "node"] as const)("its space comes back when the %s that has it open is killed", async (what) => {
      await findOwner();
      const before = await free(far);
      const [opener, remover] = [await on(near), await on(far)];
      await opener.run(`fd = fill("f")`);
      await remover.run(`os.unlink("f")`);
      expect(await hidden()).toHaveLength(1);
      if (what === "program") opener.signal("SIGKILL");
      else await lab.kill(near, what);
      await untilHidden(0);
      await untilFree(far, before);
      if (what !== "program") await lab.start(near);
    });

    it("goes on when the owner's overlay is killed; what its own programs alone had open ends", async () => {
      await findOwner();
      const before = await free(near);
      const [own, opener, other] = [await on(owner), await on(near), await on(far)];
      await own.run(`fd = fill("own")`);
      await opener.run(`fd = fill("f"); os.fsync(fd); closed = fill("closed")`);
      await other.run(`fd = os.open("f", os.O_RDWR); [os.unlink(name) for name in ("own", "f", "closed")]`);
      expect(await hidden()).toHaveLength(3);
      const { device } = await queryOverlayStatus(lab.node(owner).runDir);
      await lab.kill(owner, "overlay");
      await until("the device is free", () => !hasSuperblock(lower, device));
      expect(await opener.run(`result = look(fd)`, {}, STATE_TIMEOUT_MS)).toEqual(SEEN);
      expect([near, far]).toContain(await lab.owner());
      await untilHidden(2);
      expect(await opener.run(`os.pwrite(fd, b"again", 0); os.close(closed); result = [look(fd), code(os.fsync, fd)]`)).toEqual([
        ["again", 0, BYTES + 5],
        "ok",
      ]);
      await untilHidden(1);
      expect(await other.run(`result = look(fd)`)).toEqual(["again", 0, BYTES + 5]);
      await opener.run(`os.close(fd)`);
      expect(await hidden()).toHaveLength(1);
      await other.run(`os.close(fd)`);
      await untilHidden(0);
      await untilFree(near, before);
      await lab.start(owner);
    });

    it("its space comes back at the next mount when all die that had it open, and the owner with them", async () => {
      await findOwner();
      const before = await free(near);
      const [opener, remover] = [await on(near), await on(far)];
      await opener.run(`fd = fill("f")`);
      await remover.run(`fd = os.open("f", os.O_RDWR); os.unlink("f"); os.fsync(os.open(".", os.O_RDONLY))`);
      expect(await hidden()).toHaveLength(1);
      endActors();
      for (const nodeid of [1, 2, 3]) await lab.kill(nodeid);
      await lab.start(1, 2, 3);
      await untilHidden(0);
      await untilFree(near, before);
      expect(await (await on(near)).run(`result = os.path.exists("f")`)).toBe(false);
    });
  });
}
