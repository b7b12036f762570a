/** The server of the local socket: who may connect, what it does with damage, with who does not read, and with who hangs. */
import { chmodSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { expect, test } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { SLOW_BYTES, UNREAD_PAUSE_BYTES } from "../../../dlmd/server/local-client.ts";
import { type KernelWait, MAX_SPARED } from "../../../dlmd/server/kernel-wait.ts";
import { LOCAL_VERSION } from "../../../dlmd/wire/local.ts";
import { frame, hello, localSocketLab } from "./local-socket-lab.ts";

const current = localSocketLab();

test("modes: the socket 0600, its folder 0700", () => {
  const lab = current();
  expect(statSync(lab.socketPath).mode & 0o777).toBe(0o600);
  expect(statSync(path.dirname(lab.socketPath)).mode & 0o777).toBe(0o700);
});

test.runIf(process.getuid?.() === 0)(
  "another user is kept out by the modes, and refused by the kernel's word where these were changed",
  async () => {
    const lab = current();
    const nobody = 65_534;
    expect(await lab.otherProgram(nobody, hello()).said).toBe("EACCES");
    chmodSync(lab.dir, 0o755);
    chmodSync(path.dirname(lab.socketPath), 0o755);
    chmodSync(lab.socketPath, 0o666);
    expect(await lab.otherProgram(nobody, hello()).said).toContain("this socket is for root and for uid 0, not for process");
    expect(lab.connected).toEqual([]);
    await lab.connect();
    expect(lab.connected).toMatchObject([{ uid: 0, pid: process.pid }]);
  },
);

test("who a program is, is what the kernel says, not what it says itself", async () => {
  const lab = current();
  const { child, said } = lab.otherProgram(process.getuid?.() ?? 0, hello());
  await said;
  // It says that it is process 1.
  expect(lab.connected).toMatchObject([{ uid: process.getuid?.(), pid: child.pid }]);
});

test("H13: a program that hangs is killed, and is gone when it has ended", async () => {
  const lab = current();
  const { child, said, ended } = lab.otherProgram(process.getuid?.() ?? 0, hello());
  await said;
  // It would answer no other signal.
  child.kill("SIGSTOP");
  lab.server.kill(1, "it hangs");
  lab.server.kill(1, "it hangs");
  expect(lab.gone).toEqual([]);
  expect(await ended).toBe("SIGKILL");
  await lab.until(() => lab.gone.length > 0);
  expect(lab.gone).toEqual([1]);
});

test("H13: a program that hangs and waits in the kernel is spared, once for each time that it was to be killed, and killed when it does not", async () => {
  const lab = current();
  let kills = 0;
  let looks = 0;
  let wait: KernelWait = "held";
  const kernelWait = async (): Promise<KernelWait> => {
    looks++;
    lab.happened();
    return wait;
  };
  const kill = (): Promise<boolean> => {
    kills++;
    lab.happened();
    return new Promise(() => {});
  };
  lab.processes.open = () => ({ kill, kernelWait, ended: false, close: () => {} });
  await lab.connect();
  lab.server.kill(1, "it hangs");
  lab.server.kill(1, "it hangs");
  await lab.until(() => lab.spared.length > 0);
  expect([looks, kills, lab.spared]).toEqual([1, 0, [1]]);
  lab.server.kill(1, "it hangs");
  await lab.until(() => lab.spared.length > 1);
  // Its disk answers while it is looked at: what it owes is on its way.
  wait = "over";
  lab.server.kill(1, "it hangs");
  await lab.until(() => looks > 2);
  await new Promise<void>((resolve) => setImmediate(resolve));
  expect([kills, lab.spared]).toEqual([0, [1, 1, 1]]);
  wait = "none";
  lab.server.kill(1, "it hangs");
  await lab.until(() => kills > 0);
  expect([looks, kills, lab.spared]).toEqual([4, 1, [1, 1, 1]]);
});

test(`H13: a program that was spared ${MAX_SPARED} times, and said nothing in between, is killed`, async () => {
  const lab = current();
  let kills = 0;
  const kill = (): Promise<boolean> => {
    kills++;
    lab.happened();
    return new Promise(() => {});
  };
  lab.processes.open = () => ({ kill, kernelWait: async () => "held", ended: false, close: () => {} });
  const client = await lab.connect();
  const spare = async (): Promise<void> => {
    const before = lab.spared.length;
    lab.server.kill(1, "it hangs");
    await lab.until(() => lab.spared.length > before || kills > 0);
  };
  await spare();
  await client.query("status");
  for (let i = 0; i < MAX_SPARED; i++) await spare();
  expect([lab.spared.length, kills]).toEqual([1 + MAX_SPARED, 0]);
  await spare();
  expect([lab.spared.length, kills]).toEqual([1 + MAX_SPARED, 1]);
});

test("a program that could not be killed is killed when it hangs again", async () => {
  const lab = current();
  let kills = 0;
  const refused = (): Promise<boolean> => {
    kills++;
    return Promise.reject(new Error("EPERM"));
  };
  lab.processes.open = () => ({ kill: refused, kernelWait: async () => "none", ended: false, close: () => {} });
  await lab.connect();
  lab.server.kill(1, "it hangs");
  lab.server.kill(1, "it hangs");
  await new Promise<void>((resolve) => setImmediate(resolve));
  lab.server.kill(1, "it hangs");
  await new Promise<void>((resolve) => setImmediate(resolve));
  expect(kills).toBe(2);
});

test("a second dlmd is told; the first goes on", async () => {
  const lab = current();
  await expect(lab.start()).rejects.toMatchObject({ code: "already-running" });
  expect((await lab.connect()).info.clusterName).toBe("lab");
});

test("a socket that nobody answers on is replaced; another file is not", async () => {
  const lab = current();
  await lab.server.close("stopping");
  const stale = createServer();
  await new Promise<void>((resolve) => stale.listen(path.join(lab.dir, "run", "other.sock"), resolve));
  // A socket file without a listener, as a killed process leaves it.
  renameSync(path.join(lab.dir, "run", "other.sock"), lab.socketPath);
  await new Promise<void>((resolve) => stale.close(() => resolve()));
  expect(statSync(lab.socketPath).isSocket()).toBe(true);
  await lab.start();
  expect((await lab.connect()).info.nodeid).toBe(1);
  await lab.server.close("stopping");
  writeFileSync(lab.socketPath, "not a socket");
  await expect(lab.start()).rejects.toBeInstanceOf(OperatingError);
  rmSync(lab.socketPath);
  await lab.start();
});

test.each<[name: string, bytes: () => Buffer, reason: string]>([
  ["before the hello", () => frame(5, 0, 0, 0, 0, 0), "query before the hello"],
  ["another program", () => Buffer.from("GET / HTTP/1.1\r\n\r\n"), "frame of 542393671 bytes, at most 4194304 allowed"],
  [
    "another version",
    () => hello(LOCAL_VERSION - 1),
    `version ${LOCAL_VERSION - 1} of the local protocol; this dlmd speaks ${LOCAL_VERSION}: run programs of its release, which is newer`,
  ],
  [
    "a newer version",
    () => hello(LOCAL_VERSION + 1),
    `version ${LOCAL_VERSION + 1} of the local protocol; this dlmd speaks ${LOCAL_VERSION}: restart dlmd, which is the older one`,
  ],
  ["an unknown kind", () => Buffer.concat([hello(), frame(77)]), "message of kind 77 from a client"],
  ["a cut message", () => Buffer.concat([hello(), frame(2, 0)]), "truncated"],
  ["a mode that is none", () => Buffer.concat([hello(), frame(3, 2, 0, 0, 0, 0, 9, 0, 255, 255)]), "lock mode 9"],
])("damaged, %s: told why and closed; nothing else is disturbed", async (_name, bytes, reason) => {
  const lab = current();
  const other = await lab.connect();
  const { socket, heard, ended } = await lab.stranger();
  socket.write(bytes());
  await ended;
  expect(heard.at(-1)).toContain(`error: ${reason}`);
  expect(await other.query("nodes")).toEqual({ asked: "nodes" });
  expect(lab.gone).toEqual(heard.includes("welcome") ? [2] : []);
});

test("requests before the damage count", async () => {
  const lab = current();
  const { socket, ended } = await lab.stranger();
  socket.write(Buffer.concat([hello(), frame(5, 1, 0, 0, 0, 0), frame(77)]));
  await ended;
  expect(lab.reads).toEqual([{ clientId: 1, requests: [{ kind: "query", queryId: 1, what: "status" }] }]);
});

test("a client that does not read is not read either, never disconnected, and goes on when it has read", async () => {
  const lab = current();
  const { socket, heard } = await lab.stranger();
  socket.write(hello());
  await lab.until(() => heard.length === 1);
  socket.pause();
  const data = "x".repeat(1 << 20);
  for (let sent = 0; sent <= UNREAD_PAUSE_BYTES * 1.5; sent += data.length) {
    lab.send(1, { kind: "answer", queryId: 1, data: data.slice(16) });
  }
  socket.write(frame(5, 9, 0, 0, 0, 0));
  // Another client's trip there and back shows that the server had its turn.
  await (await lab.connect()).query("status");
  expect(lab.reads.filter(({ clientId }) => clientId === 1)).toEqual([]);
  expect(lab.gone).toEqual([]);
  socket.resume();
  await lab.until(() => lab.reads.some(({ clientId }) => clientId === 1));
  expect(lab.gone).toEqual([]);
});

test("a client that leaves too much unread is named once, and again only after it has read all", async () => {
  const lab = current();
  const { socket, heard } = await lab.stranger();
  socket.write(hello());
  await lab.until(() => heard.length === 1);
  const data = "x".repeat(1 << 20);
  const flood = (): void => {
    for (let sent = 0; sent <= SLOW_BYTES * 1.2; sent += data.length) lab.send(1, { kind: "answer", queryId: 1, data: data.slice(16) });
  };
  socket.pause();
  flood();
  await lab.until(() => lab.slow.length === 1);
  expect(lab.slow[0]?.unreadBytes).toBeGreaterThan(SLOW_BYTES);
  lab.send(1, { kind: "answer", queryId: 2, data: "more" });
  socket.write(frame(5, 9, 0, 0, 0, 0));
  socket.resume();
  // It is read again when it has read: then all was.
  await lab.until(() => lab.reads.some(({ clientId }) => clientId === 1));
  expect(lab.slow).toHaveLength(1);
  socket.pause();
  flood();
  await lab.until(() => lab.slow.length === 2);
  expect(lab.gone).toEqual([]);
});

test("the core may pause a client", async () => {
  const lab = current();
  const client = await lab.connect();
  const other = await lab.connect();
  lab.server.setPaused(client.info.clientId, true);
  const answer = client.query("nodes");
  await other.query("status");
  expect(lab.reads.map(({ clientId }) => clientId)).toEqual([2]);
  lab.server.setPaused(client.info.clientId, false);
  expect(await answer).toEqual({ asked: "nodes" });
});
