/** More states that `coverlay doctor` tells of, each made and seen to be there: doctor.test.ts has some. */
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, closeSync, constants, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { labFiles } from "../../overlay/lab/layout.ts";
import { until } from "./actor.ts";
import {
  atInput,
  beginDoctorLab,
  connect,
  deviceOf,
  dir,
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
import { coverlayProgram } from "./lab.ts";
import { goOn, stopDlmd } from "./stopped-dlmd.ts";
import { attachLoop, run, withDisk } from "./volume/disk.ts";

/** Of a clock that differs. */
const SHIFT_MS = 5000;

beforeAll(beginDoctorLab);
afterEach(mendDoctorLab);
afterAll(endDoctorLab);

/** Of that node: its dlmd has started it. */
const checksOf = (nodeid: number): number[] =>
  readdirSync("/proc").flatMap((pid) => {
    try {
      const found = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return found.includes("--asked") && found.includes(lab.node(nodeid).runDir) && found[0] === process.execPath ? [Number(pid)] : [];
    } catch {
      return [];
    }
  });

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
});

describe("files and clocks", () => {
  it("another key is a failure at each node", async () => {
    const { config, key } = ownFiles("key");
    rmSync(key);
    run(process.execPath, coverlayProgram, "keygen", key);
    expect(readFileSync(key)).not.toEqual(readFileSync(labFiles(lab.dir).key));
    expect(wrong(await doctor(1, [], config))).toEqual(
      expect.arrayContaining(["fail key-same: node2 (10.209.77.2)", "fail key-same: node3 (10.209.77.3)"]),
    );
  });

  it("another configuration is a failure, and so is one with a mistake, or that others can write", async () => {
    const { config } = ownFiles("config");
    writeFileSync(config, `${readFileSync(config, "utf8")}fencePriorityDelayMs: 1000\n`);
    expect(wrong(await doctor(1, [], config)).filter((line) => line.includes("config-same"))).toHaveLength(3);
    chmodSync(config, 0o666);
    expect(wrong(await doctor(1, [], config))).toContain(`fail config: ${config}`);
    writeFileSync(config, "cluster: [\n");
    expect(wrong(await doctor(1, [], config))).toEqual([`fail config: ${config}`]);
  });

  it("a clock that differs is a warning, for each node", async () => {
    const shift = path.join(dir, "clock.cjs");
    writeFileSync(shift, `const now = Date.now; Date.now = () => now() + ${SHIFT_MS};\n`);
    const env = [`NODE_OPTIONS=--require=${shift}`];
    const before = Date.now();
    const shown = await lab.exec(1, ["env", ...env, process.execPath, "-p", "Date.now()"]);
    expect(Number(shown.stdout) - before).toBeGreaterThanOrEqual(SHIFT_MS);
    const report = await doctor(1, [], undefined, env);
    expect(wrong(report)).toEqual(["warn clock: node2 (10.209.77.2)", "warn clock: node3 (10.209.77.3)"]);
    for (const { found } of report.findings.filter(({ check, status }) => check === "clock" && status === "warn")) {
      const [, offsetMs, doubtMs] = /^(\d+) ms behind, give or take (\d+) ms$/.exec(found) ?? [];
      // Both clocks tell whole milliseconds.
      expect(Math.abs(Number(offsetMs) - SHIFT_MS)).toBeLessThanOrEqual(Number(doubtMs) + 2);
    }
  });
});

describe("a port", () => {
  it("TCP that is refused is told from that", async () => {
    atInput(2, "tcp dport 7701 tcp flags & (syn | ack) == syn", "reject with tcp reset");
    expect((await connect(1, 2)).stdout).toBe("ECONNREFUSED\n");
    const report = await doctor(1);
    expect(wrong(report)).toContain("fail port-tcp: tcp 7701 of node2 (10.209.77.2)");
    expect(report.findings[0]?.found).toContain("connection refused");
  });
});

