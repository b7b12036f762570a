/** What tests of crashes have in common: whose process is killed, and when another one goes on. */
import { afterAll, beforeAll } from "vitest";
import { askDlmd } from "../../overlay/query/dlmd-query.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { endActors, startActor, until } from "./actor.ts";
import { type LabOptions, logOf, startLab, type TestLab } from "./lab.ts";

/** The end of a log that tells why what is waited for does not come. */
const SHOWN_LOG_CHARS = 3000;

/** A lab in which processes of mounts are killed, and others go on (overlay/crash/README.md). */
export class CrashLab {
  #lab: TestLab | null = null;

  /** For the tests of one describe. */
  constructor(options: LabOptions) {
    beforeAll(async () => {
      this.#lab = await startLab(options);
    });
    afterAll(async () => {
      endActors();
      await this.#lab?.end();
    });
  }

  get lab(): TestLab {
    if (this.#lab === null) throw new Error("the lab was not started");
    return this.#lab;
  }

  status(nodeid: number): ReturnType<typeof queryOverlayStatus> {
    return queryOverlayStatus(this.lab.node(nodeid).runDir);
  }

  /** A crash of that node's process would be a pause. */
  async isGuarded(nodeid: number): Promise<void> {
    let why: string | null | undefined = "";
    await until(
      `a crash on node ${nodeid} is a pause`,
      async () => {
        why = (await this.status(nodeid)).crash;
        return why === null;
      },
      () => String(why),
    );
  }

  owner(): Promise<number> {
    return this.lab.owner();
  }

  /** Of its mount; null: nobody says. */
  async roleOf(nodeid: number): Promise<string | null> {
    try {
      return (await this.status(nodeid)).role;
    } catch {
      return null;
    }
  }

  killDlmd(nodeid: number): void {
    const pid = this.lab.dlmdPid(nodeid);
    if (pid === null) throw new Error(`no dlmd runs on node ${nodeid}`);
    process.kill(pid, "SIGKILL");
  }

  /** dlmd of that node dies, and its mount waits for the next one. */
  async pauses(nodeid: number): Promise<void> {
    this.killDlmd(nodeid);
    await until(
      "its mount pauses",
      async () => (await this.roleOf(nodeid)) === "paused",
      () => logOf(this.lab, nodeid).slice(-SHOWN_LOG_CHARS),
    );
  }

  /** After that: with a new dlmd, in a new process. */
  async goesOn(nodeid: number): Promise<void> {
    await this.lab.start(nodeid);
    await until("a new process serves", async () => ![null, "paused", "waiting"].includes(await this.roleOf(nodeid)));
  }

  /** The others have gone on without that node, as `asked` says. */
  isLeftOut(nodeid: number, asked: number): Promise<void> {
    return until(`node ${nodeid} is left out`, async () => {
      const { view } = await askDlmd(this.lab.node(asked).runDir, null);
      return view.running && !view.members.includes(nodeid);
    });
  }

  /** Of a stat(2) below its mount. */
  errorAt(nodeid: number): Promise<string> {
    return startActor({ cwd: "/" }).run<string>(`result=code(os.stat,mount)`, { mount: `${this.lab.node(nodeid).mount}/common` });
  }

  /** The process that serves that node. */
  pid(nodeid: number): number {
    const pid = this.lab.overlayPid(nodeid);
    if (pid === null) throw new Error(`no process serves node ${nodeid}`);
    return pid;
  }

  /** Gives what resolves when a new process serves there, with its pid. */
  kill(nodeid: number): () => Promise<number> {
    const before = this.pid(nodeid);
    process.kill(before, "SIGKILL");
    return async () => {
      let now = before;
      await until(`a new process serves node ${nodeid}`, async () => {
        try {
          now = (await this.status(nodeid)).pid;
        } catch {
          // Nobody answers yet.
        }
        return now !== before;
      });
      return now;
    };
  }

  /** Where that is a pause. Gives its pid, and that of the process which goes on. */
  async crash(nodeid: number): Promise<readonly [number, number]> {
    await this.isGuarded(nodeid);
    const before = this.pid(nodeid);
    return [before, await this.kill(nodeid)()];
  }

  /** Gives its node. Resolves when a new process serves there. */
  async crashOwner(): Promise<number> {
    const nodeid = await this.owner();
    await this.crash(nodeid);
    return nodeid;
  }
}
