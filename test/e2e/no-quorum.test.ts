/**
 * From outside, with mount(8) and signals: which mounts are refused and what is said then, and how a mount that has lost its owner and the
 * quorum ends when it is told to.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { enableVolume } from "../../overlay/cli/volume.ts";
import { type Actor, endActors, startActor, until, untilWaiting } from "./actor.ts";
import { coverlayProgram, startLab, type TestLab, whyNotQuorate } from "./lab.ts";
import { type OwnSbin, ownSbin } from "./own-sbin.ts";
import { withDisk } from "./volume/disk.ts";

describe("a node that may not mount, or no longer work", () => {
  let lab: TestLab;
  let sbin: OwnSbin;
  let target: string;

  beforeAll(async () => {
    lab = await startLab({ nodes: 3, size: "256M" });
    target = mkdtempSync(path.join(os.tmpdir(), "coverlay-refusal-"));
    sbin = ownSbin({ node: process.execPath, program: coverlayProgram }, []);
  });
  afterAll(async () => {
    endActors();
    sbin?.end();
    if (target !== undefined) rmSync(target, { recursive: true });
    await lab?.end();
  });

  function mountClustered(device: string, nodeid: number): { status: number | null; stderr: string } {
    return sbin.run(`exec mount -t clustered ${device} ${target} -o runDir=${lab.node(nodeid).runDir}`);
  }

  const bit = { cluster: "another", volume: "shared", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };

  it("mount -t clustered of another cluster's device: 32, whose it is, where we are, and what to do", async () => {
    await withDisk("ext4", async (disk) => {
      await enableVolume(disk.device, bit);
      const { status, stderr } = mountClustered(disk.device, 1);
      expect(stderr).toMatch(/belongs to cluster another; this node is in cluster lab-\w+/);
      expect(stderr).toMatch(/Mount it on a node of another.*coverlay volume disable/s);
      expect(status).toBe(32);
    });
  });

  describe("after the two others have died", () => {
    let last: number;
    let idle: Actor;
    let waiter: Actor;

    beforeAll(async () => {
      const owner = await lab.owner();
      last = [1, 2, 3].find((nodeid) => nodeid !== owner) ?? 0;
      // Nobody could enter the mount later.
      [idle, waiter] = [startActor({ cwd: lab.node(last).mount }), startActor({ cwd: lab.node(last).mount })];
      for (const program of [idle, waiter]) await program.run("pass");
      for (const nodeid of [1, 2, 3]) if (nodeid !== last) await lab.kill(nodeid);
      await until("the quorum is lost", async () => (await lab.status()).find(({ nodeid }) => nodeid === last)?.view?.quorate === false);
    });

    it("mount -t clustered without quorum: 32, the votes, who is seen, and what to do", async () => {
      const device = (await lab.status()).find(({ nodeid }) => nodeid === last)?.device ?? "";
      const { status, stderr } = mountClustered(device, last);
      expect(stderr).toContain(`no quorum: ${whyNotQuorate(last)}; this node sees nodes`);
      expect(stderr).toMatch(/Start dlmd on more nodes, or mend the network.*coverlay nodes/s);
      expect(status).toBe(32);
    });

    it("SIGTERM: who waits gets an error, who does not wait but is there does not hold it up, and the overlay ends", async () => {
      const { mount } = lab.node(last);
      const overlayPid = lab.overlayPid(last);
      if (overlayPid === null) throw new Error(`node${last} has no overlay`);
      const waiting = waiter.run<string>(`result = code(os.mkdir, "new")`);
      await untilWaiting(waiter);
      process.kill(overlayPid, "SIGTERM");
      expect(await waiting).toBe("EIO");
      await until("the overlay has ended", () => {
        try {
          return readFileSync(`/proc/${overlayPid}/stat`, "utf8").split(") ")[1]?.startsWith("Z") === true;
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code === "ENOENT") return true;
          throw error;
        }
      });
      expect(await idle.run<string>(`result = code(os.listdir, ".")`)).toBe("ENOTCONN");
      expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(mount);
    });
  });
});
