/**
 * The owner's node dies, or is cut off: the others fence it and go on. What was synced anywhere is there, the disk is clean, and nothing of the old
 * owner comes to it after the proof. The fence is the lab's agent, run by the lock managers as any other.
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { run } from "../../overlay/lab/command.ts";
import { labFiles } from "../../overlay/lab/layout.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { type Actor, endActors, startActor, until } from "./actor.ts";
import { askDlmd } from "../../overlay/query/dlmd-query.ts";
import { logOf, type TestLab, withLab } from "./lab.ts";
import { lowerDirectory } from "./owner-lower.ts";
import { untilRole } from "./role.ts";

const GOES_ON_MS = 60_000;

afterEach(() => endActors());

/** Between two lines of the next owner's log: milliseconds. */
function serviceMs(log: string): number {
  const at = (line: RegExp): number => {
    const [, hours, minutes, seconds] = line.exec(log) ?? [];
    return ((Number(hours) * 60 + Number(minutes)) * 60 + Number(seconds)) * 1000;
  };
  return Math.round(
    at(/(\d\d):(\d\d):(\d\d\.\d+) info +lower mounted epoch=2/) - at(/(\d\d):(\d\d):(\d\d\.\d+) info +the owner before is fenced/),
  );
}

/** The nodes that were fenced, or asked to be, as that node knows. */
async function fencedNodes(lab: TestLab, nodeid: number): Promise<number[]> {
  const { answer } = await askDlmd(lab.node(nodeid).runDir, "status");
  const { fencing } = answer as { fencing: { wanted: { nodeid: number }[]; history: { nodeid: number }[] } };
  return [...new Set([...fencing.wanted, ...fencing.history].map((row) => row.nodeid))];
}

/** Files that are made and synced one after the other, on every node, from before the death until after it; gives how many, and the longest time. */
const LOAD = `
if not os.path.ismount("."): raise RuntimeError("not mounted: the load would fill what is below")
made, longest, errors = 0, 0.0, []
os.makedirs(place, exist_ok=True)
def works():
    global made, longest
    while go:
        begun = time.monotonic()
        try:
            fd = os.open(f"{place}/{made}", os.O_CREAT | os.O_WRONLY)
            os.write(fd, str(made).encode() * 1000)
            os.fsync(fd)
            os.close(fd)
            made += 1
        except OSError as error: errors.append(errno.errorcode.get(error.errno))
        longest = max(longest, time.monotonic() - begun)
go = True
thread = threading.Thread(target=works, daemon=True)
thread.start()
while made < 20: time.sleep(0.001)
`;
const ENDS = `
then = made
while made < then + 20: time.sleep(0.001)
go = False; thread.join()
wrong = [n for n in range(made) if get(f"{place}/{n}") != str(n) * 1000]
result = [made, round(longest, 2), errors, wrong]
`;

interface Scene {
  readonly owner: number;
  readonly others: readonly [number, number];
  readonly loads: readonly Actor[];
  /** On another node: has read a file, which stays in its cache. */
  readonly reader: Actor;
}

async function setScene(lab: TestLab): Promise<Scene> {
  const owner = await lab.owner();
  const others = [1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number];
  const on = (nodeid: number): Actor => startActor({ cwd: lab.node(nodeid).mount });
  const own = on(owner);
  await own.run(`put("by-owner", "synced"); os.fsync(os.open("by-owner", os.O_RDWR)); os.fsync(os.open(".", os.O_RDONLY))`);
  const reader = on(others[0]);
  await reader.run(`put("cached", "c" * 4096); fd = os.open("cached", os.O_RDONLY); result = os.pread(fd, 4096, 0).decode()`);
  const loads = others.map(on);
  for (const [at, load] of loads.entries()) await load.run(LOAD, { place: `of-${others[at]}` });
  return { owner, others, loads, reader };
}

/** Reads from the cache until told to stop; gives the longest time of one. */
const READS = `
longest_read, reading = 0.0, True
def reads():
    global longest_read
    while reading:
        begun = time.monotonic(); os.pread(fd, 4096, 0); longest_read = max(longest_read, time.monotonic() - begun)
        time.sleep(0.001)
reader_thread = threading.Thread(target=reads, daemon=True); reader_thread.start()
`;

