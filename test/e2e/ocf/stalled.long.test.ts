/** ocf:coverlay:volume is stopped while an overlay stands still: its own, or the owner's on another node. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { startTimeOf } from "../../../dlmd/base/process.ts";
import { readMountRecord } from "../../../overlay/volume/mount-record.ts";
import { noOcf, Ocf, reasonOf } from "../../ocf-agent.ts";
import { endActors, startActor, until, untilWaiting } from "../actor.ts";
import { startLab, type TestLab } from "../lab.ts";
import { becomeOwner, connectionOf, type LabAgent, labAgent, overlayPid } from "./lab-agent.ts";

const missing = noOcf();
/** Its dlmd ends an overlay that stands still after some of that. */
const BAST_LIMIT_MS = 8000;
/** ptrace(2), PTRACE_ATTACH: SIGCONT does not wake what a debugger holds. */
const DEBUGGER = `
import ctypes, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(16, pid, None, None) != 0: raise OSError(ctypes.get_errno(), "ptrace")
os.waitpid(pid, 0)
print("held", flush=True)
sys.stdin.read()
`;

describe("a stop of ocf:coverlay:volume", () => {
  let lab: TestLab;
  let here: LabAgent;
  let directory: string;
  let debuggers: ChildProcess[] = [];

  beforeAll(async () => {
    if (missing !== null) return;
    lab = await startLab({ nodes: 2, size: "256M", env: { COVERLAY_BAST_LIMIT_MS: String(BAST_LIMIT_MS) } });
    here = await labAgent(lab, 2);
    directory = lab.node(2).mount;
  });
  afterEach(() => {
    endActors();
    for (const one of debuggers) one.kill("SIGKILL");
    debuggers = [];
  });
  afterAll(async () => {
    here?.agent.end();
    await lab?.end();
  });

  const ask = async (action: string, timeoutS = 60): Promise<[number | null, string]> => {
    const result = await here.agent.act(action, here.parameters, {}, { timeoutS });
    return [result.status, reasonOf(result)];
  };
  const ok = [Ocf.SUCCESS, ""];
  const isMounted = (): boolean => readFileSync("/proc/self/mountinfo", "utf8").includes(` ${directory} `);
  const stateOf = (pid: number): string | undefined => /\) (\S) /.exec(readFileSync(`/proc/${pid}/stat`, "latin1"))?.[1];

  it("is a success while the owner of another node stands still, and a program here waits for its answer", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    expect(await lab.owner()).toBe(1);
    const owner = overlayPid(lab, 1);
    const pid = overlayPid(lab, 2);
    const actor = startActor({ cwd: directory });
    await lab.lab("stall", "node1", "--what", "overlay");
    try {
      actor.run(`os.stat("nobody-made-it")`, {}, 60_000).catch(() => undefined);
      await untilWaiting(actor);
      expect(stateOf(owner)).toBe("T");
      expect(await ask("stop")).toEqual(ok);
      expect([isMounted(), startTimeOf(pid)]).toEqual([false, null]);
      expect(await ask("monitor")).toEqual([Ocf.NOT_RUNNING, ""]);
    } finally {
      await lab.lab("unstall", "node1");
    }
    if (startTimeOf(owner) === null) await lab.start(1);
    expect(await ask("start")).toEqual(ok);
  });

  it("ends in its time, with the reason, while a program here waits for that owner where no signal ends it", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    expect(await lab.owner()).toBe(1);
    const owner = overlayPid(lab, 1);
    const actor = startActor({ cwd: directory });
    await actor.run(`import mmap; put("mapped", "a" * 4096); fd = os.open("mapped", os.O_RDWR); m = mmap.mmap(fd, 4096); os.close(fd)`);
    await actor.run(`m[0:1] = b"b"; m.flush(); m[0:1] = b"c"`);
    await lab.lab("stall", "node1", "--what", "overlay");
    try {
      actor.run(`m.close()`, {}, 60_000).catch(() => undefined);
      await untilWaiting(actor);
      expect(await ask("stop", 8)).toEqual([Ocf.GENERIC, expect.stringMatching(/^coverlay umount: .*, and the stop is out of time$/)]);
      expect(stateOf(owner)).toBe("T");
    } finally {
      await lab.lab("unstall", "node1");
    }
    expect(await ask("stop")).toEqual(ok);
    expect(await ask("start")).toEqual(ok);
    expect(readFileSync(`${directory}/mapped`, "latin1")[0]).toBe("c");
  });

  it("wakes its own overlay, which ends in order", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const pid = overlayPid(lab, 2);
    const device = `0:${connectionOf(lab, 2)}`;
    const hasRecord = (): boolean => readMountRecord(device)?.pid === pid;
    expect(hasRecord()).toBe(true);
    process.kill(pid, "SIGSTOP");
    await until("it stands still", () => stateOf(pid) === "T");
    expect(await ask("stop")).toEqual(ok);
    // One that is killed leaves it. The number of the device is free now, and the mount of another lab may have it.
    expect([isMounted(), startTimeOf(pid), hasRecord()]).toEqual([false, null, false]);
    expect(await ask("start")).toEqual(ok);
  });

  it("kills its own overlay if that does not go on, and the other node takes over from it", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const pid = overlayPid(lab, 2);
    await becomeOwner(lab, 2);
    const tracer = spawn("python3", ["-c", DEBUGGER, String(pid)], { stdio: ["pipe", "pipe", "inherit"] });
    debuggers.push(tracer);
    await once(tracer.stdout, "data");
    expect(stateOf(pid)).toBe("t");
    expect(await ask("stop")).toEqual(ok);
    expect([isMounted(), await ask("monitor")]).toEqual([false, [Ocf.NOT_RUNNING, ""]]);
    const other = startActor({ cwd: lab.node(1).mount });
    expect(await other.run<string>(`put("after", "x"); result = get("after")`, {}, 60_000)).toBe("x");
    expect(await lab.owner()).toBe(1);
    tracer.kill("SIGKILL");
    await once(tracer, "exit");
    await until("it is gone", () => startTimeOf(pid) === null);
    expect(await ask("start")).toEqual(ok);
  });
});
