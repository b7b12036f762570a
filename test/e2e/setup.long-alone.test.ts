/**
 * `coverlay setup` from nothing to a mounted volume: two machines are two processes, each with a network, mounts and files of its own. The commands
 * that it prints are typed as they stand. ssh and scp are stand-ins that reach the other machine's files: no daemon of theirs runs here.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LEAVE_COPIES } from "../../overlay/lab/fuse-mounts.ts";
import type { Finding } from "../../overlay/setup/finding.ts";
import type { Step } from "../../overlay/setup/plan.ts";
import { deviceNumber } from "../../overlay/volume/device.ts";
import { dist } from "../built.ts";
import { coverlayProgram } from "./lab.ts";
import { type Disk, attachLoop, run, withDisk } from "./volume/disk.ts";

const COMMAND_TIMEOUT_MS = 60_000;
/** Own /etc, /var and /usr/sbin over those of this machine, an empty /run, and the disk below one path. */
const PREPARE = `${LEAVE_COPIES}
set -e
for dir in etc var usr/sbin; do
  mkdir -p $OWN/$dir $OWN/work/$dir
  mount -t overlay overlay -o lowerdir=/$dir,upperdir=$OWN/$dir,workdir=$OWN/work/$dir /$dir
done
mount -t tmpfs tmpfs /run
: >/etc/fstab
mknod /run/disk b $(echo $DISK | tr : ' ')
echo ready
exec sleep infinity`;

interface Machine {
  readonly name: string;
  readonly address: string;
  readonly process: ChildProcess;
}

let dir: string;
let disk: Disk;
let endDisk: () => void;
let diskGone: Promise<void>;
const machines: Machine[] = [];

async function startMachine(name: string, address: string, device: string): Promise<Machine> {
  const own = path.join(dir, name);
  mkdirSync(own);
  run("mount", "-t", "tmpfs", "tmpfs", own);
  const env = { ...process.env, OWN: own, DISK: deviceNumber(device) };
  const child = spawn("unshare", ["-n", "-m", "--propagation", "private", "sh", "-c", PREPARE], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [said] = (await once(child.stdout, "data")) as [Buffer];
  expect(String(said)).toBe("ready\n");
  return { name, address, process: child };
}

const enter = ({ process: { pid } }: Machine): string[] => ["-t", String(pid), "-m", "-n", "--"];
const machine = (name: string): Machine => machines.find((each) => each.name === name) ?? expect.fail(name);

/** As a person would type it, there. */
function type(name: string, command: string): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  const env = { PATH: `${path.join(dir, "bin")}:/usr/sbin:/usr/bin:/sbin:/bin`, HOME: "/root", LANG: "C.UTF-8" };
  return spawnSync("nsenter", [...enter(machine(name)), "sh", "-c", command], { encoding: "utf8", env, timeout: COMMAND_TIMEOUT_MS });
}

function mustType(name: string, command: string): string {
  const { status, stdout, stderr } = type(name, command);
  expect(`${command}: ${status}\n${status === 0 ? "" : stderr + stdout}`).toBe(`${command}: 0\n`);
  return stdout;
}

/** Programs by their names, and stand-ins for ssh and scp: root@ADDRESS is the machine with that address. */
function makePrograms(): void {
  const bin = path.join(dir, "bin");
  mkdirSync(bin);
  const pids = machines.map(({ address, process: { pid } }) => `root@${address}) pid=${pid};;`).join(" ");
  const scripts = {
    coverlay: `exec ${process.execPath} ${coverlayProgram} "$@"`,
    dlmd: `exec ${process.execPath} ${path.join(dist, "dlmd/main.js")} "$@"`,
    ssh: `case $1 in ${pids} esac; shift; exec nsenter -t $pid -m -- "$@"`,
    scp: `[ "$1" = -p ] && shift; for to in "$@"; do :; done; case \${to%%:*} in ${pids} esac
while [ $# -gt 1 ]; do cp -p "$1" "/proc/$pid/root\${to#*:}"; shift; done`,
  };
  for (const [name, text] of Object.entries(scripts)) {
    writeFileSync(path.join(bin, name), `#!/bin/sh\n${text}\n`);
    chmodSync(path.join(bin, name), 0o755);
  }
}

beforeAll(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-setup-"));
  const ready = new Promise<Disk>((resolve, reject) => {
    diskGone = withDisk("ext4", (made) => {
      resolve(made);
      return new Promise<void>((end) => (endDisk = end));
    });
    diskGone.catch(reject);
  });
  disk = await ready;
  machines.push(await startMachine("node1", "10.99.7.1", disk.device));
  machines.push(await startMachine("node2", "10.99.7.2", attachLoop(disk.image)));
  const [one, two] = machines.map(({ process: { pid } }) => String(pid));
  run("ip", "link", "add", "eth0", "netns", one ?? "", "type", "veth", "peer", "name", "eth0", "netns", two ?? "");
  for (const {
    process: { pid },
    address,
  } of machines) {
    const script = `ip link set lo up; ip address add ${address}/24 dev eth0; ip link set eth0 up; ip route add 224.0.0.0/4 dev eth0`;
    run("nsenter", "-t", String(pid), "-n", "sh", "-ec", script);
  }
  makePrograms();
});

