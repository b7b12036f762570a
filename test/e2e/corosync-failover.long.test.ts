/** A cluster over corosync whose owner loses its power while all nodes make and sync files. */
import { afterEach, expect, it } from "vitest";
import { run } from "../../overlay/lab/command.ts";
import { labFiles } from "../../overlay/lab/layout.ts";
import { noCorosync } from "../compliance/corosync-cluster.ts";
import { endActors } from "./actor.ts";
import { logOf, withLab } from "./lab.ts";
import { SyncedLoad, wrongOf } from "./synced-load.ts";

const missing = noCorosync();

afterEach(() => endActors());

it("the owner's power goes under load: another node owns, what was synced is there on both, and the disk is clean", async ({ skip }) => {
  skip(missing !== null, missing ?? "");
  await withLab({ nodes: 3, size: "128M", engine: "corosync" }, async (lab) => {
    const owner = await lab.owner();
    const others = lab.nodes.map(({ nodeid }) => nodeid).filter((nodeid) => nodeid !== owner);
    const begin = (nodeid: number): Promise<SyncedLoad> => SyncedLoad.begin(lab, nodeid, `of-${nodeid}`);
    const [own, ...loads] = await Promise.all([owner, ...others].map(begin));
    await lab.kill(owner);
    const died = await own?.ended();
    const went = await Promise.all(loads.map((load) => load.goesOnAndEnds()));
    endActors();

    const next = await lab.owner();
    expect(others).toContain(next);
    expect(logOf(lab, next)).toMatch(/lower mounted epoch=2 .*proof=fenced/);
    const all = died === undefined ? went : [died, ...went];
    for (const nodeid of others) expect(await wrongOf(lab, nodeid, all)).toEqual([]);
    expect(died?.errors).toEqual([expect.stringMatching(/^(ENOTCONN|ECONNABORTED)$/)]);
    for (const { errors } of went) {
      // One call of each program was under way at most. ESTALE: a file that was made and not synced went with the owner.
      expect(errors.length).toBeLessThanOrEqual(1);
      expect(errors.filter((code) => !["EIO", "ESTALE"].includes(code))).toEqual([]);
    }

    await lab.stopAll(...others);
    expect(await run("e2fsck", ["-fn", labFiles(lab.dir).image])).toMatchObject({ status: 0 });
  });
});
