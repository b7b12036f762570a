/**
 * The owner's node loses its power: the shortest case, for the tests that always run (failover.long.test.ts has the others). No step takes as long as
 * a tool of the file system is given (60 s), so one that hangs is noticed.
 */
import { afterEach, describe, expect, it } from "vitest";
import { endActors, startActor } from "./actor.ts";
import { PYTHON_LOCKS } from "./file-locks/python-locks.ts";
import { withLab } from "./lab.ts";
import { rolesOf, untilRole } from "./role.ts";

const LONG_MS = 45_000;

/** All that a program can hold in a volume: locks, open files, a working directory below the root, mappings. All of it is synced. */
const HOLDS = `
os.mkdir("below")
os.chdir("below")
for name in ("posix", "flock", "open", "stored", "shown"): put(name, "before" * 1000)
posix, flocked, opened, stored, shown = [os.open(name, os.O_RDWR) for name in ("posix", "flock", "open", "stored", "shown")]
writable, readable = mmap.mmap(stored, 6000), mmap.mmap(shown, 6000, prot=mmap.PROT_READ)
writable[0:6] = b"mapped"
writable.flush()
for fd in (posix, flocked, opened, stored, shown, os.open(".", os.O_RDONLY), os.open("..", os.O_RDONLY)): os.fsync(fd)
inode = os.stat(".").st_ino
result = [lock(posix, "posix", "write"), lock(flocked, "flock", "write"), os.pread(opened, 6, 0), readable[0:6]]
`;

/** The same program, when the volume has another owner. */
const STILL_HOLDS = `
os.pwrite(opened, b"after.", 0); os.fsync(opened)
writable[4096:4102] = b"stored"; writable.flush()
result = [os.pread(opened, 12, 0), writable[0:6], readable[0:6], os.stat("open").st_size, get("open")[0:6], os.stat(".").st_ino == inode, os.getcwd()]
`;

/** A program of another node asks for both locks, sees what was stored, and changes the file that the other one has mapped. */
const LOOKS = `
posix, flocked = [os.open("below/" + name, os.O_RDWR) for name in ("posix", "flock")]
tries = lambda: [lock(posix, "posix", "write"), lock(flocked, "flock", "write")]
stored = get("below/stored")
fd = os.open("below/shown", os.O_RDWR); os.pwrite(fd, b"behind", 0)
result = [tries(), stored[0:6], stored[4096:4102], get("below/open")[0:6]]
`;

afterEach(() => endActors());

describe.each(["ext4", "xfs"] as const)("%s", (lower) => {
  it("the owner's node loses power: what was synced is there, what others hold stays, calls that waited go on", async () => {
    await withLab({ nodes: 3, lower }, async (lab) => {
      const [owner, near, far] = await rolesOf(lab);
      const writer = startActor({ cwd: lab.node(near).mount });
      const keeper = startActor({ cwd: lab.node(near).mount });
      const reader = startActor({ cwd: lab.node(far).mount });
      await writer.run(`put("kept", "synced"); fd = os.open("kept", os.O_RDWR); os.fsync(fd); os.fsync(os.open(".", os.O_RDONLY))`);
      await reader.run(PYTHON_LOCKS);
      expect(await keeper.run(`${PYTHON_LOCKS}${HOLDS}`)).toEqual(["ok", "ok", "before", "before"]);
      // That one is known to the lock managers from here on, so they have to name it anew; the other one is kept by the overlay alone.
      expect(await reader.run(`fd = os.open("below/posix", os.O_RDWR); result = lock(fd, "posix", "write")`)).toBe("EAGAIN");
      await lab.kill(owner);
      // A change that was sent to the dead one, and not answered, would end with EIO (overlay/lower/README.md).
      await untilRole(lab, near, "waiting");
      const calls = `[code(os.pwrite, fd, b" and more", 6), code(os.fsync, fd), code(os.mkdir, "made")]`;
      expect(await writer.run(`result = ${calls}`, {}, LONG_MS)).toEqual(["ok", "ok", "ok"]);
      expect(await reader.run(`result = [get("kept"), code(os.rmdir, "made")]`, {}, LONG_MS)).toEqual(["synced and more", "ok"]);
      const next = await lab.owner();
      expect([near, far]).toContain(next);
      expect(await lab.lab("owner")).toBe(`node${next}\n`);

      const below = `${lab.node(near).mount}/below`;
      const kept = ["after.before", "mapped", "before", 6000, "after.", true, below];
      expect(await keeper.run(STILL_HOLDS, {}, LONG_MS)).toEqual(kept);
      expect(await reader.run(LOOKS)).toEqual([["EAGAIN", "EAGAIN"], "mapped", "stored", "after."]);
      const released = `result = [readable[0:6], lock(posix, "posix", "unlock"), lock(flocked, "flock", "unlock")]`;
      expect(await keeper.run(released)).toEqual(["behind", "ok", "ok"]);
      expect(await reader.run(`result = tries()`)).toEqual(["ok", "ok"]);
    });
  });
});