afterAll(async () => {
  for (const { name, process: child } of machines) {
    type(name, "umount /run/shared; kill $(cat /run/coverlay/dlmd.pid)");
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  endDisk();
  await diskGone;
  for (const { name } of machines) run("umount", "--lazy", path.join(dir, name));
  rmSync(dir, { recursive: true, force: true });
});

interface SetupReport {
  readonly status: number;
  readonly files: readonly string[];
  readonly findings: readonly Finding[];
  readonly steps: readonly Step[];
}

const SETUP = [
  "coverlay setup --yes --json --cluster demo --node node1=10.99.7.1 --node node2=10.99.7.2",
  "--device /run/disk --volume data --mount-point /run/shared --multicast 239.192.77.1",
].join(" ");
const wrong = ({ findings }: { readonly findings: readonly Finding[] }): string[] =>
  findings.flatMap(({ check, about, status }) => (status === "ok" ? [] : [`${status} ${check}: ${about}`]));

describe("before the files are written", () => {
  it("without a terminal what is missing is named, and nothing is written", () => {
    const found = type("node1", "coverlay setup --cluster demo");
    expect(found).toMatchObject({ status: 1, stderr: expect.stringContaining("--node is needed") as unknown });
    expect(type("node1", SETUP.replace("--yes ", ""))).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("--yes is needed") as unknown,
    });
    expect(type("node1", SETUP.replace("10.99.7.1", "10.99.7.9"))).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("10.99.7.1") as unknown,
    });
    expect(type("node1", SETUP.replace("10.99.7.1", "here"))).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("an IPv4 address") as unknown,
    });
    expect(type("node1", "ls /etc/coverlay").status).not.toBe(0);
  });

  it("at a terminal it asks, shows the file, and writes it only after a yes; an end of the input is a no", () => {
    const answers = "demo\\nnode1=10.99.7.1 node2=10.99.7.2\\n/run/disk\\n\\n\\n/run/shared\\n";
    // A Ctrl-D that is typed before the program has the terminal is none for it: the last answer waits for its question.
    const typed = `{ printf '${answers}'; until grep -q '(yes/no)' /run/shown; do sleep 0.1; done; printf "$LAST"; }`;
    const asked = (last: string): ReturnType<typeof type> =>
      type("node1", `: >/run/shown; LAST='${last}'; ${typed} | script -qfec 'coverlay setup' /run/shown`);
    for (const last of ["no\\n", "\\n", "\\004"]) {
      const found = asked(last);
      expect([found.status, found.stdout]).toEqual([1, expect.stringContaining("coverlay: nothing was written")]);
      expect(type("node1", "ls /etc/coverlay").status).not.toBe(0);
    }
    const { status, stdout } = asked("yes\\n");
    expect([status, stdout]).toEqual([0, expect.stringContaining("mount /run/shared")]);
    expect(mustType("node1", "cat /etc/coverlay/cluster.yaml")).toContain("multicast: { group: none, port: 7700 }");
    mustType("node1", "rm -r /etc/coverlay");
  });

  it.each([
    ["tcp dport 7701 drop", "fail port-tcp: tcp 7701 of node2 (10.99.7.2)", "a firewall drops TCP"],
    ["udp dport 7700 drop", "warn port-udp: udp 7700 of node2 (10.99.7.2)", "a firewall drops datagrams"],
    ["udp dport 7701 drop", "warn port-udp: udp 7701 of node2 (10.99.7.2)", "a firewall drops datagrams"],
  ])("a firewall of the other machine that says %s is told by name and port", (rule, finding, words) => {
    mustType("node2", `nft 'table inet wall { chain input { type filter hook input priority 0; ${rule}; }; }'`);
    expect(mustType("node2", "nft list ruleset")).toContain(rule);
    const report = JSON.parse(type("node1", SETUP).stdout) as SetupReport;
    mustType("node2", "nft delete table inet wall");
    mustType("node1", "rm -r /etc/coverlay");
    expect(wrong(report)).toEqual([finding]);
    expect(report.findings[0]?.found).toContain(words);
    expect(report.status).toBe(finding.startsWith("fail") ? 2 : 1);
  });
});

