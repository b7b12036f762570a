/** The lab's command line on a cluster that runs: what the contract says of each command. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, readdirSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import os from "node:os";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { run } from "../../../overlay/lab/command.ts";
import { loopsOver } from "../../../overlay/lab/disk.ts";
import { mountsUnder } from "../../../overlay/lab/fuse-mounts.ts";
import { hubName, netnsArguments } from "../../../overlay/lab/layout.ts";
import { findProcesses, processRef } from "../../../overlay/lab/processes.ts";
import { readLab } from "../../../overlay/lab/state.ts";
import { type TestLab, coverlay, coverlayProgram, leftovers, startLab, watchedDirectory, withLab } from "../lab.ts";

describe("a lab of three nodes", () => {
  let lab: TestLab;
  beforeAll(async () => {
    lab = await startLab({ nodes: 3 });
  });
  afterAll(() => lab.end());

  it("prints what each node is", () => {
    expect(lab.nodes.map(({ node, nodeid }) => [node, nodeid])).toEqual([
      ["node1", 1],
      ["node2", 2],
      ["node3", 3],
    ]);
    for (const { node, mount, netns, dlmdPid, overlayPid, runDir } of lab.nodes) {
      expect(mount).toBe(`${lab.dir}/${node}/mnt`);
      expect(runDir).toBe(`${lab.dir}/${node}/run`);
      const inode = statSync(`/run/netns/${netns}`).ino;
      for (const pid of [dlmdPid, overlayPid]) expect(readlinkSync(`/proc/${pid}/ns/net`)).toBe(`net:[${inode}]`);
    }
  });

  it("mounts each node's own loop device over one image, as fuse.clustered, where the host sees it", () => {
    const mounts = lab.nodes.map(({ mount }) => mountsUnder(mount)[0]);
    expect(mounts.map((mount) => mount?.type)).toEqual(["fuse.clustered", "fuse.clustered", "fuse.clustered"]);
    expect(new Set(mounts.map((mount) => mount?.source))).toEqual(new Set(loopsOver(`${lab.dir}/disk.img`)));
    // Preallocated: the host's disk cannot run full under it.
    const { size, blocks } = statSync(`${lab.dir}/disk.img`);
    expect(blocks * 512).toBeGreaterThanOrEqual(size);
  });

  it("shows a file of one node on the others at once", () => {
    writeFileSync(`${lab.node(1).mount}/hello`, "from node1");
    for (const { mount } of lab.nodes) expect(readFileSync(`${mount}/hello`, "utf8")).toBe("from node1");
  });

  it("runs a command in the node's network and mount point, and passes its exit status and output", async () => {
    expect((await lab.mustExec(2, ["pwd"])).trim()).toBe(lab.node(2).mount);
    expect(await lab.mustExec(2, ["cat", "hello"])).toBe("from node1");
    expect((await lab.exec(3, ["sh", "-c", "exit 7"])).status).toBe(7);
    expect(await lab.mustExec(2, ["ip", "-4", "-o", "address", "show", "eth0"])).toContain(".2/24");
    const { status, stderr } = await coverlay(["lab", "exec", "node9", "--dir", lab.dir, "--", "true"]);
    expect(status).toBe(1);
    expect(stderr).toContain("node1, node2, node3");
  });

  it("passes signals to the command, and its end by one back", async () => {
    const words = [
      "lab",
      "exec",
      "node1",
      "--dir",
      lab.dir,
      "--",
      "sh",
      "-c",
      "trap 'echo told; exit 9' USR1; echo here; while :; do sleep 0.05; done",
    ];
    const child = spawn(process.execPath, [coverlayProgram, ...words], { stdio: ["ignore", "pipe", "inherit"] });
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    expect((await lines.next()).value).toBe("here");
    child.kill("SIGUSR1");
    expect((await lines.next()).value).toBe("told");
    expect(await once(child, "exit")).toEqual([9, null]);
    const killed = await coverlay(["lab", "exec", "node1", "--dir", lab.dir, "--", "sh", "-c", "kill -TERM $$"]);
    expect(killed.endedBy).toBe("SIGTERM");
  });

  it("tells status, owner and quorum, to people and to programs", async () => {
    const nodes = await lab.status();
    expect(nodes.map(({ state }) => state)).toEqual(["up", "up", "up"]);
    for (const { view } of nodes) expect(view).toMatchObject({ quorate: true, members: [1, 2, 3] });
    const owner = await lab.owner();
    expect(nodes.filter(({ role }) => role === "owner").map(({ nodeid }) => nodeid)).toEqual([owner]);
    expect((await lab.lab("status")).split("\n").filter((line) => line.startsWith("node"))).toHaveLength(3);
    const status = JSON.parse(await lab.mustExec(2, [process.execPath, coverlayProgram, "status", "--json"])) as {
      cluster: { nodeid: number };
    };
    expect(status.cluster.nodeid).toBe(2);
  });

  /** A node that does not own the volume. */
  async function other(): Promise<number> {
    const owner = await lab.owner();
    return lab.nodes.map(({ nodeid }) => nodeid).find((nodeid) => nodeid !== owner) ?? 0;
  }

  it("stops a node cleanly and boots it again", async () => {
    const nodeid = await other();
    await lab.stop(nodeid);
    expect(mountsUnder(lab.node(nodeid).mount)).toEqual([]);
    expect((await lab.status())[nodeid - 1]).toMatchObject({ state: "stopped", dlmdPid: null, overlayPid: null });
    expect((await lab.exec(nodeid, ["true"])).status).toBe(1);
    await lab.start(nodeid);
    expect((await lab.status())[nodeid - 1]).toMatchObject({ state: "up" });
    expect(readFileSync(`${lab.node(nodeid).mount}/hello`, "utf8")).toBe("from node1");
  });

  it("powers a node off at once, and boots it again", async () => {
    const nodeid = await other();
    const before = (await lab.status())[nodeid - 1];
    await lab.kill(nodeid);
    expect(mountsUnder(lab.node(nodeid).mount)).toEqual([]);
    for (const pid of [before?.dlmdPid, before?.overlayPid]) expect(processRef(pid ?? 0)).toBeNull();
    expect(loopsOver(`${lab.dir}/disk.img`)).not.toContain(before?.device);
    await lab.start(nodeid);
    expect(readFileSync(`${lab.node(nodeid).mount}/hello`, "utf8")).toBe("from node1");
  });

  it("kills one program of a node, and boots what is missing", async () => {
    const nodeid = await other();
    await lab.kill(nodeid, "overlay");
    expect((await lab.status())[nodeid - 1]).toMatchObject({ state: "mount dead" });
    await lab.start(nodeid);
    expect(readFileSync(`${lab.node(nodeid).mount}/hello`, "utf8")).toBe("from node1");
  });

  it("cuts a node off its disk and joins it again", async () => {
    const nodeid = await other();
    const device = (await lab.status())[nodeid - 1]?.device ?? "";
    const read = ["dd", `if=${device}`, "of=/dev/null", "bs=4096", "count=1", "skip=8", "iflag=direct", "status=none"];
    const sectors = (): string => readFileSync(`/sys/block/${device.slice(5)}/size`, "utf8").trim();
    const whole = sectors();
    await lab.lab("cut", `node${nodeid}`);
    expect(sectors()).toBe("1");
    expect((await lab.status())[nodeid - 1]?.cut).toBe(true);
    await lab.lab("uncut", `node${nodeid}`);
    expect(sectors()).toBe(whole);
    await lab.mustExec(nodeid, read);
  });

  it("parts a group from the rest, and joins it again", async () => {
    const addresses = (await lab.status()).map(({ address }) => address);
    // Not through `lab exec`: its working directory is the mount, which waits where there is no quorum.
    const reaches = async (from: number, to: number): Promise<boolean> => {
      const connect = `timeout 1 bash -c '</dev/tcp/${addresses[to - 1]}/7701'`;
      return (await run("nsenter", netnsArguments(lab.node(from).netns, ["bash", "-c", connect]))).status === 0;
    };
    expect(await reaches(1, 3)).toBe(true);
    await lab.lab("partition", "node1,node2");
    expect(await reaches(1, 3)).toBe(false);
    expect(await reaches(3, 2)).toBe(false);
    expect(await reaches(1, 2)).toBe(true);
    await lab.lab("heal", "node1,node2");
    expect(await reaches(1, 3)).toBe(true);
    expect(readLab(lab.dir)?.nodes.map(({ network }) => network.group)).toEqual(["", "", ""]);
  });

  it("loses packets when told", async () => {
    const rules = (): Promise<string> => lab.mustExec(2, ["nft", "list", "ruleset"]);
    await lab.lab("net", "node2", "--loss", "3");
    expect(await rules()).toContain("numgen random mod 10000 < 300 drop");
    await lab.lab("net", "node2", "--loss", "0", "--delay", "0");
    expect(await rules()).toBe("");
  });

  it("takes longer to a node when told, in both directions, through a power-off of it, and no longer when that is taken back", async () => {
    const id = readLab(lab.dir)?.id ?? "";
    const cables = (): number => findProcesses({ netns: new Set(), marks: [`${id}:cable-`] }).length;
    const address = (await lab.status())[1]?.address;
    const connectMs = async (): Promise<number> => {
      const timed = `s=$EPOCHREALTIME; : </dev/tcp/${address}/7701; e=$EPOCHREALTIME; echo $(( \${e/./} - \${s/./} ))`;
      const { stdout } = await run("nsenter", netnsArguments(lab.node(1).netns, ["bash", "-c", timed]));
      return Number(stdout) / 1000;
    };
    await lab.lab("net", "node2", "--delay", "20");
    expect(cables()).toBe(1);
    expect(await connectMs()).toBeGreaterThanOrEqual(40);
    await lab.lab("net", "node1,node2", "--delay", "15.5");
    expect(cables()).toBe(2);
    expect(await connectMs()).toBeGreaterThanOrEqual(62);
    // A large write goes through in packets that the kernel has not cut yet.
    const data = Buffer.alloc(3_000_000, "coverlay ");
    writeFileSync(`${lab.node(2).mount}/far`, data);
    // Not on node3, which may have been evicted when it was parted from the rest.
    expect(readFileSync(`${lab.node(1).mount}/far`).equals(data)).toBe(true);
    await lab.kill(2);
    await lab.start(2);
    expect(await connectMs()).toBeGreaterThanOrEqual(62);
    expect(readFileSync(`${lab.node(2).mount}/far`).equals(data)).toBe(true);
    await lab.lab("net", "node1,node2", "--delay", "0");
    expect(cables()).toBe(0);
    const { stdout } = await run("ip", ["-n", hubName(id), "-o", "link", "show", "master", "br0"]);
    expect([...stdout.matchAll(/ (\w+)@/g)].map(([, port]) => port)).toEqual(expect.arrayContaining(["port1", "port2", "port3"]));
  });
});