describe("a device", () => {
  it("a copy of the disk below another path is told by MMP, while the disk itself is well", async () => {
    const copy = path.join(dir, "copy");
    run("cp", "--sparse=always", labFiles(lab.dir).image, copy);
    const loop = attachLoop(copy);
    try {
      const uuid = (device: string): string => run("tune2fs", "-l", device).match(/UUID: +(\S+)/)?.[1] ?? "";
      expect(uuid(loop)).toBe(uuid(deviceOf(2)));
      const nodeid = (await lab.owner()) === 2 ? 3 : 2;
      const report = await doctor(nodeid, ["--device", loop, "--device", deviceOf(nodeid)]);
      expect(wrong(report)).toEqual([`fail same-disk: ${loop}`]);
      expect(report.findings[0]?.found).toContain("a copy");
    } finally {
      run("losetup", "--detach", loop);
    }
  });

  it("lines of an fstab and a mount unit that would mount it plainly are told; a clustered one is not", async () => {
    const device = deviceOf(1);
    const [, uuid] = /UUID: +(\S+)/.exec(run("tune2fs", "-l", device)) ?? [];
    const fstab = path.join(dir, "fstab");
    const of = async (line: string): Promise<string[]> => {
      writeFileSync(fstab, line);
      return wrong(await doctor(1, ["--device", device, "--fstab", fstab, "--root", dir]));
    };
    const units = path.join(dir, "etc/systemd/system");
    expect(await of(`${device} /shared clustered rw,_netdev 0 0\n`)).toEqual([]);
    expect(await of(`UUID=${uuid} /mnt ext4 defaults 0 2\n`)).toEqual([`fail fstab: ${device}`]);
    expect(await of("LABEL=coverlay-lab /mnt ext4 defaults 0 2\n")).toEqual([`fail fstab: ${device}`]);
    expect(await of(`${device} /mnt ext4 noauto 0 0\n`)).toEqual([`warn fstab: ${device}`]);
    mkdirSync(path.join(units, "multi-user.target.wants"), { recursive: true });
    writeFileSync(path.join(units, "mnt.mount"), `[Mount]\nWhat=${device}\nWhere=/mnt\nType=ext4\n`);
    expect(await of("")).toEqual([`warn fstab: ${device}`]);
    run("ln", "-s", "../mnt.mount", path.join(units, "multi-user.target.wants/mnt.mount"));
    expect(await of("")).toEqual([`fail fstab: ${device}`]);
  });

  it("a disk that something here has in exclusive use without a mount point is a warning", () =>
    withDisk("xfs", async ({ device }) => {
      const holder = openSync(device, constants.O_RDONLY | constants.O_EXCL);
      try {
        expect(wrong(await doctor(1, ["--device", device]))).toContain(`warn mounts: ${device}`);
      } finally {
        closeSync(holder);
      }
      expect(wrong(await doctor(1, ["--device", device]))).not.toContain(`warn mounts: ${device}`);
    }));

  it("one that is not there is a failure", async () => {
    expect(wrong(await doctor(1, ["--device", "/dev/none"]))).toEqual(["fail device: /dev/none"]);
  });
});

describe("a node that checks its machine for another one", () => {
  it("does so once for all that ask, and no more when they are gone", async () => {
    const nodeid = (await lab.owner()) === 3 ? 2 : 3;
    const asker = (): ChildProcess => {
      const { netns, runDir } = lab.node(1);
      const words = ["doctor", "--json", "--config", labFiles(lab.dir).config, "--run-dir", runDir];
      return spawn("nsenter", [`--net=/run/netns/${netns}`, process.execPath, coverlayProgram, ...words], { stdio: "ignore" });
    };
    const askers = [asker(), asker(), asker()];
    await until("the node checks its machine", () => checksOf(nodeid).length > 0);
    expect(checksOf(nodeid)).toHaveLength(1);
    for (const each of askers) each.kill("SIGKILL");
    await until("its check is over", () => checksOf(nodeid).length === 0);
    expect(wrongElsewhere(await doctorOfAll(1))).toEqual([]);
  });
});

describe("at the end, because a node is left out and loses its mount", () => {
  it("an unreachable node does not hold it up: a dlmd that stands still, and one behind a firewall that drops all", async () => {
    atInput(3, "ip saddr 10.209.77.1 tcp flags & (syn | ack) == syn");
    stopDlmd(lab, 2);
    // The command has a limit of its own in this test: one that waited for these nodes would be ended.
    const report = await doctorOfAll(1, ["--limit", "2"]);
    expect(wrong(report)).toEqual(
      expect.arrayContaining([
        "fail port-tcp: tcp 7701 of node3 (10.209.77.3)",
        "unknown key-same: node2 (10.209.77.2)",
        "unknown doctor: node2 (10.209.77.2)",
        "unknown doctor: node3 (10.209.77.3)",
      ]),
    );
    const asked = report.findings.filter(({ check }) => check === "doctor");
    expect(asked.map(({ action }) => action)).toEqual(
      Array.from({ length: 2 }, () => expect.stringContaining("coverlay doctor --here") as unknown),
    );
    goOn();
  });

  it("UDP that is dropped between two other nodes is told by direction and port", async () => {
    const told = async (): Promise<boolean> => wrong(await doctor(1)).includes("fail port-udp: udp 7701 from node2 to node3 (10.209.77.3)");
    await until("node 2 is heard again", async () => !(await told()));
    atInput(3, "ip saddr 10.209.77.2 udp dport 7701");
    await until("a heartbeat was dropped", () => dropped(3));
    await until("doctor on node 1 tells of it", told);
    expect(dropped(3)).toBe(true);
  });

  it("a dlmd that dies ends its check, and its asker is told at once", async () => {
    const nodeid = (await lab.owner()) === 3 ? 2 : 3;
    await until("all are well", async () => wrong(await doctor(1)).length === 0);
    const dlmdPid = Number(lab.dlmdPid(nodeid));
    const report = doctorOfAll(1);
    await until("the node checks its machine", () => checksOf(nodeid).length > 0);
    // By its id: the checks could be over before a program that kills it has started.
    process.kill(dlmdPid, "SIGKILL");
    const { findings } = await report;
    const found = findings.find(({ check, about }) => check === "doctor" && about.startsWith(`node${nodeid} `));
    expect(found).toMatchObject({ status: "unknown", found: "it closed the connection before its checks had ended" });
    await until("its check is over", () => checksOf(nodeid).length === 0);
  });
});
