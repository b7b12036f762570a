/** Fence devices with real daemons: agents that are run after a death and at a person's order, what is shown, and what a program is told. */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { FenceAnswer } from "../../../dlmd/wire/fence-life.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { until } from "../actor.ts";
import { coverlay } from "../lab.ts";
import { startWatchdog, type Watchdog } from "../watchdog.ts";
import { type TestClient, type TestCluster, TestLock, createCluster } from "./cluster.ts";

let folder: string;
let watchdog: Watchdog;
let cluster: TestCluster;
let clients: TestClient[];

/** Kills the dlmd of the plug's node with SIGKILL; with a file "broken" it fails, and its status is by that process. */
function writeAgent(): string {
  const agent = path.join(folder, "fence_test");
  writeFileSync(
    agent,
    `#!/bin/sh
if [ "$2" = metadata ]; then
cat <<END
<?xml version="1.0" ?>
<resource-agent name="fence_test"><parameters>
<parameter name="action" required="1"/><parameter name="dir" required="1"/><parameter name="plug" required="1"/>
</parameters><actions><action name="off"/><action name="status"/></actions></resource-agent>
END
exit 0; fi
while read -r line; do case $line in action=*) action=\${line#*=};; plug=*) plug=\${line#*=};; dir=*) dir=\${line#*=};; esac; done
pid=$(cat $dir/$plug.pid)
echo "$action $plug" >> $dir/asked
runs() { kill -0 $pid 2>/dev/null && ! grep -q '^State:.Z' /proc/$pid/status; }
case $action in
off) if [ -e $dir/broken ]; then echo "the switch of $plug is broken" >&2; exit 1; fi
  kill -9 $pid 2>/dev/null; while runs; do sleep 0.02; done; exit 0;;
status) if runs; then exit 0; else exit 2; fi;;
esac
exit 1
`,
  );
  chmodSync(agent, 0o755);
  return agent;
}

const asked = (): string => (existsSync(path.join(folder, "asked")) ? readFileSync(path.join(folder, "asked"), "utf8") : "");
const ask = (nodeid: number, ...words: string[]) => coverlay([...words, "--run-dir", cluster.runDir(nodeid)]);
const pidKnown = (nodeid: number): void => {
  const pid = readFileSync(path.join(cluster.runDir(nodeid), "dlmd.pid"), "utf8");
  writeFileSync(path.join(folder, `node${nodeid}.pid`), pid);
};

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "coverlay-fence-"));
  watchdog = startWatchdog('rm -rf --one-file-system "$1"', [folder]);
  const device = `  - { name: switch, agent: ${writeAgent()}, options: { dir: ${folder} }, retries: 0, settleMs: 0 }`;
  cluster = createCluster({ nodes: 3, more: ["fencedLockspaces: [guarded]", "fenceDevices:", device], nodeKeys: "fence: [[switch]]" });
  clients = await cluster.startAll();
  for (const nodeid of [1, 2, 3]) pidKnown(nodeid);
});
afterAll(async () => {
  await cluster.close();
  rmSync(folder, { recursive: true, force: true });
  await watchdog.callOff();
});

/** The life that dlmd of that node has now. */
function lifeOf(nodeid: number): { nodeid: number; incarnation: string; bootId: string } {
  const { info } = (clients[nodeid - 1] as TestClient).client;
  return { nodeid, incarnation: info.incarnation, bootId: readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim() };
}

