/** `coverlay doctor` on the nodes of a lab: each failing state is made, seen to be there without doctor, and then told by name and port. */
import { chmodSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { until } from "./actor.ts";
import {
  atInput,
  beginDoctorLab,
  connect,
  deviceOf,
  doctor,
  doctorOfAll,
  dropped,
  endDoctorLab,
  lab,
  mendDoctorLab,
  ownFiles,
  untilWrong,
  wrong,
  wrongElsewhere,
} from "./doctor-lab.ts";
import { run, withDisk } from "./volume/disk.ts";

beforeAll(beginDoctorLab);
afterEach(mendDoctorLab);
afterAll(endDoctorLab);

describe("a cluster that is well", () => {
  it("is well on all nodes as node 1 asks them: each has looked at its own device, and no log has a line of it", async () => {
    await untilWrong(1, []);
    const lines = (): number[] => lab.nodes.map(({ runDir }) => readFileSync(path.join(runDir, "../dlmd.log"), "utf8").split("\n").length);
    const before = lines();
    const report = await doctorOfAll(1, ["--device", deviceOf(1)]);
    expect(lines()).toEqual(before);
    expect([wrong(report), report.node, report.status]).toEqual([[], "node1", 0]);
    const elsewhere = report.findings.filter(({ node }) => node !== "node1").map(({ node, check, about }) => `${node} ${check} ${about}`);
    for (const node of ["node2", "node3"]) {
      const device = deviceOf(Number(node.slice(-1)));
      expect(elsewhere).toEqual(
        expect.arrayContaining([`${node} same-disk ${device}`, `${node} kernel this machine`, `${node} fuse /dev/fuse`]),
      );
    }
    expect(report.findings.filter(({ check, status }) => check === "doctor" && status === "ok")).toHaveLength(2);
  });
});

describe("what is not well", () => {
  it("on node 3 alone is told on node 1, with the node; a doctor of node 1 alone does not know it", async () => {
    const pid = readFileSync(path.join(lab.node(3).runDir, "dlmd.pid"), "utf8").trim();
    // It stays so: to raise it again a container may lack the right.
    run("prlimit", "--pid", pid, "--nofile=2048:2048");
    expect(readFileSync(`/proc/${pid}/limits`, "latin1")).toMatch(/^Max open files +2048 +2048 /m);
    const report = await doctorOfAll(1);
    expect(wrongElsewhere(report)).toEqual(["node3: warn memory: open files (RLIMIT_NOFILE)"]);
    expect(report.status).toBeGreaterThanOrEqual(1);
    expect(wrong(await doctor(1))).not.toContain("warn memory: open files (RLIMIT_NOFILE)");
  });

  it("TCP that a firewall drops, of a machine that is there, is told by number and name", async () => {
    atInput(2, "tcp dport 7701 tcp flags & (syn | ack) == syn");
    expect((await connect(1, 2)).stdout).toBe("silent\n");
    const report = await doctor(1);
    expect(wrong(report)).toContain("fail port-tcp: tcp 7701 of node2 (10.209.77.2)");
    expect(report.findings[0]?.found).toContain("a firewall drops TCP");
    expect(report.status).toBe(2);
  });

  it("multicast that is dropped is a warning, with the directions; unicast goes on", async () => {
    atInput(3, "ip daddr 239.192.77.1");
    const silent = ["warn multicast: group 239.192.77.1, udp 7700 and 7701"];
    let report = await untilWrong(1, silent);
    expect(dropped(3)).toBe(true);
    // Each direction counts as silent by its own last word.
    await until("both directions are told", async () => {
      const told = String(report.findings[0]?.found).includes("from node1 to node3, from node2 to node3");
      if (!told) report = await doctor(1);
      return told;
    });
    expect(wrong(report)).toEqual(silent);
    expect(report.status).toBe(1);
  });

  it("a key with mode 0644 is a failure", async () => {
    const { config, key } = ownFiles("mode");
    chmodSync(key, 0o644);
    expect(statSync(key).mode & 0o777).toBe(0o644);
    const report = await doctor(1, [], config);
    expect(wrong(report)).toContain(`fail key: ${key}`);
    expect(report.findings.find(({ check }) => check === "key")?.found).toContain("mode 0644");
  });

  it("ext4 with fast_commit, and without a bit, is a failure with the command against it", () =>
    withDisk("none", async ({ device }) => {
      run("mkfs.ext4", "-q", "-O", "fast_commit", device);
      expect(run("dumpe2fs", "-h", device)).toContain("fast_commit");
      const report = await doctor(1, ["--device", device]);
      expect(wrong(report)).toEqual([`fail file-system: ${device}`, `fail bit: ${device}`]);
      expect(report.findings[0]?.action).toContain(`tune2fs -O ^fast_commit ${device}`);
    }));
});