async function allGoOn(lab: TestLab, { others, loads, reader }: Scene): Promise<void> {
  for (const load of loads) {
    const [made, longest, errors, wrong] = await load.run<[number, number, string[], number[]]>(ENDS, {}, GOES_ON_MS);
    process.stdout.write(`made ${made}, the longest took ${longest} s\n`);
    // ESTALE: a file that was made and not synced went with the owner.
    expect([errors.filter((code) => !["EIO", "ESTALE"].includes(code)), wrong]).toEqual([[], []]);
    // One call of each program was under way at most.
    expect(errors.length).toBeLessThanOrEqual(1);
  }
  expect(others).toContain(await lab.owner());
  const longestRead = await reader.run<number>(`reading = False; reader_thread.join(); result = longest_read`);
  process.stdout.write(`the longest cached read took ${longestRead.toFixed(3)} s\n`);
  expect(await reader.run(`result = get("by-owner")`)).toBe("synced");
}

/** Bytes that the old owner would have written, in its own name. */
const WRITES = `
def writes():
    turn = 0
    fd = os.open("late", os.O_CREAT | os.O_RDWR)
    while True:
        os.pwrite(fd, b"of the old owner " * 4000, (turn % 64) << 16); turn += 1
        if turn % 8 == 0: os.fsync(fd)
threading.Thread(target=writes, daemon=True).start()
`;

interface OwnersDeath {
  readonly title: string;
  /** Under load, before the power goes. */
  readonly prepare: (lab: TestLab, owner: number) => Promise<void>;
}

const POWER_OFF: OwnersDeath = {
  title: "power-off of the owner under load: it is fenced, the others go on, what was synced is there, and the disk is clean",
  prepare: async () => undefined,
};

/** Its kernel has calls under way and has met the cut; its overlay stands still, or it would let go of the disk before it dies. */
const AFTER_CUT: OwnersDeath = {
  title: "the owner's path to the disk is cut under load and then its power: the same holds",
  async prepare(lab, owner) {
    const { overlayPid, device } = (await lab.status()).find(({ nodeid }) => nodeid === owner) ?? {};
    process.kill(overlayPid ?? 0, "SIGSTOP");
    const lower = startActor({ cwd: "/" });
    await lower.run(`root = os.open(lower, os.O_RDONLY)`, { lower: lowerDirectory(overlayPid ?? 0, device ?? "") });
    await lab.lab("cut", `node${owner}`);
    // EROFS: its journal had met it before.
    const late = await lower.run<string[]>(`result = [code(os.mkdir, "made-late", dir_fd=root), code(os.fsync, root)]`);
    expect(late.filter((word) => ["EIO", "EROFS"].includes(word))).not.toEqual([]);
    await lower.run(`os.close(root)`);
  },
};

describe.each(["ext4", "xfs"] as const)("%s", (lower) => {
  const size = lower === "xfs" ? "400M" : "256M";

  it.each(lower === "xfs" ? [POWER_OFF] : [POWER_OFF, AFTER_CUT])("$title", ({ prepare }) =>
    withLab({ nodes: 3, lower, size }, async (lab) => {
      const scene = await setScene(lab);
      const { owner, others, reader } = scene;
      await reader.run(READS);
      await prepare(lab, owner);
      await lab.kill(owner);
      await allGoOn(lab, scene);
      const log = others.map((nodeid) => logOf(lab, nodeid)).join("");
      expect(log).toMatch(/lower mounted epoch=2 .*proof=fenced/);
      expect(await fencedNodes(lab, others[0])).toEqual([owner]);
      process.stdout.write(`${lower}: from the proof to service ${serviceMs(log)} ms\n`);
      // It comes back, and goes through the next owner.
      await lab.start(owner);
      await untilRole(lab, owner, "remote");
      const there = startActor({ cwd: lab.node(owner).mount });
      expect(await there.run(`result = get("by-owner")`)).toBe("synced");
      endActors();
      await lab.stopAll(owner, ...others);
      const { image } = labFiles(lab.dir);
      const fsck = lower === "ext4" ? await run("e2fsck", ["-fn", image]) : await run("xfs_repair", ["-n", "-f", image]);
      expect([fsck.status, fsck.stdout]).toEqual([0, expect.any(String)]);
    }),
  );

  it("a partitioned owner that lives and writes: it is fenced or lets go by itself, and the others go on", () =>
    withLab({ nodes: 3, lower, size }, async (lab) => {
      const scene = await setScene(lab);
      const { owner, others, reader } = scene;
      const writer = startActor({ cwd: lab.node(owner).mount });
      await writer.run(WRITES);
      await reader.run(READS);
      await lab.lab("partition", `node${owner}`);
      await allGoOn(lab, scene);
      // Either was first: both are fine.
      const log = others.map((nodeid) => logOf(lab, nodeid)).join("");
      const proof = /lower mounted epoch=2 .*proof=(\w+)/.exec(log)?.[1];
      process.stdout.write(`by the proof "${proof}"\n`);
      const state = (await lab.status()).find(({ nodeid }) => nodeid === owner)?.state;
      expect(["fenced off", "released up", "released off"]).toContain(`${proof} ${state}`);
    }));
});

