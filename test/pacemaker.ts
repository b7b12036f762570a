/**
 * A real Pacemaker of one node, with its corosync, in namespaces of its own: network, mounts and processes. What both write is in memory, and goes
 * when their first process is killed.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type RunOptions, type RunResult, run } from "../overlay/lab/command.ts";
import { LEAVE_COPIES } from "../overlay/lab/fuse-mounts.ts";
import { until } from "./e2e/actor.ts";

/** Why there can be none here; null: there can. */
export function noPacemaker(): string | null {
  if (process.getuid?.() !== 0) return "it needs root";
  const missing = ["corosync", "pacemakerd", "stonith_admin"].filter((name) => !existsSync(`/usr/sbin/${name}`));
  return missing.length === 0 ? null : `${missing.join(", ")} not installed (Debian: corosync pacemaker pacemaker-cli-utils)`;
}

const corosyncConf = `totem {
  version: 2
  cluster_name: pacemaker
  transport: udpu
  token: 1200
  secauth: off
}
system {
  sched_rr: no
  move_to_root_cgroup: no
  state_dir: /run/coverlay-corosync
  run_dir: /run/coverlay-corosync
}
logging {
  to_stderr: no
  to_syslog: no
}
quorum {
  provider: corosync_votequorum
}
nodelist {
  node {
    nodeid: 1
    name: node1
    ring0_addr: 127.0.0.1
  }
}
`;

/** Its first process; $0 is the folder. Pacemaker's daemons have a user of their own. */
const script = `${LEAVE_COPIES}
set -e
for place in /run /var/lib/pacemaker /var/log /dev/shm; do mount -t tmpfs -o size=64m,mode=1777 tmpfs $place; done
mkdir -p /run/coverlay-corosync /var/log/pacemaker
for name in blackbox cib cores pengine; do mkdir -p /var/lib/pacemaker/$name; done
chown -R hacluster:haclient /var/lib/pacemaker /var/log/pacemaker
ip link set lo up
corosync -f -c $0/corosync.conf &
until corosync-cmapctl >/dev/null 2>&1; do sleep 0.1; done
PCMK_logfile=$0/pacemaker.log PCMK_stderr=no pacemakerd -f &
wait`;

export class Pacemaker {
  /** Not in /dev/shm, over which its processes have one of their own. */
  readonly folder: string = mkdtempSync("/var/tmp/coverlay-pacemaker-");
  readonly #unshare: ChildProcess;

  constructor() {
    writeFileSync(path.join(this.folder, "corosync.conf"), corosyncConf);
    const words = ["--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "sh", "-c", script, this.folder];
    this.#unshare = spawn("unshare", words, { stdio: ["ignore", "ignore", "inherit"], cwd: "/" });
  }

  /** When its fencer answers. */
  async ready(): Promise<void> {
    const log = (): string =>
      existsSync(`${this.folder}/pacemaker.log`) ? readFileSync(`${this.folder}/pacemaker.log`, "utf8").slice(-4000) : "";
    await until(
      "its fencer answers",
      async () => this.#first() !== null && (await this.run(["stonith_admin", "--list-registered"])).status === 0,
      log,
    );
  }

  /** The process that is the first in its namespace; null: not yet. */
  #first(): number | null {
    const { pid } = this.#unshare;
    const children = spawnSync("cat", [`/proc/${pid}/task/${pid}/children`], { encoding: "utf8" }).stdout.trim();
    return children === "" ? null : Number(children.split(" ")[0]);
  }

  /** Within its namespaces. */
  words(command: readonly string[]): string[] {
    return ["nsenter", "--target", `${this.#first()}`, "--net", "--mount", "--pid", "--", ...command];
  }

  run(command: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const [program = "", ...words] = this.words(command);
    return run(program, words, options);
  }

  async end(): Promise<void> {
    const ended = new Promise<void>((resolve) => this.#unshare.once("exit", () => resolve()));
    const first = this.#first();
    if (first !== null) process.kill(first, "SIGKILL");
    this.#unshare.kill("SIGKILL");
    await ended;
    rmSync(this.folder, { recursive: true, force: true });
  }
}
