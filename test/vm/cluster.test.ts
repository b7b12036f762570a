/**
 * From three bare machines to a mounted volume, with the steps of README.md and packaging/README.md as they stand there. Then each is restarted, all boot
 * in several orders, a lock manager stands still, and the owner's power is cut. Each step goes on from the one before. README.md beside this file.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { NodeFinding } from "../../overlay/setup/finding.ts";
import type { Machine } from "./machine.ts";
import { type Machines, startMachines } from "./machines.ts";
import { addressOf, debian, nodeids } from "./image.ts";
import { LOAD_COUNT, LOAD_SAID, LOAD_SCRIPT, type LoadSaid, loadFaults } from "./load.ts";
import { progress } from "./progress.ts";

const root = path.resolve(import.meta.dirname, "../..");
const DEVICE = "/dev/sda1";
const STICK = "/dev/vdb";
const FSTAB_OPTIONS = "rw,_netdev,wait,nofail,x-systemd.requires=dlmd.service,x-systemd.mount-timeout=0";

/** Of `coverlay setup --json`. */
interface SetupStep {
  readonly on: string;
  readonly command: string;
}

interface FileSystem {
  readonly name: string;
  /** Its first size. Its disk is over three and a half times as large. */
  readonly firstMib: number;
  readonly diskMib: number;
  make(device: string): string;
}

const FILE_SYSTEMS: readonly FileSystem[] = [
  { name: "ext4", firstMib: 128, diskMib: 512, make: (device) => `mkfs.ext4 -q ${device} 128M` },
  // mkfs.xfs makes none of less than 300 MiB.
  { name: "xfs", firstMib: 320, diskMib: 1280, make: (device) => `mkfs.xfs -q -d size=320m ${device}` },
];

function wantedFileSystem(): FileSystem {
  const wanted = process.env["COVERLAY_VM_FILE_SYSTEM"] ?? "ext4";
  const found = FILE_SYSTEMS.find(({ name }) => name === wanted);
  if (found !== undefined) return found;
  throw new Error(`COVERLAY_VM_FILE_SYSTEM=${wanted}: one of ${FILE_SYSTEMS.map(({ name }) => name).join(", ")} is expected`);
}

const fileSystem = wantedFileSystem();
const FIRST_MIB = fileSystem.firstMib;
const BIG_MIB = 8;
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
/** Of the same sources with a later version: nodes are upgraded to it one by one. */
const NEXT_VERSION = "0.1.0+next";
let nextPackageName = "";

/** A command of that document, for this disk and this package. */
function documented(file: string, words: string): string {
  expect(readFileSync(path.join(root, file), "utf8")).toContain(words);
  return words.replaceAll("/dev/sdb1", DEVICE).replace("coverlay_0.1.0_amd64.deb", packageName);
}

/** What a person adds to the file of `coverlay setup`: fence devices, and time-outs for machines that are slow (their processors are emulated). */
const EDIT_CONFIG = String.raw`sed -i -E 's/^(  - \{ nodeid: .*) \}$/\1, fence: [[power]] }/' /etc/coverlay/cluster.yaml
cat >>/etc/coverlay/cluster.yaml <<'EOF'
timeoutMs: 15000
fenceDevices:
  - { name: power, agent: fence_vm, action: off, timeoutMs: 60000, settleMs: 0 }
EOF
grep -c 'fence: \[\[power\]\]' /etc/coverlay/cluster.yaml`;

function buildPackage(output: string, ...words: readonly string[]): string {
  progress("a package is built");
  mkdirSync(output);
  execFileSync("npm", ["run", "package", "--", "--quick", `--output=${output}`, ...words], {
    cwd: root,
    stdio: ["ignore", "ignore", "inherit"],
  });
  const name = readdirSync(output).find((file) => file.endsWith(".deb")) ?? "";
  return path.join(output, name);
}