/** Writes, syncs and reads under locks that are held; each round is a call of the lower. */
const HELD = `
rounds, going = 0, True
os.mkdir(place); fd = os.open(f"{place}/held", os.O_RDWR | os.O_CREAT)
def works():
    global rounds
    while going:
        os.pwrite(fd, b"%020d" % rounds, 0); os.fsync(fd); assert os.pread(fd, 20, 0) == b"%020d" % rounds
        rounds += 1; time.sleep(0.001)
thread = threading.Thread(target=works, daemon=True); thread.start()
while rounds < 20 and thread.is_alive(): time.sleep(0.001)
`;
const FIVE_MORE = `
then = rounds
while rounds < then + 5 and thread.is_alive(): time.sleep(0.001)
assert thread.is_alive()
`;

it("a dead node that is not the owner is not fenced, and nothing stops for it", () =>
  withLab({ nodes: 4, size: "128M" }, async (lab) => {
    const owner = await lab.owner();
    // One does not let go of the dead node until it is told to: so the group is about that death for as long as the test looks.
    const [dead, still, other] = [1, 2, 3, 4].filter((nodeid) => nodeid !== owner) as [number, number, number];
    const serving = [owner, other];
    const workers = serving.map((nodeid) => startActor({ cwd: lab.node(nodeid).mount }));
    for (const [at, worker] of workers.entries()) await worker.run(HELD, { place: `held-by-${serving[at]}` });
    const rounds = (): Promise<number[]> => Promise.all(workers.map((worker) => worker.run<number>("result = rounds")));
    const statusOf = async (nodeid: number): Promise<{ members: number[] }> =>
      (await askDlmd(lab.node(nodeid).runDir, "status")).answer as { members: number[] };
    const views = (): Promise<boolean[]> => Promise.all(serving.map(async (nodeid) => (await statusOf(nodeid)).members.includes(dead)));
    // A knob that changes is another file, so the same file says that it was never 1.
    const knobs = (): unknown[] =>
      [...serving, still].map((nodeid) => {
        const file = path.join(lab.node(nodeid).runDir, "volume-lab", "block");
        const { ino, mtimeNs } = statSync(file, { bigint: true });
        return { ino, mtimeNs, text: readFileSync(file, "utf8") };
      });
    const groupOf = async (nodeid: number): Promise<unknown> => (await queryOverlayStatus(lab.node(nodeid).runDir))["group"];
    await until("the group is at rest", async () => JSON.stringify(await groupOf(owner)).includes('"step":"idle"'));
    const before = knobs();
    const { pid } = await queryOverlayStatus(lab.node(still).runDir);
    const { dlmdPid } = (await lab.status()).find(({ nodeid }) => nodeid === dead) ?? {};
    expect(dlmdPid).toBeGreaterThan(0);

    process.kill(pid, "SIGSTOP");
    try {
      const killing = lab.kill(dead);
      await until("it is dead", () => !existsSync(`/proc/${dlmdPid}`));
      const atDeath = await rounds();
      let inView = atDeath;
      for (let now = await rounds(); (await views()).every(Boolean); now = await rounds()) inView = now;
      for (const [at, made] of inView.entries()) expect(made).toBeGreaterThan(atDeath[at] as number);
      await killing;
      await until("the death is known", async () => ((await groupOf(owner)) as { step: string }).step === "stopping");
      await Promise.all(workers.map((worker) => worker.run(FIVE_MORE)));
      for (const nodeid of serving) expect(await groupOf(nodeid)).toMatchObject({ step: "stopping", block: false });
      expect(await views()).toEqual([false, false]);
    } finally {
      process.kill(pid, "SIGCONT");
    }
    await Promise.all(workers.map((worker) => worker.run(`${FIVE_MORE}put(f"{place}/new", "two"); going = False`, {}, GOES_ON_MS)));
    await until("the group is at rest again", async () => JSON.stringify(await groupOf(owner)).includes('"step":"idle"'));
    expect(knobs()).toEqual(before);
    const mounted = [...serving, still].flatMap((nodeid) => logOf(lab, nodeid).match(/lower mounted epoch=\d+/g) ?? []);
    expect([await lab.owner(), mounted]).toEqual([owner, ["lower mounted epoch=1"]]);
    expect(await fencedNodes(lab, other)).toEqual([]);
  }));

