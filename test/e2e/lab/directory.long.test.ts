/** A volume that is a directory of node 1: the others go through it, wait while it is away, and a copy of it is none (hazard R20). */
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { expect, it } from "vitest";
import { queryOverlayStatus } from "../../../overlay/query/overlay-query.ts";
import { until } from "../actor.ts";
import { coverlay, coverlayProgram, withLab } from "../lab.ts";

it("is shared by three nodes, is one node's, and waits for it", () =>
  withLab({ nodes: 3, lower: "directory", size: "64M" }, async (lab) => {
    const at = (nodeid: number, name: string): string => `${lab.node(nodeid).mount}/${name}`;
    const lower = `${lab.dir}/lower`;
    for (const nodeid of [1, 2, 3]) {
      writeFileSync(at(nodeid, "file"), `by ${nodeid}`);
      for (const reader of [1, 2, 3]) expect(readFileSync(at(reader, "file"), "utf8")).toBe(`by ${nodeid}`);
    }
    await lab.mustExec(3, ["sh", "-c", `echo synced > ${at(3, "synced")} && sync ${at(3, "synced")}`]);
    expect(readFileSync(`${lower}/synced`, "utf8")).toBe("synced\n");

    for (const change of [["disable"], ["enable", "--cluster", "other"]]) {
      const { status, stderr } = await coverlay(["volume", ...change, lower]);
      expect([status, stderr]).toEqual([32, expect.stringMatching(/is mounted as a volume on this machine|belongs already to cluster/)]);
    }

    const copy = `${lab.dir}/copy`;
    execFileSync("cp", ["-a", lower, copy]);
    await lab.unmount(3);
    const mount = [process.execPath, coverlayProgram, "mount", copy, lab.node(3).mount, "-o", `runDir=${lab.node(3).runDir}`];
    const refused = await lab.exec(3, mount);
    expect([refused.status, refused.stderr]).toEqual([32, expect.stringContaining(`${copy} is a copy`)]);
    rmSync(copy, { recursive: true });

    await lab.kill(1);
    let ended = false;
    const written = lab.exec(2, ["sh", "-c", `echo later > ${at(2, "later")}`]).finally(() => {
      ended = true;
    });
    let why = "";
    const words = (): string => `${why} ${ended ? "(the write has ended)" : ""}`;
    const waits = async (): Promise<boolean> => {
      why = String((await queryOverlayStatus(lab.node(2).runDir))["why"]);
      return why !== "through node1" && why.includes("node1");
    };
    await until("node 2 waits for the owner", waits, words);
    expect([ended, why]).toEqual([false, expect.stringContaining("node1")]);
    await lab.start(1);
    expect((await written).status).toBe(0);
    expect(readFileSync(at(1, "later"), "utf8")).toBe("later\n");
  }));
