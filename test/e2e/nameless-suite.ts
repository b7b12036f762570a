/** Hazard F30: O_TMPFILE, and linkat(2) of what it makes, by programs on all nodes of a lab, while openers and owners come and go. */
import { readdirSync } from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { type Actor, type ActorOptions, endActors, startActor, until } from "./actor.ts";
import { startLab, type TestLab } from "./lab.ts";
import { lowerDirectory } from "./owner-lower.ts";

/** A state of the lab. */
const STATE_TIMEOUT_MS = 60_000;

const nameless = `
def nameless(directory=".", flags=os.O_RDWR, mode=0o666): return os.open(directory, flags | os.O_TMPFILE, mode)
def linked(fd, name, empty_path=False):
    """"ok", or the error of linkat(2)."""
    done = libc.linkat(fd, b"", -100, name.encode(), 0x1000) if empty_path else libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, name.encode(), 0x400)
    return "ok" if done == 0 else errno.errorcode[ctypes.get_errno()]
def look(fd): return [os.pread(fd, 100, 0).decode(), os.fstat(fd).st_nlink]
def seen(name):
    try: return [get(name), os.stat(name).st_nlink]
    except FileNotFoundError: return None
`;

/** `deaths`: of openers and owners too, not only a clean hand-over. */
export function namelessSuite(lower: "ext4" | "xfs", deaths: boolean): void {
  describe(`${lower}: a file that is made without a name`, () => {
    let lab: TestLab;
    let owner = 0;
    let near = 0;
    let far = 0;

    const on = async (nodeid: number, who: Omit<ActorOptions, "cwd"> = {}): Promise<Actor> => {
      const actor = startActor({ ...who, cwd: lab.node(nodeid).mount });
      await actor.run(nameless);
      return actor;
    };
    const all = (): Promise<Actor[]> => Promise.all([owner, near, far].map((nodeid) => on(nodeid)));
    /** What the hidden directory of the present owner has in it. */
    async function untilHidden(count: number): Promise<void> {
      const { pid, device } = await queryOverlayStatus(lab.node(await lab.owner()).runDir);
      const directory = path.join(lowerDirectory(pid, device), ".coverlay.orphans");
      await until(
        `${count} files are kept`,
        () => readdirSync(directory).length === count,
        () => readdirSync(directory).join(" "),
      );
    }
    const findOwner = async (): Promise<void> => {
      owner = await lab.owner();
      [near, far] = [1, 2, 3].filter((other) => other !== owner) as [number, number];
    };

    beforeAll(async () => {
      lab = await startLab({ nodes: 3, lower });
      await findOwner();
    });
    afterEach(() => endActors());
    afterAll(async () => {
      await lab?.end();
    });

    it("is read and written on each node, has no link and is in no listing, and ends with its last close", async () => {
      for (const maker of await all()) {
        const [made, excl] = await maker.run<unknown[]>(`
fd = nameless(); os.write(fd, b"content"); fcntl.lockf(fd, fcntl.LOCK_EX); os.fsync(fd)
m = mmap.mmap(fd, 7); m[0:3] = b"CON"; m.flush(); m.close()
never = nameless(flags=os.O_WRONLY | os.O_EXCL)
again = os.open("/proc/self/fd/%d" % fd, os.O_RDONLY)
result = [look(fd), linked(never, "never")]`);
        expect([made, excl]).toEqual([["CONtent", 0], "ENOENT"]);
        await untilHidden(2);
        for (const other of await all()) expect(await other.run(`result = os.listdir(".")`)).toEqual(expect.not.arrayContaining(["never"]));
        await maker.run(`os.close(fd); os.close(never)`);
        await untilHidden(1);
        expect(await maker.run(`result = look(again)`)).toEqual(["CONtent", 0]);
        await maker.run(`os.close(again)`);
        await untilHidden(0);
      }
    });

    it("gets a name, which every node sees at once, and is a file as any other from then on", async () => {
      for (const [at, maker] of (await all()).entries()) {
        const name = `named${at}`;
        const others = await all();
        // They know that it is not there, and are told otherwise.
        for (const other of others) expect(await other.run(`result = seen(name)`, { name })).toBeNull();
        await maker.run(`put("taken", "x"); fd = nameless(); os.write(fd, b"content")`);
        expect(await maker.run(`result = [linked(fd, "taken"), look(fd), linked(fd, name), look(fd)]`, { name })).toEqual([
          "EEXIST",
          ["content", 0],
          "ok",
          ["content", 1],
        ]);
        await untilHidden(0);
        for (const other of others) expect(await other.run(`result = seen(name)`, { name })).toEqual(["content", 1]);
        expect(await maker.run(`result = linked(fd, name + "b", True)`, { name })).toBe("ok");
        // Beside the maker's page cache, on each node in turn.
        for (const [turn, other] of others.entries()) {
          const text = `turn ${turn}.`;
          await other.run(`w = os.open(name, os.O_RDWR); os.pwrite(w, text.encode(), 0); os.close(w)`, { name, text });
          expect(await maker.run(`result = look(fd)`)).toEqual([text, 2]);
          await maker.run(`os.pwrite(fd, b"content", 0)`);
          expect(await other.run(`result = seen(name)`, { name })).toEqual(["content", 2]);
        }
        await others[1]?.run(`os.unlink(name)`, { name });
        await others[2]?.run(`os.unlink(name + "b")`, { name });
        expect(await maker.run(`result = [look(fd), linked(fd, name)]`, { name })).toEqual([["content", 0], "ENOENT"]);
        await untilHidden(1);
        await maker.run(`os.close(fd)`);
        await untilHidden(0);
      }
    });

    it("is its caller's, as one with a name in that directory is", async () => {
      const [admin] = await all();
      await admin?.run(
        `os.mkdir("group"); os.chown("group", 0, 4242); os.chmod("group", 0o2770); os.mkdir("closed"); os.chmod("closed", 0o755)`,
      );
      for (const nodeid of [owner, near]) {
        const who = { uid: 1001, gid: 1001, groups: [4242], umask: 0o027 };
        const program = await on(nodeid, who);
        expect(
          await program.run(`
def like(fd): s = os.fstat(fd); return [s.st_mode, s.st_uid, s.st_gid]
fd = nameless("group"); named = os.open("group/named", os.O_CREAT | os.O_RDWR, 0o666); os.unlink("group/named")
result = [like(fd), like(fd) == like(named), linked(fd, "group/linked"), code(nameless, "closed")]`),
        ).toEqual([[0o100640, 1001, 4242], true, "ok", "EACCES"]);
        await admin?.run(`os.unlink("group/linked")`);
      }
    });

    it("of many programs that give theirs the same name, one succeeds each time, and its content is whole", async () => {
      const makers = await all();
      for (let round = 0; round < 20; round += 1) {
        const given = makers.map((maker, at) =>
          maker.run<string>(`fd = nameless(); os.write(fd, b"%d" % at * 5000); result = linked(fd, "race%d" % round); os.close(fd)`, {
            at,
            round,
          }),
        );
        const results = await Promise.all(given);
        expect(results.toSorted()).toEqual(["EEXIST", "EEXIST", "ok"]);
        const winner = results.indexOf("ok");
        for (const maker of makers) {
          expect(
            await maker.run(`result = get("race%d" % round) == "%d" % winner * 5000 and os.stat("race%d" % round).st_nlink`, {
              round,
              winner,
            }),
          ).toBe(1);
        }
      }
      await untilHidden(0);
    });

    it("goes on when the owner unmounts, and gets its name at the next one", async () => {
      const [maker, other] = [await on(near), await on(far)];
      await maker.run(
        `fd = nameless(); os.write(fd, b"content"); never = nameless(flags=os.O_RDWR | os.O_EXCL); os.write(never, b"never")`,
      );
      await lab.stop(owner);
      expect([near, far]).toContain(await lab.owner());
      const after = `result = [look(fd), look(never), linked(fd, "handed"), linked(never, "never"), code(os.fsync, fd), look(fd)]`;
      expect(await maker.run(after, {}, STATE_TIMEOUT_MS)).toEqual([["content", 0], ["never", 0], "ok", "ENOENT", "ok", ["content", 1]]);
      expect(await other.run(`result = [seen("handed"), seen("never")]`, {}, STATE_TIMEOUT_MS)).toEqual([["content", 1], null]);
      await untilHidden(1);
      await maker.run(`os.close(never); os.close(fd); os.unlink("handed")`);
      await untilHidden(0);
      await lab.start(owner);
      await findOwner();
    });
    if (!deaths) return;

    it.each(["program", "overlay", "node"] as const)("ends when the %s that has it open is killed", async (what) => {
      const maker = await on(near);
      expect(await maker.run(`fd = nameless(); os.write(fd, b"content"); os.fsync(fd); result = look(fd)`)).toEqual(["content", 0]);
      await untilHidden(1);
      if (what === "program") maker.signal("SIGKILL");
      else await lab.kill(near, what);
      await untilHidden(0);
      if (what !== "program") await lab.start(near);
      await findOwner();
    });

    it("when the owner's node dies: what was synced is there, nameless or by its name; a name that was not synced may be lost, and fsync says so", async () => {
      const [maker, other] = [await on(near), await on(far)];
      await maker.run(`
fds = [nameless() for _ in range(3)]
for fd in fds: os.write(fd, b"content"); os.fsync(fd)
assert linked(fds[0], "synced") == "ok"; os.fsync(fds[0])
assert linked(fds[1], "unsynced") == "ok"`);
      await lab.kill(owner);
      const [synced, unsynced, never] = await maker.run<[string, number][]>(`result = [look(fd) for fd in fds]`, {}, STATE_TIMEOUT_MS);
      expect([synced, never]).toEqual([
        ["content", 1],
        ["content", 0],
      ]);
      const named = await other.run<[string, number] | null>(`result = seen("unsynced")`, {}, STATE_TIMEOUT_MS);
      expect(unsynced).toEqual(["content", named === null ? 0 : 1]);
      expect(await maker.run(`result = [code(os.fsync, fd) for fd in fds]`)).toEqual(["ok", "EIO", "ok"]);
      expect(await other.run(`result = seen("synced")`)).toEqual(["content", 1]);
      expect(await maker.run(`result = linked(fds[2], "late")`)).toBe("ok");
      expect(await other.run(`result = seen("late")`)).toEqual(["content", 1]);
      await maker.run(`[os.close(fd) for fd in fds]`);
      await untilHidden(0);
      await lab.start(owner);
    });
  });
}