it("the overlay of the owner is killed: it has ended, which needs no fence", () =>
  withLab({ nodes: 3, size: "128M" }, async (lab) => {
    const owner = await lab.owner();
    const other = owner === 2 ? 3 : 2;
    const program = startActor({ cwd: lab.node(other).mount });
    await program.run(`put("f", "one")`);
    await lab.kill(owner, "overlay");
    expect(await program.run(`put("g", "two"); result = get("f")`, {}, GOES_ON_MS)).toBe("one");
    expect(await fencedNodes(lab, other)).toEqual([]);
    expect((await queryOverlayStatus(lab.node(other).runDir))["role"]).not.toBe("waiting");
  }));

it("without fence devices a partitioned owner lets go of its disk by itself, and the others go on; its memory comes to the disk before that", () =>
  withLab({ nodes: 3, size: "256M", fencing: false }, async (lab) => {
    const scene = await setScene(lab);
    const { owner, others, reader } = scene;
    const own = startActor({ cwd: lab.node(owner).mount });
    await own.run(`put("not-synced", "answered")`);
    await reader.run(READS);
    const beganMs = performance.now();
    await lab.lab("partition", `node${owner}`);
    await allGoOn(lab, scene);
    process.stdout.write(`all went on within ${Math.round(performance.now() - beganMs)} ms of the partition\n`);
    expect(others.map((nodeid) => logOf(lab, nodeid)).join("")).toMatch(/lower mounted epoch=2 .*proof=released/);
    expect(await reader.run(`result = get("not-synced")`)).toBe("answered");
    expect((await queryOverlayStatus(lab.node(owner).runDir))["why"]).toMatch(/this node has let go of the disk/);
    await lab.lab("heal", `node${owner}`);
    // Its life of before ends when it hears the others again, and its mount with it. The start waits for that.
    await lab.start(owner);
    await untilRole(lab, owner, "remote");
  }));

it("an owner that is unmounted right after it was cut off lets go of its disk and ends, without a fence device, and the others go on", () =>
  withLab({ nodes: 3, size: "128M", fencing: false }, async (lab) => {
    const owner = await lab.owner();
    const other = owner === 2 ? 3 : 2;
    const program = startActor({ cwd: lab.node(other).mount });
    await program.run(`put("f", "one")`);
    const { pid } = (await queryOverlayStatus(lab.node(owner).runDir)) as { pid: number };
    await lab.lab("partition", `node${owner}`);
    expect((await run("umount", ["-l", lab.node(owner).mount])).status).toBe(0);
    expect(await program.run(`put("g", "two"); result = get("f")`, {}, GOES_ON_MS)).toBe("one");
    expect(logOf(lab, other) + logOf(lab, 6 - owner - other)).toMatch(/lower mounted epoch=2 .*proof=released/);
    await vi.waitFor(() => expect(existsSync(`/proc/${pid}`)).toBe(false), { timeout: GOES_ON_MS });
  }));