describe("a lab over another lower", () => {
  it.each(["xfs", "directory"] as const)("%s: shares files, survives a power-off, and goes", (lower) =>
    withLab({ nodes: 2, lower, size: "400M" }, async (lab) => {
      writeFileSync(`${lab.node(2).mount}/kept`, lower);
      expect(readFileSync(`${lab.node(1).mount}/kept`, "utf8")).toBe(lower);
      expect(await lab.owner()).toBe(1);
      await lab.kill(2);
      await lab.start(2);
      expect(readFileSync(`${lab.node(2).mount}/kept`, "utf8")).toBe(lower);
      const cut = await coverlay(["lab", "cut", "node2", "--dir", lab.dir]);
      expect(cut.status).toBe(lower === "directory" ? 1 : 0);
    }),
  );
});

describe("lab up in the foreground", () => {
  it("says what to try, which can be pasted anywhere, and takes everything down at Ctrl-C, however often it is pressed", async () => {
    const { dir, end } = watchedDirectory();
    try {
      const words = ["lab", "up", "--dir", dir, "--nodes", "2", "--size", "64M"];
      const child = spawn(process.execPath, [coverlayProgram, ...words], { stdio: ["ignore", "pipe", "inherit"] });
      const exit = once(child, "exit");
      const seen: string[] = [];
      for await (const line of createInterface(child.stdout)) {
        seen.push(line);
        // A live line: the lab is shown, so both signals hit a lab that is up.
        if (!/^node2 .* locks /.test(line)) continue;
        const tries = seen
          .filter((one) => one.startsWith("  "))
          .map((one) => execFileSync("sh", ["-c", one], { cwd: "/", encoding: "utf8" }));
        expect(tries).toEqual(["hello\n", expect.stringContaining("hello"), expect.stringContaining("node2")]);
        child.kill("SIGINT");
        child.kill("SIGINT");
        child.kill("SIGTERM");
        break;
      }
      const text = seen.join("\n");
      expect(text).toMatch(/^ready$/m);
      expect(await exit).toEqual([0, null]);
      expect(leftovers(dir, null)).toEqual([]);
    } finally {
      await end();
    }
  });

  it("takes everything down when nobody reads what it says any more, or its terminal is closed", async () => {
    const { dir, end } = watchedDirectory();
    try {
      const words = [coverlayProgram, "lab", "up", "--dir", dir, "--nodes", "1", "--size", "64M"];
      const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "ignore"] });
      const exit = once(child, "exit");
      child.stdout.destroy();
      expect(await exit).toEqual([0, null]);
      expect(leftovers(dir, null)).toEqual([]);
      const terminal = `
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
text = b""
while b"Ctrl-C" not in text: text += os.read(terminal, 4096)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))`;
      const { SIGHUP } = os.constants.signals;
      expect((await run("python3", ["-c", terminal, process.execPath, ...words])).stdout).toBe(`${-SIGHUP}\n`);
      expect(leftovers(dir, null)).toEqual([]);
    } finally {
      await end();
    }
  });

  it("ends when somebody else takes the lab down", async () => {
    const { dir, end } = watchedDirectory();
    try {
      const words = ["lab", "up", "--dir", dir, "--nodes", "1", "--lower", "directory", "--json"];
      const child = spawn(process.execPath, [coverlayProgram, ...words], { stdio: ["ignore", "pipe", "inherit"] });
      const exit = once(child, "exit");
      for await (const line of createInterface(child.stdout)) if (line === "ready") break;
      expect(readdirSync(dir)).toContain("lab.json");
      expect(await coverlay(["lab", "down", "--dir", dir])).toMatchObject({ status: 0 });
      expect(await exit).toEqual([0, null]);
    } finally {
      await end();
    }
  });
});