test("after a death the device opens what waited for it, with nobody's word, and a program hears that the life is fenced", async () => {
  const [a, , c] = clients as [TestClient, TestClient, TestClient];
  const life = lifeOf(3);
  expect(await a.client.fenceLife({ ...life, why: "test" })).toMatchObject({
    kind: "refused",
    why: expect.stringContaining("is a member"),
  });
  expect(await new TestLock(await c.client.lockspace("guarded"), "thing").request(Mode.EX)).toBe("granted");
  const waiting = new TestLock(await a.client.lockspace("guarded"), "thing");
  await cluster.kill(3, "SIGKILL");
  await a.seen([1, 2]);
  expect(await waiting.request(Mode.EX)).toBe("granted");
  expect(asked()).toBe("off node3\nstatus node3\n");
  const answers: FenceAnswer["kind"][] = [];
  await until("the life is fenced", async () => {
    const answer = await a.client.fenceLife({ ...life, why: "test" });
    answers.push(answer.kind);
    return answer.kind === "fenced" && answer.by === "switch";
  });
  expect(new Set(answers)).toEqual(new Set(["fenced"]));
  const history = await ask(2, "fence", "history");
  expect(history.stdout).toMatch(/^\d{4}-.*Z {2}node3 {2}[0-9a-f]{16} {2}fenced \(switch\)$/m);
  expect((await ask(2, "fence", "show")).stdout).toMatch(/^fence devices: node1, node2, node3\n/);
  expect(JSON.parse((await ask(2, "fence", "history", "--json")).stdout)).toMatchObject([{ nodeid: 3, outcome: "fenced", by: "switch" }]);
  // A person who orders it all the same: the device is used again, since what is known is of a former life.
  const again = await ask(1, "fence", "node3", "--yes");
  expect([again.status, again.stdout]).toEqual([0, expect.stringMatching(/node3 .* fenced \(switch\)\n$/)]);
  expect(asked()).toBe("off node3\nstatus node3\noff node3\nstatus node3\n");
});

test("a person's order is refused where it would end the quorum, and else puts a member out and fences it", async () => {
  const refused = await ask(1, "fence", "node2", "--yes");
  expect([refused.status, refused.stderr]).toMatchObject([1, expect.stringContaining("without node 2 this view has no quorum")]);
  expect((await ask(1, "fence", "node2")).stderr).toContain("--yes is needed: node2 loses its power, or its disks");
  expect((await ask(1, "fence", "node9", "--yes")).stderr).toContain("a node of the cluster expected, found node9");
  await cluster.start(3);
  pidKnown(3);
  const third = await cluster.connect(3);
  await third.seen([1, 2, 3]);
  const ordered = await ask(1, "fence", "node2", "--yes");
  const steps = expect.stringMatching(/^([^\n]+\n)+$/);
  expect([ordered.stderr, ordered.status, ordered.stdout]).toEqual([steps, 0, expect.stringMatching(/node2 .* fenced \(switch\)\n$/)]);
  await third.seen([1, 3]);
  expect(
    asked()
      .split("\n")
      .filter((line) => line === "off node2"),
  ).toHaveLength(1);
  await cluster.kill(2, "SIGKILL");
});

test("a device that fails is shown with its words, and a person's word is enough", async () => {
  await cluster.start(2);
  pidKnown(2);
  const second = await cluster.connect(2);
  await second.seen([1, 2, 3]);
  writeFileSync(path.join(folder, "broken"), "");
  const [a] = clients as [TestClient];
  const { incarnation } = second.client.info;
  await cluster.kill(2, "SIGKILL");
  await a.seen([1, 3]);
  const question = { ...lifeOf(1), nodeid: 2, incarnation, why: "owner of volume data" };
  await until("every level has failed once", async () => (await a.client.fenceLife(question)).kind === "failed");
  const shown = await ask(3, "status");
  expect(shown.stdout).toMatch(
    /^fencing {2}node2 is to be fenced \(owner of volume data; asked by a program of node1\) since .*failed, the last: switch: .*the switch of node2 is broken/m,
  );
  expect((await ask(3, "fence", "ack", "node2", "--yes")).stdout).toBe("node2 is taken to be dead: what waited for that goes on\n");
  await until("a person's word is an answer", async () => (await a.client.fenceLife(question)).kind === "fenced");
  expect((await ask(1, "fence", "history")).stdout).toMatch(/node2 .* not fenced: switch: .*broken\n[^]*acknowledged to be off/);
});

test("config check runs the agents of the file: a mistake is found before the first death", async () => {
  expect((await coverlay(["config", "check", cluster.configFile])).stdout).toContain("3 nodes, can be used");
  const wrong = path.join(folder, "wrong.yaml");
  writeFileSync(wrong, readFileSync(cluster.configFile, "utf8").replace("options: { dir:", "options: { directory:"));
  const refused = await coverlay(["config", "check", wrong]);
  expect(refused.status).toBe(1);
  expect(refused.stderr).toContain("fence device switch for node1: expected one of action, dir, plug, found the unknown option directory");
  expect(refused.stderr).toContain("fence device switch for node3: expected the option dir, which it requires, found none");
});