describe("a plain mount on the other machine", () => {
  const plainly = (use: () => void): string[] => {
    mustType("node2", "mkdir -p /run/plain; mount /run/disk /run/plain; touch /run/plain/file; sync /run/plain/file");
    expect(mustType("node2", "cat /proc/mounts")).toContain(" /run/plain ext4 ");
    use();
    const report = JSON.parse(type("node1", SETUP).stdout) as SetupReport;
    mustType("node2", "umount /run/plain");
    mustType("node1", "rm -r /etc/coverlay");
    return wrong(report);
  };

  it("shows as a journal that has to be replayed, and with MMP as its holder", () => {
    const features = (): string => mustType("node1", "dumpe2fs -h /run/disk 2>&1");
    const without = plainly(() => expect(features()).toContain("needs_recovery"));
    expect(without).toEqual(["warn file-system: /run/disk"]);
    mustType("node2", "tune2fs -O mmp /run/disk");
    const withMmp = plainly(() => expect(features()).toContain(" mmp"));
    expect(withMmp).toEqual(["fail mmp: /run/disk", "warn file-system: /run/disk"]);
    mustType("node2", "tune2fs -O ^mmp /run/disk");
  });
});

describe("from nothing to a mounted volume", () => {
  let report: SetupReport;

  it("writes the configuration and the key, and looks", () => {
    const { status, stdout, stderr } = type("node1", SETUP);
    expect(stderr).toBe("");
    report = JSON.parse(stdout) as SetupReport;
    expect([status, wrong(report)]).toEqual([0, []]);
    expect(report.files).toEqual(["/etc/coverlay/cluster.yaml", "/etc/coverlay/cluster.key"]);
    expect(mustType("node1", "stat -c %a /etc/coverlay/cluster.yaml /etc/coverlay/cluster.key")).toBe("644\n600\n");
    expect(mustType("node1", "ls /etc/coverlay")).toBe("cluster.key\ncluster.yaml\n");
    mustType("node1", "coverlay config check /etc/coverlay/cluster.yaml");
  });

  it("a key whose program is ended while it writes is not there", () => {
    expect(type("node1", "ulimit -f 0; coverlay keygen /run/crash.key").status).not.toBe(0);
    expect(type("node1", "cat /run/crash.key").stderr).toContain("No such file");
  });

  it("does not write over them; with --force over cluster.yaml alone", () => {
    const sums = (): string[] => mustType("node1", "sha256sum /etc/coverlay/*").trim().split("\n");
    const [key, yaml] = sums();
    expect(type("node1", SETUP)).toMatchObject({ status: 1, stderr: expect.stringContaining('"code":"config-exists"') as unknown });
    expect(sums()).toEqual([key, yaml]);
    report = JSON.parse(mustType("node1", `${SETUP} --force`)) as SetupReport;
    expect(report.files).toEqual(["/etc/coverlay/cluster.yaml"]);
    expect(sums()[0]).toBe(key);
    expect(sums()[1]).not.toBe(yaml);
    expect(mustType("node1", "ls /etc/coverlay")).toBe("cluster.key\ncluster.yaml\n");
  });

  it("its commands, typed in their order as they stand, bring it up on both nodes", () => {
    expect(new Set(report.steps.map(({ on }) => on))).toEqual(new Set(["node1", "node2"]));
    for (const { on, command } of report.steps) mustType(on, command);
    for (const { name } of machines)
      expect(mustType(name, "stat -f -c %T /run/shared; tail -1 /etc/fstab")).toMatch(/^fuse.*\n\/run\/disk \/run\/shared clustered /);
    mustType("node1", "echo hello >/run/shared/file");
    expect(mustType("node2", "cat /run/shared/file")).toBe("hello\n");
  });

  it("doctor is content on both, and setup join on the other one; both see that it is one disk", () => {
    for (const { name } of machines) {
      const said = JSON.parse(mustType(name, "coverlay doctor --json")) as { readonly findings: readonly Finding[] };
      expect(wrong(said)).toEqual([]);
      expect(said.findings.find(({ check }) => check === "same-disk")?.found).toMatch(/this node is the owner|MMP's block is written/);
    }
    const joined = JSON.parse(mustType("node2", "coverlay setup join --json --mount-point /run/shared")) as SetupReport;
    expect(joined.steps).toEqual(report.steps.filter(({ on }) => on === "node2"));
  });

  it("is refused while the cluster runs", () => {
    expect(type("node1", `${SETUP} --force`)).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('"code":"cluster-runs"') as unknown,
    });
  });

  it("a plain mount on this machine is a failure, with its place", async () => {
    await withDisk("ext4", ({ device, mountPoint }) => {
      run("mount", device, mountPoint);
      expect(readFileSync("/proc/self/mounts", "utf8")).toContain(`${device} ${mountPoint} ext4`);
      expect(statSync(device).isBlockDevice()).toBe(true);
      const { stdout } = spawnSync(process.execPath, [coverlayProgram, "doctor", "--json", "--config", "/none", "--device", device], {
        encoding: "utf8",
      });
      expect(wrong(JSON.parse(stdout) as { findings: Finding[] })).toContain(`fail mounts: ${device}`);
      expect(stdout).toContain(`mounted plainly at ${mountPoint}`);
    });
  });
});
