/**
 * From three bare machines to a mounted volume, with the steps of README.md and packaging/README.md as they stand there. Then each is restarted, all boot
 * in several orders, a lock manager stands still, and the owner's power is cut. Each step goes on from the one before. README.md beside this file.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Machine } from "./machine.ts";
import { type Machines, startMachines } from "./machines.ts";
import { addressOf, nodeids } from "./image.ts";
import { progress } from "./progress.ts";

const root = path.resolve(import.meta.dirname, "../..");
const DEVICE = "/dev/sda1";
const STICK = "/dev/vdb";
/** Boots of all three, each in another order, after all were off. */
const ORDERS = Number(process.env["COVERLAY_VM_ORDERS"] ?? 2);
/** So that the first two differ in their first node, and all six are there. */
const orders: readonly (readonly number[])[] = [
  [3, 1, 2],
  [2, 3, 1],
  [1, 2, 3],
  [1, 3, 2],
  [2, 1, 3],
  [3, 2, 1],
];

let machines: Machines;
let packageName = "";

/** A command of that document, for this disk and this package. */
function documented(file: string, words: string): string {
  expect(readFileSync(path.join(root, file), "utf8")).toContain(words);
  return words.replaceAll("/dev/sdb1", DEVICE).replace("coverlay_0.1.0_amd64.deb", packageName);
}

/** With time-outs for machines that are slow: their processors are emulated, and others go first. */
function clusterConfig(volumeLines: string): string {
  const node = (nodeid: number): string =>
    `  - { nodeid: ${nodeid}, name: node${nodeid}, address: ${addressOf(nodeid)}, fence: [[power]] }\n`;
  return `cluster: mycluster
version: 1
keyFile: cluster.key
multicast: { group: 239.192.77.1, port: 7700 }
peerPort: 7701
engine: builtin
timeoutMs: 15000
nodes:
${nodeids.map(node).join("")}
fenceDevices:
  - { name: power, agent: fence_vm, action: off, timeoutMs: 60000, settleMs: 0 }
volumes:
${volumeLines}`;
}

