/**
 * Real corosync daemons on this machine, one for each node, each in a network namespace of its own. What made that possible: clients find their
 * corosync by abstract sockets, which belong to the network namespace; /run/corosync.pid is the one file that two of them must not share, so
 * each has a /run of its own; state_dir and run_dir are set; /dev/shm is shared, where names have process ids in them.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createRequire } from "node:module";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { LEAVE_COPIES } from "../../overlay/lab/fuse-mounts.ts";

/** Short, for the tests' sake, and long enough for a busy machine. A dead node is noticed after this and 1.2 times this. */
const tokenMs = 800;
const NETNS_DIR = "/run/netns";

/** Why there can be none here; null: there can. */
export function noCorosync(): string | null {
  if (process.getuid?.() !== 0) return "it needs root";
  if (!existsSync("/usr/sbin/corosync")) return "corosync is not installed (Debian: corosync libcpg4 libquorum5 libvotequorum8)";
  try {
    createRequire(import.meta.url).resolve("koffi");
  } catch {
    return "koffi is not installed (an optional dependency: npm install)";
  }
  return null;
}

function ip(...args: readonly string[]): void {
  execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });
}

let nextCluster = 0;

export class CorosyncCluster {
  readonly #prefix = `cc${process.pid.toString(36)}${(nextCluster++).toString(36)}`;
  readonly #nodeids: readonly number[];
  readonly #folder = mkdtempSync(path.join(tmpdir(), "corosync-"));
  readonly #daemons = new Map<number, ChildProcess>();
  readonly #pids = new Set<number>();

  constructor(nodeids: readonly number[]) {
    this.#nodeids = nodeids;
    ip("netns", "add", this.#hub);
    for (const nodeid of nodeids) {
      ip("-n", this.#hub, "link", "add", `br${nodeid}`, "type", "bridge");
      ip("-n", this.#hub, "link", "set", `br${nodeid}`, "up");
    }
    for (const nodeid of nodeids) this.#makeNode(nodeid);
    this.partition([nodeids]);
    for (const nodeid of nodeids) this.start(nodeid);
  }

  get #hub(): string {
    return `${this.#prefix}h`;
  }

  #netns(nodeid: number): string {
    return `${this.#prefix}n${nodeid}`;
  }

  netnsFile(nodeid: number): string {
    return path.join(NETNS_DIR, this.#netns(nodeid));
  }

  #makeNode(nodeid: number): void {
    const netns = this.#netns(nodeid);
    ip("netns", "add", netns);
    ip("-n", this.#hub, "link", "add", `p${nodeid}`, "type", "veth", "peer", "name", "eth0", "netns", netns);
    ip("-n", this.#hub, "link", "set", `p${nodeid}`, "up");
    ip("-n", netns, "link", "set", "lo", "up");
    ip("-n", netns, "address", "add", `10.91.0.${nodeid}/24`, "dev", "eth0");
    ip("-n", netns, "link", "set", "eth0", "up");
    const folder = path.join(this.#folder, `${nodeid}`);
    for (const name of ["state", "run"]) mkdirSync(path.join(folder, name), { recursive: true });
    writeFileSync(path.join(folder, "corosync.conf"), corosyncConf(this.#nodeids, folder));
  }

  start(nodeid: number): void {
    if (this.#daemons.has(nodeid)) return;
    const conf = path.join(this.#folder, `${nodeid}`, "corosync.conf");
    const command = `${LEAVE_COPIES}; mount -t tmpfs -o size=1m tmpfs /run && exec corosync -f -c ${conf}`;
    // Each of them becomes the next one, so the process is corosync's.
    const child = spawn("ip", ["netns", "exec", this.#netns(nodeid), "unshare", "-m", "sh", "-c", command], { stdio: "ignore" });
    this.#daemons.set(nodeid, child);
    if (child.pid !== undefined) this.#pids.add(child.pid);
  }

  /** As if its machine had lost power. */
  kill(nodeid: number): void {
    this.#daemons.get(nodeid)?.kill("SIGKILL");
    this.#daemons.delete(nodeid);
  }

  /** Each group has a bridge of its own. */
  partition(groups: readonly (readonly number[])[]): void {
    for (const group of groups) for (const nodeid of group) ip("-n", this.#hub, "link", "set", `p${nodeid}`, "master", `br${group[0]}`);
  }

  async close(): Promise<void> {
    const ended = [...this.#daemons.values()].map(
      (child) => new Promise<void>((resolve) => (child.exitCode === null ? child.once("exit", () => resolve()) : resolve())),
    );
    for (const child of this.#daemons.values()) child.kill("SIGKILL");
    await Promise.all(ended);
    for (const netns of [...this.#nodeids.map((nodeid) => this.#netns(nodeid)), this.#hub]) ip("netns", "del", netns);
    rmSync(this.#folder, { recursive: true, force: true });
    // What libqb leaves of processes that were killed.
    for (const name of readdirSync("/dev/shm"))
      if ([...this.#pids].some((pid) => name.startsWith(`qb-${pid}-`) || name.startsWith(`qb-corosync-${pid}-`)))
        rmSync(path.join("/dev/shm", name), { recursive: true, force: true });
  }
}

function corosyncConf(nodeids: readonly number[], folder: string): string {
  const node = (nodeid: number): string =>
    `  node {\n    nodeid: ${nodeid}\n    name: node${nodeid}\n    ring0_addr: 10.91.0.${nodeid}\n  }`;
  return `totem {
  version: 2
  cluster_name: compliance
  transport: udpu
  token: ${tokenMs}
  token_coefficient: 0
  secauth: off
}
system {
  state_dir: ${folder}/state
  run_dir: ${folder}/run
  sched_rr: no
  move_to_root_cgroup: no
}
logging {
  to_stderr: no
  to_syslog: no
  to_logfile: yes
  logfile: ${folder}/log
}
quorum {
  provider: corosync_votequorum
}
nodelist {
${nodeids.map(node).join("\n")}
}
`;
}