const others = (machine: Machine): Machine[] => machines.all.filter((each) => each !== machine);
const each = async (act: (machine: Machine) => Promise<unknown>): Promise<void> => void (await Promise.all(machines.all.map(act)));
/** One after the other: a limit of `coverlay` is in seconds, and three emulated processors that are busy at once do not keep it. */
const eachAlone = async (act: (machine: Machine) => Promise<unknown>): Promise<void> => {
  for (const machine of machines.all) await act(machine);
};
/** A mount whose overlay has ended is still in the table of mounts: a call in it fails. */
const MOUNTED = "findmnt -n -t fuse.clustered /shared && ls /shared >/dev/null";
const untilMounted = (machine: Machine): Promise<void> => machine.until("/shared is mounted", MOUNTED);

const machineOf = (is: (machine: Machine) => boolean): Machine => {
  const found = machines.all.find(is);
  if (found === undefined) throw new Error("no such machine");
  return found;
};
const install = (machine: Machine, command: string): Promise<string> =>
  machine.type(`mount -o ro ${STICK} /mnt && cd /mnt && ${command} && cd / && umount /mnt`);

/** It ends the connection that it came by. */
function order(machine: Machine, command: "systemctl reboot" | "systemctl poweroff"): void {
  progress(`${machine.name}: ${command}`);
  machine.run(command).catch(() => undefined);
}

async function startLoad(machine: Machine): Promise<void> {
  await machine.type(`rm -f /shared/load; cat >/run/load.sh <<'EOF'\n${LOAD_SCRIPT}EOF\nsystemd-run --quiet --unit=load sh /run/load.sh`);
  await machine.until("the load runs", `[ $(${LOAD_COUNT}) -ge 3 ]`);
}

/** Ends it; gives what it said, and what is in its file on that other machine. */
async function endLoad(machine: Machine, other: Machine): Promise<LoadSaid> {
  await machine.type("systemctl stop load");
  return {
    file: await other.type("cat /shared/load"),
    synced: await machine.type(LOAD_SAID.synced),
    unsure: await machine.type(LOAD_SAID.unsure),
  };
}

async function untilLoadGoesOn(machine: Machine): Promise<void> {
  const before = Number(await machine.type(LOAD_COUNT));
  await machine.until("the load goes on", `[ $(${LOAD_COUNT}) -ge ${before + 3} ]`);
}

async function owner(): Promise<Machine> {
  for (const machine of machines.all) {
    if (!machine.isOn()) continue;
    const { overlays } = JSON.parse((await machine.run("coverlay status --json --limit 60")).stdout) as {
      overlays: readonly { role: string }[];
    };
    if (overlays.some(({ role }) => role === "owner")) return machine;
  }
  throw new Error("no node says that it is the owner");
}

beforeAll(async () => {
  const built = process.env["COVERLAY_VM_PACKAGE"];
  const output = mkdtempSync(path.join(os.tmpdir(), "coverlay-vm-package-"));
  try {
    const file = built ?? buildPackage(path.join(output, "first"));
    const next = buildPackage(path.join(output, "next"), `--deb-version=${NEXT_VERSION}`);
    packageName = path.basename(file);
    nextPackageName = path.basename(next);
    machines = await startMachines([file, next], fileSystem.diskMib * 2 ** 20);
  } finally {
    rmSync(output, { recursive: true, force: true });
  }
});
afterAll(async () => machines?.end());