function buildPackage(output: string): string {
  progress("the package is built");
  execFileSync("npm", ["run", "package", "--", "--quick", `--output=${output}`], { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
  const name = readdirSync(output).find((file) => file.endsWith(".deb")) ?? "";
  return path.join(output, name);
}

const others = (machine: Machine): Machine[] => machines.all.filter((each) => each !== machine);
const each = async (act: (machine: Machine) => Promise<unknown>): Promise<void> => void (await Promise.all(machines.all.map(act)));
const MOUNTED = "findmnt -n -t fuse.clustered /shared";
const untilMounted = (machine: Machine): Promise<void> => machine.until("/shared is mounted", MOUNTED);

/** It ends the connection that it came by. */
function order(machine: Machine, command: "systemctl reboot" | "systemctl poweroff"): void {
  progress(`${machine.name}: ${command}`);
  machine.run(command).catch(() => undefined);
}

async function owner(): Promise<Machine> {
  for (const machine of machines.all) {
    if (!machine.isOn()) continue;
    const { overlays } = JSON.parse((await machine.run("coverlay status --json")).stdout) as { overlays: readonly { role: string }[] };
    if (overlays.some(({ role }) => role === "owner")) return machine;
  }
  throw new Error("no node says that it is the owner");
}

beforeAll(async () => {
  const built = process.env["COVERLAY_VM_PACKAGE"];
  const output = mkdtempSync(path.join(os.tmpdir(), "coverlay-vm-package-"));
  try {
    const file = built ?? buildPackage(output);
    packageName = path.basename(file);
    machines = await startMachines(file);
  } finally {
    rmSync(output, { recursive: true, force: true });
  }
});
afterAll(async () => machines?.end());

describe("three bare machines", () => {
  it("boot, each with a kernel of its own, older than 6.16, and with the disk of all", async () => {
    await each(async (machine) => {
      await machine.boot();
      expect(await machine.type("uname -r; hostname; lsblk -n -o SERIAL /dev/sda")).toMatch(
        new RegExp(`^6\\.1\\..*\\n${machine.name}\\nshared\\n`),
      );
      expect((await machine.run("command -v coverlay node")).stdout).toBe("");
    });
  });

  it("the package is installed without a network", async () => {
    await each(async (machine) => {
      await machine.type(
        `mount -o ro ${STICK} /mnt && cd /mnt && ${documented("packaging/README.md", "apt install ./coverlay_0.1.0_amd64.deb")}`,
      );
      await machine.type("umount /mnt");
      progress(`${machine.name}: coverlay is installed`);
      expect(await machine.type("coverlay --version; systemctl is-enabled dlmd || true")).toMatch(/^\d+\.\d+\.\d+\ndisabled\n/);
    });
  });

  it("one key, the volume is marked, and one configuration", async () => {
    const first = machines.machine(1);
    await first.type(`mkfs.ext4 -q ${DEVICE}`);
    await first.type(documented("README.md", "coverlay keygen /etc/coverlay/cluster.key"));
    progress("node1: the volume is marked");
    const said = await first.type(documented("README.md", "coverlay volume enable /dev/sdb1 --cluster mycluster --name data"));
    const [lines = ""] = /^ {2}- name: data\n(?: {4}.*\n?)+/m.exec(said) ?? [];
    expect(lines).toContain("uuid: ");
    const key = await first.type("cat /etc/coverlay/cluster.key");
    await each((machine) =>
      machine.type(`umask 077; cat >/etc/coverlay/cluster.key <<'EOF'\n${key}EOF
cat >/etc/coverlay/cluster.yaml <<'EOF'\n${clusterConfig(`${lines.trimEnd()}\n`)}EOF`),
    );
    await each((machine) => machine.type("coverlay config check /etc/coverlay/cluster.yaml"));
  });

  it("the lock manager is started as a service, and the line of fstab mounts the volume", async () => {
    const line = documented(
      "packaging/README.md",
      "/dev/sdb1  /shared  clustered  rw,_netdev,wait,nofail,x-systemd.requires=dlmd.service,x-systemd.mount-timeout=0  0  0",
    );
    await each(async (machine) => {
      progress(`${machine.name}: dlmd is started`);
      await machine.type(documented("packaging/README.md", "systemctl enable --now dlmd"));
      await machine.type(`mkdir /shared; echo '${line}' >>/etc/fstab; systemctl daemon-reload; mount /shared`);
      expect(await machine.type(MOUNTED)).toContain("fuse.clustered");
      progress(`${machine.name}: /shared is mounted`);
    });
  });

  it("one file system: a file of each node is read on all; status is well, and doctor content", async () => {
    await each((machine) => machine.type(`echo from ${machine.name} >/shared/${machine.name}`));
    await each(async (machine) => {
      expect(await machine.type("cat /shared/node1 /shared/node2 /shared/node3")).toBe("from node1\nfrom node2\nfrom node3\n");
      expect((await machine.run("coverlay status")).status).toBe(0);
      const { findings } = JSON.parse((await machine.run("coverlay doctor --json")).stdout) as {
        findings: readonly { check: string; about: string; status: string; found: string }[];
      };
      expect(findings.filter(({ status }) => status === "fail")).toEqual([]);
      progress(`${machine.name}: doctor: ${findings.map(({ check, status }) => `${check} ${status}`).join(", ")}`);
    });
  });

  it("the service is confined as far as the unit says", async () => {
    const said = await machines.machine(1).type("systemd-analyze security --no-pager dlmd.service | tail -1");
    progress(said.trim());
    expect(Number(/level[^:]*: ([\d.]+)/.exec(said)?.[1])).toBeLessThanOrEqual(7);
  });
});

describe("restarts", () => {
  it.each(nodeids)("node%i is restarted: it comes back mounted, and the others go on", async (nodeid) => {
    const machine = machines.machine(nodeid);
    const next = machine.untilBooted();
    order(machine, "systemctl reboot");
    await Promise.all(others(machine).map((other) => other.type(`echo went on >/shared/while-${machine.name}-on-${other.name}`)));
    await next;
    await untilMounted(machine);
    expect(await machine.type(`cat /shared/while-${machine.name}-on-*`)).toBe("went on\nwent on\n");
    expect((await machine.run("systemctl is-system-running --wait; systemctl --failed --no-legend")).stdout).toBe("running\n");
    // How the boot before has ended.
    expect((await machine.run("journalctl -b -1 --no-pager | grep -Ei 'failed unmounting|failed with result'")).stdout).toBe("");
    for (const other of others(machine)) expect((await other.run(MOUNTED)).status).toBe(0);
  });

  it.each(orders.slice(0, ORDERS).map((nodes) => ({ nodes })))("all are switched off, and boot in the order $nodes", async ({ nodes }) => {
    await each(async (machine) => {
      const off = machine.untilOff();
      order(machine, "systemctl poweroff");
      await off;
    });
    for (const nodeid of nodes) await machines.machine(nodeid).boot();
    await each(async (machine) => {
      await untilMounted(machine);
      expect(await machine.type("cat /shared/node1 /shared/node2 /shared/node3")).toBe("from node1\nfrom node2\nfrom node3\n");
      expect((await machine.run("systemctl is-system-running --wait; systemctl --failed --no-legend")).stdout).toBe("running\n");
    });
    expect(machines.fenced).toEqual([]);
  });
});

describe("failures", () => {
  it("the owner's power is cut under load: it is fenced, the others go on, and what was synced is there", async () => {
    const victim = await owner();
    const [loaded, other] = others(victim) as [Machine, Machine];
    await victim.type("echo precious >/shared/precious && sync /shared/precious");
    await loaded.type(`systemd-run --quiet --unit=load sh -c '
      n=0; while n=$((n + 1)); do echo $n >>/shared/load && sync /shared/load && echo $n >/run/load; done'`);
    await loaded.until("the load runs", "[ $(cat /run/load) -ge 3 ]");
    await victim.cutPower();
    const before = Number(await loaded.type("cat /run/load"));
    await loaded.until("the load goes on", `[ $(cat /run/load) -ge ${before + 3} ]`);
    expect(machines.fenced).toEqual([victim.name]);
    await loaded.type("systemctl stop load");
    const after = Number(await loaded.type("cat /run/load"));
    const lines = (await other.type("cat /shared/precious /shared/load")).split("\n");
    expect(lines.slice(0, after + 1)).toEqual(["precious", ...Array.from({ length: after }, (_, index) => String(index + 1))]);
    expect((await other.run("coverlay fence show")).stdout).toContain(victim.name);

    await victim.boot();
    await untilMounted(victim);
    expect(await victim.type("cat /shared/precious")).toBe("precious\n");
  });

  it("a dlmd that stands still is ended and started again by systemd", async () => {
    const machine = machines.machine(2);
    const restarts = async (): Promise<number> => Number(await machine.type("systemctl show --value -p NRestarts dlmd"));
    const before = await restarts();
    await machine.type("systemctl kill --kill-whom=main -s STOP dlmd");
    await machine.until(
      "systemd starts it again",
      `[ $(systemctl show --value -p NRestarts dlmd) -gt ${before} ] && systemctl is-active dlmd`,
    );
    expect(await machine.type("journalctl -b -u dlmd --no-pager | grep -c 'Watchdog timeout'")).toBe("1\n");
    await untilMounted(machine);
    expect(await machine.type("cat /shared/precious")).toBe("precious\n");
  });
});
