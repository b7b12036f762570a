/** The configuration of a new cluster and the commands that follow: texts that YAML, sh(1) and fstab(5) read as they were meant. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, rmdirSync, statSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { decodeClusterConfig } from "../../../dlmd/config/cluster-config.ts";
import { type Finding, crossedLimit } from "../../../overlay/setup/finding.ts";
import { parseFstab } from "../../../overlay/setup/fstab.ts";
import type { DiskFacts } from "../../../overlay/setup/judge-volume.ts";
import {
  type SetupAnswers,
  type SetupPlace,
  allSteps,
  clusterYaml,
  describeSteps,
  fstabLine,
  markOf,
  nodeSteps,
  notes,
} from "../../../overlay/setup/plan.ts";
import { shellWord } from "../../../overlay/setup/shell-word.ts";
import { writeNewCluster, writeNewConfig } from "../../../overlay/setup/write-config.ts";

const volume = { name: "data", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11", device: "/dev/sdb1", mountPoint: "/shared" };
const answers: SetupAnswers = {
  cluster: "demo",
  nodes: [
    { name: "node1", address: "10.0.0.1" },
    { name: "1e3", address: "10.0.0.2" },
    { name: "true", address: "10.0.0.3" },
  ],
  multicast: "none",
  multicastPort: 7700,
  peerPort: 7701,
  volume,
};
const place: SetupPlace = { configFile: "/etc/coverlay/cluster.yaml", keyFile: "/etc/coverlay/cluster.key", self: "node1", hasUnit: true };

describe("cluster.yaml", () => {
  it("is read as it was meant, also names that YAML takes for numbers and flags", () => {
    const config = decodeClusterConfig(clusterYaml(answers, "cluster.key"), "here");
    expect(config.nodes.map(({ nodeid, name, address }) => [nodeid, name, address])).toEqual([
      [1, "node1", "10.0.0.1"],
      [2, "1e3", "10.0.0.2"],
      [3, "true", "10.0.0.3"],
    ]);
    expect(config.volumes).toEqual([{ name: "data", uuid: volume.uuid, lower: "device", path: "/dev/sdb1" }]);
    expect(decodeClusterConfig(clusterYaml({ ...answers, cluster: "1", volume: null }, "k"), "here")).toMatchObject({
      cluster: "1",
      volumes: [],
    });
  });
});

describe("the mark of the volume's device", () => {
  const identity = { path: "/dev/sdb1", bytes: 1, isReadOnly: false, serial: null, wwn: null, backingFile: null };
  const disk = { device: "/dev/sdb1", identity, tags: {}, isInUse: false, plainMounts: [] };
  const bad = { message: "bad", hint: "Mend it." };
  const of = (facts: DiskFacts | null, findings: readonly Finding[] = []): unknown => markOf("/dev/sdb1", { facts, findings }, "demo");

  it("of this cluster is kept; without one, or with another cluster's, it is new", () => {
    expect(of({ ...disk, bit: { cluster: "demo", volume: "data", uuid: "u" } })).toEqual({ name: "data", uuid: "u" });
    expect(of({ ...disk, bit: { cluster: "other", volume: "data", uuid: "u" } })).toBeNull();
    expect(of({ ...disk, bit: null })).toBeNull();
  });

  it.each<[string, DiskFacts | null, string]>([
    ["a damaged mark", { ...disk, bit: bad }, "bad"],
    ["a file system that cannot be read", { ...disk, fileSystem: bad }, "bad"],
    ["a device that is not there", { ...disk, identity: bad }, "bad"],
    ["a look that was given up", disk, "none: the check was given up after 4 s"],
    ["and one that yielded nothing", null, "none: the check was given up after 4 s"],
  ])("that cannot be seen is no reason for a new uuid: %s", (_, facts, words) => {
    expect(() => of(facts, [crossedLimit("bit", "/dev/sdb1", 4000)])).toThrow(
      `is marked for this cluster already cannot be seen: ${words}`,
    );
  });
});

describe("commands", () => {
  it("words mean to sh what they are", () => {
    for (const word of ["/dev/sdb1", 'it\'s $HOME `id` "x"', "", "a b\nc", "*", "-n", "ü"]) {
      expect(execFileSync("sh", ["-c", `printf %s ${shellWord(word)}`], { encoding: "utf8" })).toBe(word);
    }
  });

  it.each([
    "/my disk#1",
    "/a\\b\tc",
    "/a\nb\r",
    "/a\vb\f",
    "/gemeinsame\u00a0daten",
    "/a\u2003b\u2028",
    "/\u3000\ufeff",
    "/m\u00fc \ud83d\udcbe",
    "/a\\040b",
    '/"a"',
  ])("the line of fstab is read as it was meant: %j", (name) => {
    const odd = { ...volume, device: `/dev${name}`, mountPoint: name };
    expect(parseFstab(fstabLine(odd, true), "f")).toMatchObject([{ source: odd.device, mountPoint: odd.mountPoint, type: "clustered" }]);
  });

  it("no line of fstab has a sign that parts its words elsewhere", () => {
    // ASCII white space as octal numbers, which are bytes; each other sign as it is.
    const line = fstabLine({ ...volume, mountPoint: "/ \t\n\v\f\r\u0085\u00a0\u2003" }, true);
    expect(line.split(" ")[1]).toBe("/\\040\\011\\012\\013\\014\\015\u0085\u00a0\u2003");
  });

  it("the line comes into fstab as it is, whatever the shell's echo does with backslashes", () => {
    const odd = { ...volume, device: "/dev/my disk", mountPoint: "/it's" };
    const step = nodeSteps("node1", odd, place).find(({ command }) => command.includes("/etc/fstab"))?.command ?? "";
    const folder = mkdtempSync(path.join(os.tmpdir(), "coverlay-fstab-"));
    const file = path.join(folder, "fstab");
    const root = "UUID=x / ext4 errors=remount-ro 0 1";
    // Without an end of its line, as an editor may leave it.
    writeFileSync(file, root);
    for (let times = 0; times < 2; times += 1) execFileSync("sh", ["-c", step.replaceAll("/etc/fstab", file)]);
    const found = readFileSync(file, "utf8");
    rmSync(folder, { recursive: true });
    expect(found).toBe(`${root}\n${fstabLine(odd, true)}\n`);
  });

  it("where systemd has the lock manager, the mount requires it", () => {
    const lines = (setup: SetupPlace): string =>
      nodeSteps("node1", volume, setup)
        .map(({ command }) => command)
        .join("\n");
    expect(lines(place)).toContain(",x-systemd.requires=dlmd.service,");
    // Its unit does not read another file, or is not there.
    expect(lines({ ...place, configFile: "/etc/other.yaml" })).not.toContain("x-systemd.requires");
    expect(lines({ ...place, hasUnit: false })).not.toContain("x-systemd.requires");
  });

  it("the volume is marked first, then each node has the files, looks, starts and mounts", () => {
    const steps = allSteps(answers, place);
    expect(steps.map(({ on, command }) => `${on}: ${command}`).slice(0, 9)).toEqual([
      `node1: coverlay volume enable /dev/sdb1 --cluster=demo --name=data --uuid ${volume.uuid}`,
      "node1: ssh root@10.0.0.2 mkdir -p /etc/coverlay",
      "node1: scp -p /etc/coverlay/cluster.yaml /etc/coverlay/cluster.key root@10.0.0.2:/etc/coverlay/",
      "node1: ssh root@10.0.0.3 mkdir -p /etc/coverlay",
      "node1: scp -p /etc/coverlay/cluster.yaml /etc/coverlay/cluster.key root@10.0.0.3:/etc/coverlay/",
      "node1: coverlay doctor --before",
      "1e3: coverlay doctor --before",
      "true: coverlay doctor --before",
      "node1: systemctl enable --now dlmd",
    ]);
    expect(steps.filter(({ command }) => command === "mount /shared").map(({ on }) => on)).toEqual(["node1", "1e3", "true"]);
    expect(nodeSteps("true", volume, { ...place, hasUnit: false })[1]?.command).toMatch(/^setsid dlmd --config \/etc.* &$/);
    expect(nodeSteps("true", null, place)).toHaveLength(2);
  });

  it("with a configuration elsewhere the unit, which reads the usual one, is not started", () => {
    const [look, start] = nodeSteps("true", null, { ...place, configFile: "/x y/c" });
    expect(look?.command).toBe("coverlay doctor --before --config '/x y/c'");
    expect(start).toMatchObject({
      why: expect.stringContaining("dlmd.service reads /etc/coverlay/cluster.yaml alone") as unknown,
      command: "setsid dlmd --config '/x y/c' >>/var/log/dlmd.log 2>&1 </dev/null &",
    });
  });

  it("are shown by node, each reason once, and with what a person has to know", () => {
    const text = describeSteps(allSteps(answers, place));
    expect(text.match(/^On node1:$/gm)).toHaveLength(3);
    expect(text.match(/# the configuration and the key, for 1e3/g)).toHaveLength(1);
    expect(notes(answers).join("\n")).not.toContain("Two nodes");
    expect(notes({ ...answers, nodes: answers.nodes.slice(0, 2) }).join("\n")).toContain("Two nodes");
  });
});

describe("the file", () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-plan-"));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it("is made whole, with its folder, and nothing is left beside it", () => {
    const file = path.join(dir, "a/b/cluster.yaml");
    writeNewConfig(file, "one", false);
    expect([readFileSync(file, "utf8"), statSync(file).mode & 0o777, readdirSync(path.dirname(file))]).toEqual([
      "one",
      0o644,
      ["cluster.yaml"],
    ]);
  });

  it("is not written over, unless that is wanted", () => {
    const file = path.join(dir, "cluster.yaml");
    writeFileSync(file, "before");
    expect(() => writeNewConfig(file, "two", false)).toThrow("is there already");
    expect([readFileSync(file, "utf8"), readdirSync(dir)]).toEqual(["before", ["cluster.yaml"]]);
    writeNewConfig(file, "two", true);
    expect([readFileSync(file, "utf8"), readdirSync(dir)]).toEqual(["two", ["cluster.yaml"]]);
  });

  it("is made where a run that was killed has left its own beside it, under the same process id", () => {
    const file = path.join(dir, "cluster.yaml");
    for (const [text, isForced] of [
      ["one", false],
      ["two", true],
    ] as const) {
      writeFileSync(`${file}.${process.pid}.new`, "half, and longer");
      writeNewConfig(file, text, isForced);
      expect([readFileSync(file, "utf8"), readdirSync(dir)]).toEqual([text, ["cluster.yaml"]]);
    }
  });

  it("that cannot be written is an error with words", () => {
    mkdirSync(path.join(dir, "x"));
    expect(() => writeNewConfig(path.join(dir, "x"), "two", true)).toThrow("cannot be written");
    expect(readdirSync(dir)).toEqual(["x"]);
  });

  it("comes after its key: one that cannot be written leaves the key, and a key that is there is kept", () => {
    const configFile = path.join(dir, "x/cluster.yaml");
    const keyFile = path.join(dir, "x/cluster.key");
    mkdirSync(configFile, { recursive: true });
    expect(() => writeNewCluster({ configFile, text: "one", keyFile }, false)).toThrow("is there already");
    expect(readdirSync(path.dirname(keyFile))).toEqual(["cluster.yaml"]);
    expect(() => writeNewCluster({ configFile, text: "one", keyFile }, true)).toThrow("cannot be written");
    expect(readdirSync(path.dirname(keyFile))).toEqual(["cluster.key", "cluster.yaml"]);
    const key = readFileSync(keyFile, "utf8");
    rmdirSync(configFile);
    expect(writeNewCluster({ configFile, text: "one", keyFile }, false)).toEqual([configFile]);
    expect([readFileSync(keyFile, "utf8"), readFileSync(configFile, "utf8")]).toEqual([key, "one"]);
  });

  it("is not written beside a key that is not whole", () => {
    const [configFile, keyFile] = [path.join(dir, "cluster.yaml"), path.join(dir, "cluster.key")];
    writeFileSync(keyFile, "half", { mode: 0o600 });
    expect(() => writeNewCluster({ configFile, text: "one", keyFile }, false)).toThrow("must hold 1 to 4 keys");
    expect(readdirSync(dir)).toEqual(["cluster.key"]);
  });
});
