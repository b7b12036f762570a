/** dlmd under a service manager: its words on a real socket, and the unit of the package (sd_notify(3), systemd.service(5)). */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import path from "node:path";
import { text } from "node:stream/consumers";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { until } from "../actor.ts";
import { adminSocketPath, askAdmin } from "../../../dlmd/client/admin.ts";
import { createCluster, dlmdProgram } from "./cluster.ts";

const root = path.resolve(import.meta.dirname, "../../..");

/** Prints each datagram as a line. */
const listener = `import json, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print(json.dumps("bound"), flush=True)
while True: print(json.dumps(s.recv(4096).decode()), flush=True)`;

/** A state has that long to be kept, also beside other lock managers that are busy. */
const TIMEOUT_MS = 600;
/** Of a start. */
const STEPS = 11;

test("says each step of its start, READY when programs may connect, what it sees, that it turns, and that it leaves", async () => {
  const cluster = createCluster({ nodes: 1 });
  const socket = path.join(cluster.dir, "notify");
  const manager = spawn("python3", ["-c", listener, socket], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    const said: string[] = [];
    createInterface({ input: manager.stdout }).on("line", (line) => void said.push(JSON.parse(line) as string));
    await until("the manager listens", () => said.length > 0);

    const configFile = path.join(cluster.dir, "service.yaml");
    writeFileSync(configFile, readFileSync(cluster.configFile, "utf8").replace(/^timeoutMs: .*$/m, `timeoutMs: ${TIMEOUT_MS}`));
    const runDir = path.join(cluster.dir, "service");
    mkdirSync(runDir, { mode: 0o700 });
    const env = { ...process.env, NOTIFY_SOCKET: socket, WATCHDOG_USEC: "1000000", COVERLAY_TEST_TIMEOUT_MS: String(TIMEOUT_MS) };
    const words = [dlmdProgram, "--config", configFile, "--node", "node1", "--run-dir", runDir];
    const dlmd = spawn(process.execPath, words, { env, stdio: ["ignore", "pipe", "ignore"] });
    const ended = once(dlmd, "exit");
    try {
      await until("dlmd turns", () => said.filter((line) => line === "WATCHDOG=1").length > 1);
      // Its time-out counts for more than the manager's second.
      const ready = said.indexOf(`READY=1\nWATCHDOG_USEC=${10 * TIMEOUT_MS * 1000}`);
      // Each step of the start has its time, and none is said by time: those of the life are over, and dlmd has turned since.
      const steps = said.flatMap((line, at) => (line.startsWith("EXTEND_TIMEOUT_USEC=") ? [[line, at < ready]] : []));
      // While the manager's socket is full, the last one stands for those before it.
      expect(steps.length).toBeGreaterThan(0);
      expect(steps.length).toBeLessThanOrEqual(STEPS);
      expect(steps).toEqual(steps.map(() => ["EXTEND_TIMEOUT_USEC=90000000", true]));
      expect([ready > 0, said.slice(0, ready).filter((line) => line.startsWith("WATCHDOG"))]).toEqual([true, []]);
      expect(said).toContain("STATUS=node 1; locks are granted");
      // In the same process: the manager is told as before, and not that it ends.
      const readies = (): number => said.filter((line) => line.startsWith("READY=1")).length;
      expect(await askAdmin(runDir, { what: "restart", by: "a test" })).toEqual({ pid: dlmd.pid });
      await until("it is ready again", () => readies() === 2);
      await until("it turns again", () => said.lastIndexOf("WATCHDOG=1") > said.findLastIndex((line) => line.startsWith("READY=1")));
      expect([dlmd.exitCode, said.filter((line) => line.startsWith("STOPPING"))]).toEqual([null, []]);
    } finally {
      dlmd.kill("SIGTERM");
      expect(await ended).toEqual([0, null]);
    }
    await until("it has said that it leaves", () => said.includes("STOPPING=1\nSTATUS=leaving the cluster"));
  } finally {
    manager.kill("SIGKILL");
    await cluster.close();
  }
});

test("two restarts at once are one, and dlmd goes on in its process", async () => {
  const cluster = createCluster({ nodes: 1 });
  try {
    const { pid } = (await cluster.start(1)).child;
    // Both are there when it turns again.
    cluster.signal(1, "SIGSTOP");
    const asked = await Promise.all([1, 2].map((nth) => askedForRestart(cluster.runDir(1), nth)));
    cluster.signal(1, "SIGCONT");
    const answers = await Promise.all(asked.map(({ answer }) => answer));
    expect(answers.filter((answer) => answer === `${JSON.stringify({ answer: { pid } })}\n`)).toHaveLength(1);
    await until("it has left", () => cluster.log(1).some(({ msg }) => String(msg).startsWith("left;")));
    await until("it has started anew", () =>
      askAdmin(cluster.runDir(1), { what: "config-show" }).then(
        () => true,
        () => false,
      ),
    );
    const restarts = cluster.log(1).filter(({ msg }) => msg === "leaving the cluster");
    expect(restarts.map(({ by }) => by)).toEqual([expect.stringMatching(/^person/)]);
    expect(await cluster.kill(1, "SIGTERM")).toBe(0);
  } finally {
    await cluster.close();
  }
});

/** It has been sent when this resolves. "": no answer. */
async function askedForRestart(runDir: string, nth: number): Promise<{ answer: Promise<string> }> {
  const socket = createConnection(adminSocketPath(runDir));
  await once(socket, "connect");
  await new Promise((resolve) => socket.write(`${JSON.stringify({ what: "restart", by: `person${nth}` })}\n`, resolve));
  return { answer: text(socket).catch(() => "") };
}

test("the unit of the package is one that systemd takes, and makes no mount namespace", () => {
  const unit = readFileSync(path.join(root, "packaging/systemd/dlmd.service"), "utf8");
  const cluster = createCluster({ nodes: 1 });
  try {
    const file = path.join(cluster.dir, "dlmd.service");
    writeFileSync(file, unit.replaceAll(/\/usr\/sbin\/(dlmd|coverlay)/g, "/bin/true"));
    const { status, stderr } = spawnSync("systemd-analyze", ["verify", file], { encoding: "utf8" });
    expect([status, stderr.split("\n").filter((line) => line.includes("dlmd.service"))]).toEqual([0, []]);
  } finally {
    void cluster.close();
  }
  expect(unit).toContain(`ExecStop=+/bin/sh -c 'test -z "$$MAINPID" || exec /usr/sbin/coverlay umount --all'\n`);
  // systemd.exec(5): with any of these its mounts, and a disk under one of them, would be held by a copy.
  expect(unit).not.toMatch(/^(Protect|Private|ReadOnly|ReadWrite|Inaccessible|Bind|Temporary|Root|Mount|ProcSubset|Dynamic)\w*=/m);
  expect(unit).not.toMatch(/^Device(Allow|Policy)=/m);
});
