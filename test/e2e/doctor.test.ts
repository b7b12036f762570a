/** `coverlay doctor` on the nodes of a lab: each failing state is made, seen to be there without doctor, and then told by name and port. */
import { chmodSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  atInput,
  beginDoctorLab,
  connect,
  deviceOf,
  doctor,
  dropped,
  endDoctorLab,
  lab,
  mendDoctorLab,
  ownFiles,
  untilWrong,
  wrong,
} from "./doctor-lab.ts";
import { run, withDisk } from "./volume/disk.ts";

beforeAll(beginDoctorLab);
afterEach(mendDoctorLab);
afterAll(endDoctorLab);

describe("a cluster that is well", () => {
  it("is well from each node, with the volume's device: exit status 0", async () => {
    for (const { nodeid } of lab.nodes) {
      const report = await untilWrong(nodeid, [], ["--device", deviceOf(nodeid)]);
      expect(report).toMatchObject({ node: `node${nodeid}`, status: 0 });
      const checks = new Set(report.findings.map(({ check }) => check));
      expect([...checks]).toEqual(
        expect.arrayContaining(["clock", "multicast", "same-disk", "fstab", "mounts", "port-udp", "config-same"]),
      );
    }
  });

  it("is not changed by a look: no line in a log, and nobody is refused", async () => {
    const lines = (): number[] => lab.nodes.map(({ runDir }) => readFileSync(path.join(runDir, "../dlmd.log"), "utf8").split("\n").length);
    const before = lines();
    await doctor(1);
    expect(lines()).toEqual(before);
  });
});

describe("what is not well", () => {
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
    const report = await untilWrong(1, ["warn multicast: group 239.192.77.1, udp 7700 and 7701"]);
    expect(dropped(3)).toBe(true);
    expect(report.findings[0]?.found).toContain("from node1 to node3, from node2 to node3");
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
