/**
 * The owner as the node whose dlmd stands still (hazard C4): everybody's operations wait, and can be killed; in time, all goes on and nothing is lost; else
 * it lets go of its disk by itself, the others go on, and its mount ends.
 */
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { type Actor, endActors, startActor, until, untilWaiting, untilWaitingOrEnded } from "./actor.ts";
import { startLab, type TestLab } from "./lab.ts";
import { goOn, stopDlmd } from "./stopped-dlmd.ts";

let lab: TestLab;

beforeAll(async () => {
  lab = await startLab({ nodes: 3, size: "256M", fencing: false });
});
afterEach(() => {
  goOn();
  endActors();
});
afterAll(async () => {
  await lab?.end();
});

/** On a machine so busy that the others had gone on before: then nothing may be answered. */
const lost = /Errno 5|Errno 107/;

/** Dies of SIGKILL while it waits. */
async function killWaiting(actor: Actor, source: string): Promise<void> {
  const step = actor.run(source, {}, 60_000).catch(String);
  expect((await untilWaitingOrEnded(actor, step)) ?? "Errno 5").toMatch(lost);
  actor.signal("SIGKILL");
  expect((await actor.ended).signal).toBe("SIGKILL");
  await step;
}

async function isTakenOut(nodeid: number): Promise<boolean> {
  return (await lab.status()).find((node) => node.nodeid === nodeid)?.overlayPid === null;
}

interface Scene {
  readonly owner: number;
  readonly others: readonly [number, number];
  /** Programs on the owner. */
  readonly own: Actor;
  readonly ownDying: Actor;
  /** Programs on another node. */
  readonly remote: Actor;
  readonly remoteDying: Actor;
}

/** A file that both have in their caches, and another that is open for writing on the remote node, with what was not written yet to be asked for anew. */
async function setScene(): Promise<Scene> {
  const owner = await lab.owner();
  const others = [1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number];
  const on = (nodeid: number): Actor => startActor({ cwd: lab.node(nodeid).mount });
  const scene: Scene = { owner, others, own: on(owner), ownDying: on(owner), remote: on(others[0]), remoteDying: on(others[0]) };
  await scene.own.run(`put("kept", "as it was")`);
  for (const actor of [scene.own, scene.ownDying, scene.remote, scene.remoteDying]) {
    expect(await actor.run(`kept = os.open("kept", os.O_RDONLY)\nresult = os.pread(kept, 16, 0).decode()`)).toBe("as it was");
  }
  await scene.remote.run(`
fd = os.open("written", os.O_CREAT | os.O_RDWR)
os.pwrite(fd, b"before", 0)
os.fsync(fd)`);
  return scene;
}

/** Waits until the owner's lease has ended, and begins what has to wait then. */
async function lapse({ owner, own, remote }: Scene): Promise<{ readonly reads: Promise<string>; readonly writes: Promise<string> }> {
  const dropped = async (): Promise<number> => {
    const { counters } = await queryOverlayStatus(lab.node(owner).runDir);
    return (counters as Record<string, number>)["inodesDropped"] ?? 0;
  };
  const before = await dropped();
  stopDlmd(lab, owner);
  await until("the owner's lease has ended, and what was cached was dropped", async () => (await dropped()) > before);
  const reads: Promise<string> = own.run<string>(`result = os.pread(kept, 16, 0).decode()`, {}, 120_000).catch(String);
  const writes = remote.run<string>(`result = code(os.pwrite, fd, b"after!", 0)`, {}, 120_000).catch(String);
  expect((await untilWaitingOrEnded(own, reads)) ?? "Errno 5").toMatch(lost);
  await untilWaiting(remote);
  return { reads, writes };
}

it("stands still, and goes on in time: who waited goes on, on all nodes, and nothing was lost", async () => {
  const scene = await setScene();
  const { owner, others, ownDying, remoteDying } = scene;
  const { reads, writes } = await lapse(scene);
  await Promise.all([killWaiting(ownDying, `os.pread(kept, 16, 0)`), killWaiting(remoteDying, `os.mkdir("never")`)]);
  goOn();
  const read = await reads;
  const inTime = read === "as it was";
  if (!inTime) {
    await until("the owner's mount has ended", () => isTakenOut(owner));
    await lab.start(owner);
  }
  expect(read).toMatch(inTime ? /^as it was$/ : lost);
  const written = await writes;
  expect(inTime ? written : "ok").toBe("ok");
  if (!inTime) return;
  const third = startActor({ cwd: lab.node(others[1]).mount });
  expect(await third.run(`result = [get("written"), os.path.exists("never")]`)).toEqual(["after!", false]);
});

it("stands still for too long: it lets go of its disk, and the others go on without a fence; its mount ends; mounted again it goes through them", async () => {
  const scene = await setScene();
  const { owner, others, own, ownDying, remote } = scene;
  const { reads, writes } = await lapse(scene);
  const beganMs = performance.now();
  await killWaiting(ownDying, `os.pread(kept, 16, 0)`);
  // What was not answered is made by the next owner: all that the one before had done is on the disk.
  expect(await writes).toBe("ok");
  process.stdout.write(`the others went on ${Math.round(performance.now() - beganMs)} ms after the end of the owner's lease\n`);
  expect(others).toContain(await lab.owner());
  expect((await queryOverlayStatus(lab.node(owner).runDir))["why"]).toMatch(
    /^without a quorum for more than 3\.0 s after its lease had ended: this node has let go of the disk\. Calls wait .*; waiting: the lease of this node has ended/,
  );
  goOn();
  expect(await reads).toMatch(lost);
  await until("the owner's mount has ended", () => isTakenOut(owner));
  expect(await own.run(`result = code(os.listdir, ".")`)).toBe("ENOTCONN");
  await lab.start(owner);
  expect(await remote.run(`result = [get("written"), os.pread(kept, 16, 0).decode()]`)).toEqual(["after!", "as it was"]);
  const there = startActor({ cwd: lab.node(owner).mount });
  const third = startActor({ cwd: lab.node(others[1]).mount });
  await there.run(`put("kept", "goes on")`);
  expect(await third.run(`result = get("kept")`)).toBe("goes on");
});
