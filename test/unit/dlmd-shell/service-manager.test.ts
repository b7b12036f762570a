/** sd_notify(3): what dlmd tells the service manager, on a real socket that python3 has bound, and when. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createServiceManager, TELL_AGAIN_MS, viewWords } from "../../../dlmd/server/service-manager.ts";
import { nativeAddon } from "../../../native/index.ts";

const view = { viewId: "1.1.a", quorate: true, members: [1, 2], incarnations: [], quorumReason: "2 of 3 votes", running: true };

function recorded(
  env: NodeJS.ProcessEnv,
  timeoutMs = 3000,
  code = 1,
): { said: string[]; warned: unknown[]; manager: ReturnType<typeof createServiceManager> } {
  const said: string[] = [];
  const warned: unknown[] = [];
  const log = { info: () => {}, warn: (fields: unknown) => void warned.push(fields) };
  const send = (_: string, message: Buffer): number => {
    said.push(message.toString());
    return code;
  };
  return { said, warned, manager: createServiceManager(env, timeoutMs, { send, pid: 42, log }) };
}

describe("words to the service manager", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  test("READY once it is ready, then a sign of life four times in the watchdog's time, until it is closed", () => {
    const env = { NOTIFY_SOCKET: "/run/n", WATCHDOG_USEC: "60000000", WATCHDOG_PID: "42", PATH: "/bin" };
    const { said, manager } = recorded(env);
    vi.advanceTimersByTime(120_000);
    expect([said, env]).toEqual([[], { PATH: "/bin" }]);
    manager.ready();
    vi.advanceTimersByTime(14_999);
    expect(said).toEqual(["READY=1"]);
    vi.advanceTimersByTime(45_001);
    expect(said).toEqual(["READY=1", ...Array.from({ length: 4 }, () => "WATCHDOG=1")]);
    manager.close();
    vi.advanceTimersByTime(120_000);
    expect(said).toHaveLength(5);
  });

  test("a watchdog's time that is too short for the cluster's time-out is made longer", () => {
    const { said, manager } = recorded({ NOTIFY_SOCKET: "@n", WATCHDOG_USEC: "60000000" }, 10_000);
    manager.ready();
    vi.advanceTimersByTime(24_999);
    expect(said).toEqual(["READY=1\nWATCHDOG_USEC=100000000"]);
    vi.advanceTimersByTime(1);
    expect(said.at(-1)).toBe("WATCHDOG=1");
    manager.close();
  });

  test("without a watchdog, or with that of another process, no sign of life", () => {
    for (const more of [{}, { WATCHDOG_USEC: "60000000", WATCHDOG_PID: "43" }, { WATCHDOG_USEC: "0" }, { WATCHDOG_USEC: "soon" }]) {
      const { said, manager } = recorded({ NOTIFY_SOCKET: "/run/n", ...more });
      manager.ready();
      vi.advanceTimersByTime(120_000);
      expect(said).toEqual(["READY=1"]);
    }
  });

  test("without a manager nothing is said", () => {
    const { said, manager } = recorded({ WATCHDOG_USEC: "60000000" });
    manager.ready();
    manager.status("x");
    manager.waits(1000);
    manager.stepDone();
    manager.stopping();
    manager.close();
    vi.advanceTimersByTime(120_000);
    expect(said).toEqual([]);
  });

  test("a status is one line, is cut at 512 bytes between characters, and is not repeated", () => {
    const { said, manager } = recorded({ NOTIFY_SOCKET: "/run/n" });
    manager.status("a\nb");
    manager.status("a b");
    manager.status(`x${"ü".repeat(400)}`);
    manager.stopping();
    expect(said).toEqual(["STATUS=a b", `STATUS=x${"ü".repeat(255)}`, "STOPPING=1\nSTATUS=leaving the cluster"]);
  });

  test("a start that waits is given the time of the wait, and 90 s after it", () => {
    const { said, manager } = recorded({ NOTIFY_SOCKET: "/run/n" });
    manager.waits(60_000);
    expect(said).toEqual(["EXTEND_TIMEOUT_USEC=150000000"]);
  });

  test("each step of a start has 90 s; a start that hangs gets no more, and nothing is said once it is ready, or leaves", () => {
    const { said, manager } = recorded({ NOTIFY_SOCKET: "/run/n" });
    const step = "EXTEND_TIMEOUT_USEC=90000000";
    manager.stepDone();
    vi.advanceTimersByTime(80_000);
    manager.stepDone();
    vi.advanceTimersByTime(600_000);
    expect(said).toEqual([step, step]);
    manager.ready();
    manager.stepDone();
    expect(said).toEqual([step, step, "READY=1"]);
    const leaving = recorded({ NOTIFY_SOCKET: "/run/n" });
    leaving.manager.stopping();
    leaving.manager.stepDone();
    expect(leaving.said).toEqual(["STOPPING=1\nSTATUS=leaving the cluster"]);
  });

  // EAGAIN, ENOMEM, ENOBUFS
  test.each([-11, -12, -105])("a manager whose socket is full is told again, in order, and the last word of each kind: %d", (refusal) => {
    const said: string[] = [];
    const warned: unknown[] = [];
    let code = refusal;
    const send = (_: string, message: Buffer): number => {
      if (code > 0) said.push(message.toString());
      return code;
    };
    const log = { info: () => {}, warn: (fields: unknown) => void warned.push(fields) };
    const manager = createServiceManager({ NOTIFY_SOCKET: "/run/n", WATCHDOG_USEC: "60000000" }, 3000, { send, pid: 42, log });
    manager.status("no quorum");
    manager.ready();
    vi.advanceTimersByTime(40_000);
    manager.status("node 1");
    expect([said, warned]).toEqual([[], [{ socket: "/run/n", errno: -refusal }]]);
    code = 1;
    vi.advanceTimersByTime(TELL_AGAIN_MS);
    expect(said).toEqual(["READY=1", "WATCHDOG=1", "STATUS=node 1"]);
    code = refusal;
    manager.stopping();
    manager.close();
    vi.advanceTimersByTime(120_000);
    expect([said.length, vi.getTimerCount()]).toEqual([3, 0]);
  });

  test("a manager that does not listen is logged once", () => {
    const { warned, manager } = recorded({ NOTIFY_SOCKET: "/run/n" }, 3000, -111);
    manager.ready();
    manager.status("x");
    expect(warned).toEqual([{ socket: "/run/n", errno: 111 }]);
  });

  test("a view in words", () => {
    expect(viewWords(view)).toBe("nodes 1, 2; locks are granted");
    expect(viewWords({ ...view, members: [1], running: false })).toBe("node 1; locks are being recovered");
    expect(viewWords({ ...view, members: [], quorate: false })).toBe("no quorum (2 of 3 votes); sees no node");
  });
});

const listener = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1].replace("@", "\\0"))
print("bound", flush=True)
print(s.recv(4096).decode(), flush=True)`;

test.each(["a path", "an abstract name"])("the addon sends to %s", async (kind) => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-notify-"));
  const name = kind === "a path" ? path.join(dir, "socket") : `@coverlay-test-${process.pid}`;
  const child = spawn("python3", ["-c", listener, name], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    const lines: string[] = [];
    const ended = once(child, "exit");
    child.stdout.on("data", (bytes: Buffer) => void lines.push(bytes.toString()));
    await once(child.stdout, "data");
    expect(nativeAddon().sendDatagram(name, Buffer.from("READY=1\nSTATUS=x"))).toBe(16);
    await ended;
    expect(lines.join("")).toBe("bound\nREADY=1\nSTATUS=x\n");
  } finally {
    child.kill("SIGKILL");
    rmSync(dir, { recursive: true });
  }
});

test("the addon says what the kernel says, and takes no other address", () => {
  const sendDatagram = (name: string, message: Buffer): number => nativeAddon().sendDatagram(name, message);
  expect(sendDatagram("/nowhere/socket", Buffer.from("x"))).toBe(-2);
  expect(sendDatagram("", Buffer.from("x"))).toBe(-22);
  expect(sendDatagram("relative", Buffer.from("x"))).toBe(-22);
  expect(sendDatagram(`/${"x".repeat(107)}`, Buffer.from("x"))).toBe(-36);
  expect(() => sendDatagram("/x", "text" as unknown as Buffer)).toThrow(TypeError);
});
