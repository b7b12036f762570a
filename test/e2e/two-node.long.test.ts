/**
 * two_node: each of two nodes is a quorum alone, so when they do not hear each other both go on, and only the fence keeps one of them from the disk.
 * In the lab the second node has the priority: the other one, which is the owner, is fenced.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, expect, it } from "vitest";
import { run } from "../../overlay/lab/command.ts";
import { labFiles } from "../../overlay/lab/layout.ts";
import { askDlmd } from "../../overlay/query/dlmd-query.ts";
import { endActors, startActor, until } from "./actor.ts";
import { logOf, type TestLab, withLab } from "./lab.ts";
import { untilRole } from "./role.ts";
import { SyncedLoad, wrongOf } from "./synced-load.ts";

afterEach(() => endActors());

interface Fencing {
  readonly quorate: boolean;
  readonly fencing: { readonly history: readonly { readonly nodeid: number; readonly outcome: string }[] };
}

const statusOf = async (lab: TestLab, nodeid: number): Promise<Fencing> =>
  (await askDlmd(lab.node(nodeid).runDir, "status")).answer as Fencing;

const dlmdLogOf = (lab: TestLab, nodeid: number): string => readFileSync(path.join(lab.dir, `node${nodeid}`, "dlmd.log"), "utf8");

it.each([
  ["the owner loses its power", (lab: TestLab) => lab.kill(1)],
  ["the two do not hear each other", (lab: TestLab) => lab.lab("partition", "node1")],
])(
  "%s under load: one of them is fenced, the other goes on alone, what was synced is there, and the disk is clean",
  async (_, fails: (lab: TestLab) => Promise<unknown>) => {
    await withLab({ nodes: 2, twoNode: true, engine: "builtin", size: "256M" }, async (lab) => {
      expect(await lab.owner()).toBe(1);
      const loads = await Promise.all([1, 2].map((nodeid) => SyncedLoad.begin(lab, nodeid, `of-${nodeid}`)));
      const [ofOwner, ofOther] = loads as [SyncedLoad, SyncedLoad];
      await fails(lab);
      const other = await ofOther.goesOnAndEnds();
      expect(other.errors.length).toBeLessThanOrEqual(1);
      const owner = await ofOwner.ended();
      expect(await wrongOf(lab, 2, [owner, other])).toEqual([]);

      expect(await lab.owner()).toBe(2);
      expect(logOf(lab, 2)).toMatch(/lower mounted epoch=2 .*proof=fenced/);
      expect((await lab.status()).map(({ nodeid, state }) => [nodeid, state])).toEqual([
        [1, "off"],
        [2, "up"],
      ]);
      const { quorate, fencing } = await statusOf(lab, 2);
      expect([quorate, fencing.history.map(({ nodeid, outcome }) => [nodeid, outcome])]).toEqual([true, [[1, "fenced"]]]);

      // It comes back, and sees what the other one made meanwhile.
      await lab.lab("heal", "node1");
      await lab.start(1);
      await untilRole(lab, 1, "remote");
      expect(await wrongOf(lab, 1, [owner, other])).toEqual([]);
      endActors();
      await lab.stopAll(1, 2);
      const fsck = await run("e2fsck", ["-fn", labFiles(lab.dir).image]);
      expect([fsck.status, fsck.stdout]).toEqual([0, expect.any(String)]);
    });
  },
);

/** The priority at the first node instead. What the nodes have kept of cluster.yaml goes, so they take the file as it is. */
async function preferFirst(lab: TestLab): Promise<void> {
  await lab.stopAll(1, 2);
  const { config } = labFiles(lab.dir);
  const yaml = readFileSync(config, "utf8");
  expect(yaml).toMatch(/nodeid: 2, .*, priority: 1 \}/);
  writeFileSync(config, yaml.replace(", priority: 1 }", " }").replace(/(nodeid: 1, .*) \}/, "$1, priority: 1 }"));
  for (const nodeid of [1, 2]) rmSync(path.join(lab.node(nodeid).runDir, "config.json"));
  await lab.start(1, 2);
}

