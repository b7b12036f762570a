/** File locks of nodes and programs that die, and of a node that is cut off. */
import { afterEach, describe, expect, it } from "vitest";
import { queryOverlayStatus } from "../../../overlay/query/overlay-query.ts";
import { type Actor, endActors, startActor, until, untilWaiting } from "../actor.ts";
import { type TestLab, withLab } from "../lab.ts";
import { untilMountEnded } from "../role.ts";
import { PYTHON_LOCKS } from "./python-locks.ts";

afterEach(() => endActors());

async function opened(lab: TestLab, nodeid: number, name: string): Promise<Actor> {
  const actor = startActor({ cwd: lab.node(nodeid).mount });
  await actor.run(`${PYTHON_LOCKS}\nfd = os.open(name, os.O_RDWR | os.O_CREAT)`, { name });
  return actor;
}

const TAKE_MS = 120_000;

describe("when the holder is gone", () => {
  it.each(["node", "overlay"] as const)("its locks go, kept here or shared, and who waits gets them: the %s is killed", (what) =>
    withLab({ nodes: 3 }, async (lab) => {
      const owner = await lab.owner();
      const [dies, lives] = [1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number];
      const [here, shared, waits, later] = [
        await opened(lab, dies, "here"),
        await opened(lab, dies, "shared"),
        await opened(lab, lives, "shared"),
        await opened(lab, lives, "here"),
      ];
      expect(await here.run(`result = lock(fd, "posix", "write")`)).toBe("ok");
      expect(await shared.run(`result = [lock(fd, "posix", "write"), lock(fd, "flock", "write")]`)).toEqual(["ok", "ok"]);
      const served = waits.run(`result = [lock(fd, "posix", "write", wait=True), lock(fd, "flock", "write", wait=True)]`, {}, TAKE_MS);
      await untilWaiting(waits);
      expect(await later.run(`result = lock(fd, "posix", "write")`)).toBe("EAGAIN");
      await lab.kill(dies, what);
      expect(await served).toEqual(["ok", "ok"]);
      expect(await later.run(`result = lock(fd, "posix", "write", wait=True)`, {}, TAKE_MS)).toBe("ok");
    }),
  );

  it("the owner dies and comes back: locks of the other nodes stay", () =>
    withLab({ nodes: 3, fencing: false }, async (lab) => {
      const owner = await lab.owner();
      const [first, second] = [1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number];
      const [a, b] = [await opened(lab, first, "stays"), await opened(lab, second, "stays")];
      expect(await a.run(`result = lock(fd, "posix", "write", 0, 10)`)).toBe("ok");
      await lab.kill(owner);
      await lab.start(owner);
      expect(await b.run(`result = lock(fd, "posix", "write", 5, 1)`, {}, TAKE_MS)).toBe("EAGAIN");
      expect(await a.run(`result = lock(fd, "posix", "unlock")`, {}, TAKE_MS)).toBe("ok");
      expect(await b.run(`result = lock(fd, "posix", "write", 5, 1, True)`, {}, TAKE_MS)).toBe("ok");
    }));
});

it("without a lease nothing is locked, not even what costs no message; a wait for it ends with any signal", () =>
  withLab({ nodes: 3 }, async (lab) => {
    const owner = await lab.owner();
    const nodeid = [1, 2, 3].find((one) => one !== owner) as number;
    const a = await opened(lab, nodeid, "leased");
    expect(await a.run(`result = [lock(fd, "posix", "write"), lock(fd, "posix", "unlock")]`)).toEqual(["ok", "ok"]);
    // Long enough for the lease to end, and not for the others to go on without this node.
    const { runDir } = lab.node(nodeid);
    const dlmdPid = lab.dlmdPid(nodeid);
    const lease = async (): Promise<unknown> => (await queryOverlayStatus(runDir))["lease"];
    process.kill(Number(dlmdPid), "SIGSTOP");
    let answer: string;
    try {
      await until("the lease has ended", async () => (await lease()) === "lapsed");
      answer = await a.run<string>(`
class Alarm(Exception): pass
def ring(*_): raise Alarm()
signal.signal(signal.SIGALRM, ring)
try:
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    result = lock(fd, "posix", "write", wait=True)
except Alarm: result = "alarm"`);
    } finally {
      process.kill(Number(dlmdPid), "SIGCONT");
    }
    if (answer !== "alarm") await untilMountEnded(runDir);
    expect(answer).toMatch(answer === "alarm" ? /^alarm$/ : /^E/);
  }));
