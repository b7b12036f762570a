/** Programs of two nodes that hold and await locks of one file, and what must be so when a process of one node was replaced meanwhile (hazard F45). */
import assert from "node:assert/strict";
import * as z from "zod";
import { askOverlay, findOverlay } from "../../overlay/query/overlay-query.ts";
import { type Actor, startActor, until } from "./actor.ts";
import type { TestLab } from "./lab.ts";

const FILE = "locked-by-two-nodes";
/** Ranges of bytes: who has them. */
const RANGES = { here: 0, there: 100, taken: 200 };

const fileLocks = z.object({
  files: z.array(z.object({ file: z.string(), kept: z.string(), held: z.array(z.unknown()), waiting: z.number() })),
});

const helpers = `
fd=os.open(name,os.O_RDWR|os.O_CREAT)
class Interrupted(Exception): pass
def interrupted(*_): raise Interrupted()
signal.signal(signal.SIGUSR1,interrupted)
def lock(start,type=fcntl.LOCK_EX): return code(fcntl.lockf,fd,type,10,start)
def wait(start):
    try: return lock(start)
    except Interrupted: return "interrupted"
def attempt(start): return lock(start,fcntl.LOCK_EX|fcntl.LOCK_NB)
def flock(): return code(fcntl.flock,os.open(name+".flock",os.O_CREAT|os.O_RDWR),fcntl.LOCK_EX|fcntl.LOCK_NB)
`;

const ACTORS = ["here", "near", "waits", "signalled", "there", "queued"] as const;
type Who = (typeof ACTORS)[number];

/** What became of each wait: a signal ends one, and all others get what they wait for. */
export const ALL_WAITS = { near: "ok", waits: "ok", signalled: "interrupted", queued: "ok" };

export class SharedLocks {
  readonly #lab: TestLab;
  readonly #nodes: { readonly here: number; readonly there: number };
  readonly #actors: Readonly<Record<Who, Actor>>;
  readonly #waits = new Map<keyof typeof ALL_WAITS, Promise<string>>();
  #ino = 0;

  /** `here`: whose process is to be replaced. */
  constructor(lab: TestLab, here: number, there: number) {
    const at = (nodeid: number): Actor => startActor({ cwd: lab.node(nodeid).mount });
    this.#lab = lab;
    this.#nodes = { here, there };
    this.#actors = { here: at(here), near: at(here), waits: at(here), signalled: at(here), there: at(there), queued: at(there) };
  }

  #wait(who: keyof typeof ALL_WAITS, start: number): void {
    const ended = this.#actors[who].run<string>(`result=wait(${start})`);
    // A test that has failed ends its programs.
    ended.catch(() => undefined);
    this.#waits.set(who, ended);
  }

  /** The locks of that node, as the process that serves it says. */
  async #seen(nodeid: number): Promise<{ readonly kept: string; readonly held: number; readonly waiting: number } | null> {
    const { runDir, mount } = this.#lab.node(nodeid);
    const { files } = await askOverlay(runDir, findOverlay(runDir, mount)?.connection ?? -1, { query: "file-locks" }, fileLocks);
    const one = files.find(({ file }) => file.startsWith(`f${this.#ino}.`));
    return one === undefined ? null : { kept: one.kept, held: one.held.length, waiting: one.waiting };
  }

  /** `here` has two ranges, `there` one. Two programs here wait for that, and one for a range of here; so does one there. */
  async begin(): Promise<void> {
    const { here, there } = this.#actors;
    for (const name of ACTORS) await this.#actors[name].run(helpers, { name: FILE });
    this.#ino = await here.run(`result=os.fstat(fd).st_ino`);
    assert.deepEqual(await here.run(`result=[lock(${RANGES.here}),lock(${RANGES.taken}),flock()]`), ["ok", "ok", "ok"]);
    assert.equal(await there.run(`result=lock(${RANGES.there})`), "ok");
    this.#wait("queued", RANGES.here);
    this.#wait("waits", RANGES.there);
    this.#wait("signalled", RANGES.there);
    this.#wait("near", RANGES.taken);
    const { here: nodeHere, there: nodeThere } = this.#nodes;
    const shared = { kept: "cluster", held: 2, waiting: 3 };
    await until("all that is to wait waits, in dlmd's service", async () => {
      const seen = [await this.#seen(nodeHere), await this.#seen(nodeThere)];
      return JSON.stringify(seen) === JSON.stringify([shared, { kept: "cluster", held: 1, waiting: 1 }]);
    });
  }

  /** Nobody serves `here`: nobody gets what it has. */
  async meanwhile(): Promise<void> {
    assert.deepEqual(await this.#actors.there.run(`result=[attempt(${RANGES.here}),attempt(${RANGES.taken})]`), ["EAGAIN", "EAGAIN"]);
  }

  /** Another process serves `here`: who had a lock has it. Gives how each wait has ended. */
  async goOn(): Promise<Partial<typeof ALL_WAITS>> {
    const { here, near, waits, signalled, there, queued } = this.#actors;
    const third = startActor({ cwd: this.#lab.node(this.#nodes.here).mount });
    await third.run(helpers, { name: FILE });
    const all = Object.values(RANGES).map((start) => `attempt(${start})`);
    assert.deepEqual(await third.run(`result=[${all.join()},flock()]`), ["EAGAIN", "EAGAIN", "EAGAIN", "EAGAIN"]);
    assert.deepEqual(await there.run(`result=[${all.join()},flock()]`), ["EAGAIN", "ok", "EAGAIN", "EAGAIN"]);
    const ended: Partial<typeof ALL_WAITS> = {};
    const note = async (who: keyof typeof ALL_WAITS): Promise<void> => {
      const result = await this.#waits.get(who);
      if (result !== undefined) ended[who] = result;
    };
    signalled.signal("SIGUSR1");
    await note("signalled");
    await here.run(`lock(${RANGES.here},fcntl.LOCK_UN)`);
    await note("queued");
    await there.run(`lock(${RANGES.there},fcntl.LOCK_UN)`);
    await note("waits");
    here.signal("SIGKILL");
    await here.ended;
    await note("near");
    assert.deepEqual(await there.run(`result=[attempt(${RANGES.there}),attempt(${RANGES.taken}),flock()]`), ["EAGAIN", "EAGAIN", "ok"]);
    await near.run(`os.close(fd)`);
    assert.equal(await there.run(`result=attempt(${RANGES.taken})`), "ok");
    for (const actor of [near, waits, signalled, there, queued, third]) actor.signal("SIGKILL");
    return ended;
  }
}