describe("three bare machines", () => {
  it("boot, each with a kernel of its own, and with the disk of all", async () => {
    await each(async (machine) => {
      await machine.boot();
      // Its driver is loaded, and udev names it, beside what systemd starts.
      await machine.until("the disk of all is there", `[ -b ${DEVICE} ] && lsblk -n -o SERIAL /dev/sda | grep -q shared`);
      const [kernel = "", ...lines] = (await machine.type("uname -r; hostname; lsblk -n -o SERIAL /dev/sda")).split("\n");
      expect(kernel).toContain(debian.kernel);
      expect(lines.slice(0, 2)).toEqual([machine.name, "shared"]);
      expect((await machine.run("command -v coverlay node")).stdout).toBe("");
    });
  });

  it("the package is installed without a network", async () => {
    await each(async (machine) => {
      await install(machine, documented("packaging/README.md", "apt install ./coverlay_0.1.0_amd64.deb"));
      progress(`${machine.name}: coverlay is installed`);
      expect(await machine.type("coverlay --version; systemctl is-enabled dlmd || true")).toMatch(/^\d+\.\d+\.\d+\ndisabled\n/);
    });
  });

  it("coverlay setup writes the configuration and the key, and its commands bring all up", async () => {
    const first = machines.machine(1);
    await first.type(fileSystem.make(DEVICE));
    const nodes = nodeids.map((nodeid) => `--node node${nodeid}=${addressOf(nodeid)}`).join(" ");
    const setup = `coverlay setup --cluster mycluster ${nodes} --device ${DEVICE} --multicast 239.192.77.1 --yes --json`;
    const { status, stdout, stderr } = await first.run(setup);
    // 1: a check has not ended within its limit, on a processor that is emulated.
    expect([0, 1], `${setup}\n${stdout}${stderr}`).toContain(status);
    const { steps } = JSON.parse(stdout) as { steps: readonly SetupStep[] };
    expect(await first.type(EDIT_CONFIG)).toBe(`${nodeids.length}\n`);
    const typed: string[] = [];
    const take = async ({ on, command }: SetupStep): Promise<void> => {
      typed.push(command);
      progress(`${on}: ${command}`);
      const how = await machineOf((machine) => machine.name === on).run(command);
      const isUnsure = command.startsWith("coverlay doctor ") && how.status === 1;
      expect(isUnsure ? 0 : how.status, `${on}: ${command}\n${how.stdout}${how.stderr}`).toBe(0);
    };
    // The machines have no ssh: what it would do is done over the serial port, with the files of its own words.
    const copy = async ({ command }: SetupStep): Promise<void> => {
      const [, from = "", address = ""] = /^(?:ssh|scp -p (.+)) root@([0-9.]+)(?::| )/.exec(command) ?? [];
      const target = machineOf(({ nodeid }) => addressOf(nodeid) === address);
      for (const file of from.split(" ").filter((word) => word !== "")) {
        const text = await first.type(`base64 -w0 ${file}`);
        await target.type(`umask 077; mkdir -p ${path.dirname(file)}; base64 -d >${file} <<<${text}`);
      }
    };
    const isCopy = ({ command }: SetupStep): boolean => /^(ssh|scp) /.test(command);
    const isShared = (step: SetupStep): boolean => isCopy(step) || /^coverlay (volume|doctor) /.test(step.command);
    for (const step of steps.filter(isShared)) await (isCopy(step) ? copy(step) : take(step));
    await each((machine) => machine.type("coverlay config check /etc/coverlay/cluster.yaml"));
    // On each node in their order; a mount waits until there is a quorum.
    await each(async ({ name }) => {
      for (const step of steps.filter((one) => one.on === name && !isShared(one))) await take(step);
    });
    const enable = documented("README.md", "coverlay volume enable /dev/sdb1 --cluster mycluster --name data");
    // What is typed for anybody's names has each behind its option's "=".
    expect(typed.filter((command) => command.replaceAll(/( --\w+)=/g, "$1 ").startsWith(enable))).toHaveLength(1);
    expect(typed.filter((command) => command === documented("packaging/README.md", "systemctl enable --now dlmd"))).toHaveLength(3);
    await each(async (machine) => {
      expect(await machine.type(MOUNTED)).toContain("fuse.clustered");
      expect(await machine.type("tail -1 /etc/fstab")).toContain(documented("packaging/README.md", FSTAB_OPTIONS));
    });
  });

  it("one file system: a file of each node is read on all", async () => {
    await each((machine) => machine.type(`echo from ${machine.name} >/shared/${machine.name}`));
    await each(async (machine) => {
      expect(await machine.type("cat /shared/node1 /shared/node2 /shared/node3")).toBe("from node1\nfrom node2\nfrom node3\n");
    });
  });

  it("the file system grows to the size of its partition while a program writes on another node", async () => {
    const grower = await owner();
    const [writer, other] = others(grower) as [Machine, Machine];
    const sizeMib = async (machine: Machine): Promise<number> =>
      Number(await machine.type("df --output=size -BM /shared | tail -1 | tr -d M"));
    const sum = async (machine: Machine, file: string): Promise<string> => (await machine.type(`md5sum <${file}`)).slice(0, 32);
    expect(await sizeMib(other)).toBeLessThan(FIRST_MIB);
    const command = documented("docs/operating.md", "coverlay volume grow data");
    const refused = await writer.run(command);
    expect({ status: refused.status, names: refused.stderr.includes(`On ${grower.name}: ${command}`) }).toEqual({
      status: 32,
      names: true,
    });
    // A copy outside of the volume of what was written to it. It stops between two lines.
    await writer.type(`cat >/run/writer.sh <<'EOF'
n=0
while [ ! -e /run/writer.stop ]; do n=$((n + 1)); echo line $n >>/shared/grown && echo line $n >>/run/grown || exit 1; done
EOF
systemd-run --quiet --unit=writer sh /run/writer.sh`);
    const WRITTEN = "wc -l </run/grown";
    await writer.until("it writes", `[ $(${WRITTEN}) -ge 10 ]`);
    const before = Number(await writer.type(WRITTEN));
    progress(`${grower.name}: ${command}: ${(await grower.type(command)).trim()}`);
    const after = Number(await writer.type(WRITTEN));
    progress(`${writer.name} wrote ${after - before} lines meanwhile`);
    expect(after).toBeGreaterThan(before);
    await writer.until("it writes still, or has failed", `[ $(${WRITTEN}) -ge ${after + 10} ] || ! systemctl -q is-active writer`);
    expect(await writer.type("systemctl show --value -p Result writer")).toBe("success\n");
    await writer.type("touch /run/writer.stop; until [ $(systemctl is-active writer) != active ]; do sleep 1; done");
    expect(await writer.type("systemctl show --value -p Result writer")).toBe("success\n");
    // The filler alone would not have fitted into the first size.
    await writer.type(`fallocate -l ${FIRST_MIB}M /shared/filler`);
    await writer.type(
      `yes coverlay | dd iflag=fullblock bs=1M count=${BIG_MIB} of=/run/big && dd bs=1M if=/run/big of=/shared/big && sync /shared/big`,
    );
    const written = { grown: await sum(writer, "/run/grown"), big: await sum(writer, "/run/big") };
    await each(async (machine) => {
      expect(await sizeMib(machine)).toBeGreaterThan(3 * FIRST_MIB);
      expect({ grown: await sum(machine, "/shared/grown"), big: await sum(machine, "/shared/big") }).toEqual(written);
    });
    await writer.type("rm /shared/filler /shared/big /shared/grown /run/big");
  });

  it("status is well, and doctor content", async () => {
    await eachAlone(async (machine) => {
      const status = await machine.run("coverlay status --limit 60");
      expect({ status: status.status, said: status.stdout + status.stderr }).toEqual({ status: 0, said: status.stdout });
      await machine.run("coverlay doctor --here --json --limit 120 >/run/doctor.json");
      const { findings } = JSON.parse(await machine.type("cat /run/doctor.json")) as { findings: readonly NodeFinding[] };
      progress(`${machine.name}: doctor: ${findings.map(({ check, status: how }) => `${check} ${how}`).join(", ")}`);
      expect(findings.filter(({ status: how }) => how === "fail")).toEqual([]);
    });
  });

  it("doctor on one node has the others checked by their dlmds, confined as the unit says", async () => {
    const [asking] = machines.all as [Machine];
    await asking.run("coverlay doctor --json --limit 120 >/run/doctor.json");
    const { findings } = JSON.parse(await asking.type("cat /run/doctor.json")) as { findings: readonly NodeFinding[] };
    expect(findings.filter(({ status }) => status === "fail")).toEqual([]);
    for (const other of others(asking)) {
      const found = findings.filter(({ node }) => node === other.name);
      progress(`${other.name}, asked: ${found.map(({ check, status }) => `${check} ${status}`).join(", ")}`);
      // Of the disk too: the unit's filter of system calls lets it look.
      const wanted = ["device", "same-disk", "fstab"];
      const ok = found.filter(({ check, status }) => wanted.includes(check) && status === "ok").map(({ check }) => check);
      expect(ok.toSorted()).toEqual(wanted.toSorted());
    }
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
    const off = machine.untilOff();
    order(machine, "systemctl reboot");
    await Promise.all(others(machine).map((other) => other.type(`echo went on >/shared/while-${machine.name}-on-${other.name}`)));
    await off;
    await machine.boot();
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

describe("upgrade", () => {
  it("node by node, as packaging/README.md says it: no call fails on another node", async () => {
    // The owner first: so the volume is handed over at least once.
    const first = await owner();
    for (const machine of [first, ...others(first)]) {
      const loaded = others(machine)[0] as Machine;
      await startLoad(loaded);
      const command = documented("packaging/README.md", "apt install ./coverlay_NEW_amd64.deb");
      await install(machine, command.replace("coverlay_NEW_amd64.deb", nextPackageName));
      expect(await machine.type("dpkg-query -W -f='${Version}' coverlay")).toBe(NEXT_VERSION);
      for (const step of ["coverlay umount /shared", "systemctl restart dlmd", "mount /shared"]) {
        progress(`${machine.name}: ${step}`);
        await machine.type(documented("packaging/README.md", step));
      }
      await untilMounted(machine);
      await untilLoadGoesOn(loaded);
      const said = await endLoad(loaded, machine);
      progress(`${machine.name} is upgraded; ${loaded.name} has synced ${said.synced.split("\n").length - 1} lines meanwhile`);
      expect([said.unsure, loadFaults(said)]).toEqual(["", []]);
    }
    expect(machines.fenced).toEqual([]);
  });

  it("a stop of dlmd unmounts what was mounted by hand, and releases the volume", async () => {
    const machine = machines.machine(3);
    await machine.type(`umount /shared && mkdir -p /hand && mount -t clustered ${DEVICE} /hand && cat /hand/node1`);
    await machine.type("systemctl stop dlmd");
    expect((await machine.run("findmnt -n /hand || ls -A /hand")).stdout).toBe("");
    expect((await machine.run("systemctl is-failed dlmd; pgrep -f '[o]verlay/main.js'")).stdout).toBe("inactive\n");
    await machine.type("systemctl start dlmd && mount /shared");
    await untilMounted(machine);
    expect(machines.fenced).toEqual([]);
  });
});

describe("failures", () => {
  it("the owner's power is cut under load: it is fenced, the others go on, and what was synced is there", async () => {
    const victim = await owner();
    const [loaded, other] = others(victim) as [Machine, Machine];
    await victim.type("echo precious >/shared/precious && sync /shared/precious");
    await startLoad(loaded);
    await victim.cutPower();
    await untilLoadGoesOn(loaded);
    progress(`${loaded.name}: the load goes on`);
    expect(machines.fenced).toEqual([victim.name]);
    const said = await endLoad(loaded, other);
    expect(await other.type("cat /shared/precious")).toBe("precious\n");
    progress(`${said.synced.split("\n").length - 1} lines were synced, of ${said.unsure.split("\n").length - 1} an append or sync failed`);
    expect(loadFaults(said)).toEqual([]);
    expect((await other.run("coverlay fence show")).stdout).toContain(victim.name);

    await victim.boot();
    await untilMounted(victim);
    expect(await victim.type("cat /shared/precious")).toBe("precious\n");
  });

  it("a dlmd that stands still while no other one runs is ended and started again by systemd, and its mount is back", async () => {
    const machine = machines.machine(2);
    const restarts = async (): Promise<number> => Number(await machine.type("systemctl show --value -p NRestarts dlmd"));
    const before = await restarts();
    // With a quorum the others would fence the node long before its watchdog bites.
    await Promise.all(others(machine).map((other) => other.type("systemctl stop dlmd")));
    await machine.type("systemctl kill --kill-whom=main -s STOP dlmd");
    await machine.until(
      "systemd starts it again",
      `[ $(systemctl show --value -p NRestarts dlmd) -gt ${before} ] && systemctl is-active dlmd`,
    );
    progress(`${machine.name}: its dlmd runs again`);
    expect(await machine.type("journalctl -b -u dlmd --no-pager | grep -c 'Watchdog timeout'")).toBe("1\n");
    await Promise.all(others(machine).map((other) => other.type("systemctl start dlmd && mount /shared")));
    await each(async (one) => {
      await untilMounted(one);
      expect(await one.type("cat /shared/precious")).toBe("precious\n");
    });
    expect(machines.fenced).toHaveLength(1);
  });
});
