/**
 * The owner's node loses its power: the shortest case, for the tests that always run (failover.long.test.ts has the others). No step takes as long as
 * a tool of the file system is given (60 s), so one that hangs is noticed.
 */
import { afterEach, describe, expect, it } from "vitest";
import { endActors, startActor } from "./actor.ts";
import { withLab } from "./lab.ts";
import { untilRole } from "./role.ts";

const LONG_MS = 45_000;

afterEach(() => endActors());

describe.each(["ext4", "xfs"] as const)("%s", (lower) => {
  it("the owner's node loses power: what was synced is there, calls that waited go on with another node", async () => {
    await withLab({ nodes: 3, lower }, async (lab) => {
      const owner = await lab.owner();
      const [near, far] = [1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number];
      const writer = startActor({ cwd: lab.node(near).mount });
      const reader = startActor({ cwd: lab.node(far).mount });
      await writer.run(`put("kept", "synced"); fd = os.open("kept", os.O_RDWR); os.fsync(fd); os.fsync(os.open(".", os.O_RDONLY))`);
      await lab.kill(owner);
      // A change that was sent to the dead one, and not answered, would end with EIO (overlay/lower/README.md).
      await untilRole(lab, near, "waiting");
      const calls = `[code(os.pwrite, fd, b" and more", 6), code(os.fsync, fd), code(os.mkdir, "made")]`;
      expect(await writer.run(`result = ${calls}`, {}, LONG_MS)).toEqual(["ok", "ok", "ok"]);
      expect(await reader.run(`result = [get("kept"), code(os.rmdir, "made")]`, {}, LONG_MS)).toEqual(["synced and more", "ok"]);
      expect([near, far]).toContain(await lab.owner());
    });
  });
});