/** The fence of node 2 begins when that node has gone on alone, too: else it may be off before. `from`: that much of its log was there. */
function fenceWhenAlone(lab: TestLab, from: number): void {
  const { fenceAgent } = labFiles(lab.dir);
  const script = readFileSync(fenceAgent, "utf8");
  const waits = `
words=$(cat)
case "$words" in *action=off*) case "$words" in *node2*)
  until tail -c +${from + 1} '${lab.dir}/node2/dlmd.log' | grep -q 'members=\\[2\\] quorate=true'; do sleep 0.05; done ;;
esac ;; esac
printf '%s\\n' "$words" |
`;
  writeFileSync(fenceAgent, script.replace("\n", waits));
}

it("the node with the lower nodeid wins: its mount, and what is open there, outlive the return of the other one, whose view was the later one", () =>
  withLab({ nodes: 2, twoNode: true, engine: "builtin", size: "256M" }, async (lab) => {
    await preferFirst(lab);
    const overlayPid = async (): Promise<unknown> => (await lab.status()).find(({ nodeid }) => nodeid === 1)?.overlayPid;
    const before = await overlayPid();
    const keeper = startActor({ cwd: lab.node(1).mount });
    await keeper.run(`fd = os.open("held", os.O_CREAT | os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX); os.fsync(fd)`);
    const loads = await Promise.all([1, 2].map((nodeid) => SyncedLoad.begin(lab, nodeid, `of-${nodeid}`)));
    const [first, second] = loads as [SyncedLoad, SyncedLoad];
    const logged = [1, 2].map((nodeid) => dlmdLogOf(lab, nodeid).length);
    fenceWhenAlone(lab, logged[1] ?? 0);
    await lab.lab("partition", "node2");
    const winner = await first.goesOnAndEnds();
    const loser = await second.ended();
    await until("the fence has ended", async () => (await statusOf(lab, 1)).fencing.history.length > 0);
    const { fencing } = await statusOf(lab, 1);
    expect(fencing.history.map(({ nodeid, outcome }) => [nodeid, outcome])).toEqual([[2, "fenced"]]);
    // Both went on alone, and the loser's view counts as the later one, or would.
    const alone = (nodeid: number): number => {
      const view = new RegExp(`view viewId=(\\d+)\\.${nodeid}\\.\\S+ members=\\[${nodeid}\\] quorate=true`, "g");
      return Number(
        [
          ...dlmdLogOf(lab, nodeid)
            .slice(logged[nodeid - 1])
            .matchAll(view),
        ].at(-1)?.[1],
      );
    };
    expect(alone(1)).toBeGreaterThan(0);
    expect(alone(2)).toBeGreaterThanOrEqual(alone(1));
    // Only the winner's next life is to know of its view.
    const kept = (nodeid: number): string => readFileSync(path.join(lab.node(nodeid).runDir, "state.json"), "utf8");
    const keptMembers = (nodeid: number): unknown =>
      (JSON.parse(kept(nodeid)) as { lineage: { members: unknown[] } }).lineage.members.length;
    await until("the winner keeps its own view", () => keptMembers(1) === 1);
    expect(keptMembers(2)).toBe(2);

    await lab.lab("heal", "node2");
    await lab.start(2);
    for (const nodeid of [1, 2]) await untilRole(lab, nodeid, nodeid === 1 ? "owner" : "remote");
    expect(await overlayPid()).toBe(before);
    expect(dlmdLogOf(lab, 1)).not.toMatch(/evicted|went on without this node/);
    const tries = `fd = os.open("held", os.O_RDWR); result = code(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)`;
    const other = startActor({ cwd: lab.node(2).mount });
    expect(await other.run(tries)).toBe("EAGAIN");
    expect(await keeper.run(`result = [code(os.write, fd, b"on"), code(os.fsync, fd), code(fcntl.flock, fd, fcntl.LOCK_UN)]`)).toEqual([
      "ok",
      "ok",
      "ok",
    ]);
    expect(await other.run(tries)).toBe("ok");
    for (const nodeid of [1, 2]) expect(await wrongOf(lab, nodeid, [winner, loser])).toEqual([]);
  }));
