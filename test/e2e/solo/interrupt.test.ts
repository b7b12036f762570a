/** Hazard F11 on a real kernel: a process that waits for a lock gets SIGALRM, and waits on; then SIGKILL, and dies at once. */
import { spawn, type ChildProcess } from "node:child_process";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { until } from "../actor.ts";
import { python } from "./child.ts";
import { settled, type SoloMount, startSolo } from "./solo-mount.ts";

// Says when all is prepared, waits for a line, and acts.
const WAITER = `
import os, signal, sys, threading
signal.signal(signal.SIGALRM, lambda *a: None)
fd = os.open('f', os.O_RDWR)
def wait():
  os.write(1, b'ready\\n'); os.read(0, 1)
  try: eval(sys.argv[2])
  except OSError as e: os.write(1, b'error %d\\n' % e.errno)
  os.write(1, b'done\\n')
if sys.argv[1] == 'thread': t = threading.Thread(target=wait); t.start(); t.join()
else: wait()
`;

interface Waiting {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly ended: Promise<NodeJS.Signals | null>;
}

describe("a caller that waits for a lock", () => {
  let solo: SoloMount;
  const children: ChildProcess[] = [];

  beforeAll(async () => {
    solo = await startSolo({ entryValidity: true, metadataCalls: "inline" });
    await python("open('f', 'w').write('x' * 10000)", solo.mountpoint);
  });
  afterEach(async () => {
    solo.coherence.grantAll();
    for (const child of children.splice(0)) child.kill("SIGKILL");
    await settled(solo);
  });
  afterAll(async () => {
    await solo?.stop();
  });

  async function startWaiting(where: "main" | "thread", action: string): Promise<Waiting> {
    const enter = ["-c", 'cd "$0" && exec python3 -c "$@"', solo.mountpoint, WAITER, where, action];
    const child = spawn("/bin/sh", enter, { cwd: "/", stdio: ["pipe", "pipe", "inherit"] });
    children.push(child);
    let output = "";
    const said = new Promise<void>((resolve) => {
      child.stdout.on("data", (chunk: Buffer) => {
        output += chunk.toString();
        if (output.includes("ready\n")) resolve();
      });
    });
    const ended = new Promise<NodeJS.Signals | null>((resolve) => child.on("exit", (_, signal) => resolve(signal)));
    await said;
    solo.coherence.withhold();
    child.stdin.end("\n");
    await until("its call waits", () => solo.coherence.waiting.size === 1);
    return { child, output: () => output, ended };
  }

  // Each asks the server every time, and none is answered from a cache.
  const actions = ["os.ftruncate(fd, 5)", "os.setxattr(fd, 'user.a', b'x')", "os.pwrite(fd, b'x', 0)", "os.mkdir('d')"];

  it.each(actions.flatMap((action) => [["main", action] as const, ["thread", action] as const]))("%s: %s", async (where, action) => {
    const before = solo.session.counters.interrupted;
    const waiting = await startWaiting(where, action);
    waiting.child.kill("SIGALRM");
    // Nothing tells when nothing happens: three looks of the watch.
    await new Promise((resolve) => setTimeout(resolve, 350));
    expect(solo.coherence.waiting.size).toBe(1);
    expect(waiting.output()).toBe("ready\n");
    waiting.child.kill("SIGKILL");
    expect(await waiting.ended).toBe("SIGKILL");
    await until("its call has ended", () => solo.session.counters.interrupted > before);
    expect([solo.session.counters.interrupted, solo.coherence.waiting.size]).toEqual([before + 1, 0]);
  });

  it("SIGALRM alone changes nothing: the call ends well when the lock comes", async () => {
    const waiting = await startWaiting("main", "os.ftruncate(fd, 5)");
    waiting.child.kill("SIGALRM");
    await new Promise((resolve) => setTimeout(resolve, 150));
    solo.coherence.grantAll();
    expect(await waiting.ended).toBeNull();
    expect(waiting.output()).toBe("ready\ndone\n");
  });
});
