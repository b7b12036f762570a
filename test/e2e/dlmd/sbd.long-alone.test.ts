/**
 * fence_sbd on a real disk of sbd, with the real daemon of the node that is fenced, but no watchdog: it runs in a PID and mount namespace of its own,
 * without the right to reboot (CAP_SYS_BOOT), and its log says what it would have done.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { decodeClusterConfig } from "../../../dlmd/config/cluster-config.ts";
import { fencingMistakes } from "../../../dlmd/fence-agent/check.ts";
import { fence } from "../../../dlmd/fence-agent/fence-device.ts";
import { MetadataShelf } from "../../../dlmd/fence-agent/metadata-shelf.ts";
import { deviceOf } from "../../unit/fence-agent/agents.ts";
import { until } from "../actor.ts";

const SBD = "/usr/sbin/sbd";
const missing = [SBD, "/usr/sbin/fence_sbd", "/usr/bin/python3"].filter((file) => !existsSync(file));
const SYS_BOOT = 1n << 22n;

let folder: string;
let loop: string;
let watcher: ChildProcess | null = null;
beforeEach(() => {
  if (missing.length > 0) return;
  // Not below /dev, which the daemon's namespace has of its own.
  folder = mkdtempSync("/var/tmp/coverlay-sbd-");
  writeFileSync(path.join(folder, "disk"), "");
  truncateSync(path.join(folder, "disk"), 4 * 1024 * 1024);
  loop = execFileSync("losetup", ["-f", "--show", path.join(folder, "disk")], { encoding: "utf8" }).trim();
});
afterEach(() => {
  if (missing.length > 0) return;
  watcher?.kill("SIGKILL");
  watcher = null;
  execFileSync("losetup", ["-d", loop]);
  rmSync(folder, { recursive: true, force: true });
});

const sbd = (...words: string[]): string => execFileSync(SBD, ["-d", loop, ...words], { encoding: "utf8" });
const log = (): string => (existsSync(path.join(folder, "syslog")) ? readFileSync(path.join(folder, "syslog"), "latin1") : "");

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1");
  } catch {
    return ""; // It has ended meanwhile.
  }
}

/** The daemon of node3, as on a machine of its own. */
async function watch(): Promise<void> {
  const script = `set -e
mkdir ${folder}/dev && mount -t tmpfs none ${folder}/dev
cp -a /dev/null /dev/zero /dev/random /dev/urandom ${folder}/dev/ && mkdir ${folder}/dev/shm
mknod ${folder}/dev/sbd b 7 ${loop.replace("/dev/loop", "")}
mount --move ${folder}/dev /dev
python3 -c 'import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("/dev/log")
while True: print(s.recv(4096).decode(), flush=True)' > ${folder}/syslog &
while [ ! -S /dev/log ]; do sleep 0.1; done
export SBD_SYNC_RESOURCE_STARTUP=no
setpriv --bounding-set=-sys_boot --inh-caps=-sys_boot ${SBD} -v -v -d /dev/sbd -W -W -P -P -R -n node3 watch &
wait
`;
  watcher = spawn("unshare", ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script], { stdio: "inherit" });
  await until("the daemon reads its slot", () => /servant_md: Latency/.test(log()), log);
  // Else the machine of this test would be switched off.
  const isDaemon = (pid: string): boolean => /^sbd: (watcher: \/dev\/sbd|inquisitor)/.test(commandOf(pid));
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name) && isDaemon(name));
  expect(pids.length).toBeGreaterThan(1);
  for (const pid of pids) {
    const bounding = /^CapBnd:\s+([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "ffffffffff";
    if ((BigInt(`0x${bounding}`) & SYS_BOOT) !== 0n) throw new Error(`${pid} could reboot this machine`);
  }
}

const target = (more: object = {}) => {
  const device = deviceOf("fence_sbd", { action: "reboot", timeoutMs: 60_000, options: { devices: loop }, ...more });
  return { device, target: { device: "test", plug: "node3", options: {} }, nodeName: "node3" };
};
const run = (more: object = {}) => {
  const at = target(more);
  return fence(at, at.device.action, new MetadataShelf(), new AbortController().signal);
};

describe.skipIf(missing.length > 0)(`fence_sbd (needs ${missing.join(" and ") || "sbd and fence-agents"})`, () => {
  test("is a proof when its time is over: the node has read its slot, and ends itself", async () => {
    sbd("-1", "1", "-4", "6", "create");
    sbd("allocate", "node3");
    await watch();
    expect(await run()).toEqual({ ok: true });
    expect(sbd("list")).toMatch(/^0\tnode3\treset\t/);
    // By then: else msgwait would have been no proof.
    expect(log()).toMatch(/Received command reset/);
    expect(log()).toMatch(/do_exit: Rebooting system: reboot/);
  });

  test("does nothing at a slot that says off already: so `off` needs msgwait as a settle time, and is refused without", async () => {
    sbd("-1", "1", "-4", "6", "create");
    sbd("allocate", "node3");
    expect(await run({ action: "off", settleMs: 6000 })).toEqual({ ok: true });
    sbd("message", "node3", "clear");
    expect(await run({ action: "off", settleMs: 5000 })).toMatchObject({
      ok: false,
      unable: true,
      words: expect.stringContaining("settleMs of 6000"),
    });
    expect(sbd("list")).toMatch(/^0\tnode3\tclear\t/);
  });

  test("is refused where it cannot prove: a disk without a header, msgwait that is too short, a node without a slot", async () => {
    expect(await run()).toMatchObject({ ok: false, unable: true, words: expect.stringContaining("which names no msgwait") });
    sbd("-1", "5", "-4", "5", "create");
    expect(await run()).toMatchObject({ ok: false, unable: true, words: expect.stringContaining("found msgwait 5 s, watchdog 5 s") });
    sbd("-1", "1", "-4", "6", "create");
    expect(await run()).toMatchObject({ ok: false, unable: false });
    const file = path.join(folder, "cluster.yaml");
    const nodes = "nodes: [{ nodeid: 1, name: node1, address: 10.0.0.1, fence: [[sbd]] }, { nodeid: 2, name: node2, address: 10.0.0.2 }]";
    const config = (timeoutMs: number): string =>
      `cluster: lab\nversion: 1\nfenceDevices: [{ name: sbd, agent: fence_sbd, action: reboot, timeoutMs: ${timeoutMs}, options: { devices: ${loop} } }]\n${nodes}\n`;
    writeFileSync(file, config(60_000));
    expect(await fencingMistakes(decodeClusterConfig(readFileSync(file, "utf8"), file), new MetadataShelf())).toEqual([]);
    expect(await fencingMistakes(decodeClusterConfig(config(6000), file), new MetadataShelf())).toMatchObject([
      { device: "sbd", node: "node1", expected: expect.stringContaining("timeoutMs of more than 6000") },
    ]);
  });
});
