import { type SpawnSyncReturns, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type IncomingMessage, get } from "node:http";
import { createConnection } from "node:net";
import path from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { GoneClient } from "../../../dlmd/client/api.ts";
import { connectDlm } from "../../../dlmd/client/client.ts";
import { LockFlag } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { createFrameReader } from "../../../dlmd/wire/frame.ts";
import { decodeServerMessage } from "../../../dlmd/wire/local.ts";
import { Happenings, type TestClient, type TestCluster, createCluster, dlmdProgram } from "./cluster.ts";

describe("one node", () => {
  let cluster: TestCluster;
  let a: TestClient;
  let b: TestClient;
  beforeAll(async () => {
    cluster = createCluster({ nodes: 1 });
    [a] = (await cluster.startAll()) as [TestClient];
    b = await cluster.connect(1);
  });
  afterAll(() => cluster.close());

  test("tells who it is", () => {
    expect(a.client.info).toMatchObject({ clusterName: "test", nodeid: 1, nodes: [{ nodeid: 1, name: "node1", address: "127.0.0.1" }] });
    expect(a.client.info.incarnation).toMatch(/^[0-9a-f]{16}$/);
    expect(b.client.info.clientId).not.toBe(a.client.info.clientId);
    expect(b.client.info.overlayKeys.map(({ bytes }) => bytes.byteLength)).toEqual([32]);
    expect(a.client.view).toMatchObject({ quorate: true, members: [1], running: true });
  });

  test("tells who may not ask that it is so, and not that nobody is there", async () => {
    const handlers = { view() {}, gone: () => Promise.resolve(), disconnected() {} };
    process.seteuid?.(65534);
    const asked = connectDlm(path.join(cluster.runDir(1), "dlmd.sock"), handlers);
    process.seteuid?.(0);
    await expect(asked).rejects.toMatchObject({ code: "permission", hint: expect.stringContaining("sudo") as string });
  });

  test("tells Prometheus, on a socket beside its own", async () => {
    const lock = await a.lock("figures");
    await lock.request(Mode.PR);
    const [response] = (await once(get({ socketPath: path.join(cluster.runDir(1), "metrics.sock"), path: "/metrics" }), "response")) as [
      IncomingMessage,
    ];
    const page = await text(response);
    expect(page.split("\n")).toEqual(expect.arrayContaining(["dlmd_quorate 1", "dlmd_running 1", "dlmd_locks 1"]));
    await lock.unlock();
  });

  test("lock, convert up and down, unlock", async () => {
    const lock = await a.lock("convert");
    expect(await lock.request(Mode.PR)).toBe("granted");
    expect(await lock.request(Mode.EX)).toBe("granted");
    expect(lock.lock.mode).toBe(Mode.EX);
    expect(await lock.request(Mode.NL)).toBe("granted");
    expect(await lock.unlock()).toBe("unlocked");
    expect(await lock.request(Mode.CW)).toBe("granted");
    expect(await lock.unlock()).toBe("unlocked");
  });

  test("NOQUEUE says again, and nobody is asked to step down", async () => {
    const holder = await a.lock("noqueue");
    await holder.request(Mode.EX);
    const other = await b.lock("noqueue");
    expect(await other.request(Mode.PR, LockFlag.NOQUEUE)).toBe("again");
    expect(other.lock.mode).toBe(Mode.NL);
    expect(holder.basts).toEqual([]);
    expect(await other.request(Mode.PR, LockFlag.NOQUEUE | LockFlag.NOQUEUEBAST)).toBe("again");
    expect(await holder.bast()).toBe(Mode.PR);
    await holder.unlock();
    expect(await other.request(Mode.PR, LockFlag.NOQUEUE)).toBe("granted");
    await other.unlock();
  });

  test("a holder is asked to step down, and the other gets the lock when it has", async () => {
    const holder = await a.lock("bast");
    await holder.request(Mode.EX);
    const other = await b.lock("bast");
    const granted = other.request(Mode.PR);
    expect(await holder.bast()).toBe(Mode.PR);
    expect(other.lock.busy).toBe(true);
    holder.lock.request(Mode.PR, 0);
    expect(await granted).toBe("granted");
    expect(await holder.result()).toBe("granted");
    await Promise.all([holder.unlock(), other.unlock()]);
  });

  test("a request is taken back", async () => {
    const holder = await a.lock("cancel");
    await holder.request(Mode.EX);
    const other = await b.lock("cancel");
    const ended = other.request(Mode.EX);
    await holder.bast();
    other.lock.cancel();
    expect(await ended).toBe("canceled");
    await holder.unlock();
    expect(await other.request(Mode.EX)).toBe("granted");
    await other.unlock();
  });

  test("two that hold PR and both want EX: one is told that it would wait for itself", async () => {
    const first = await a.lock("deadlock");
    const second = await b.lock("deadlock");
    await Promise.all([first.request(Mode.PR), second.request(Mode.PR)]);
    const up = first.request(Mode.EX);
    await second.bast();
    expect(await second.request(Mode.EX)).toBe("deadlock");
    expect(second.lock.mode).toBe(Mode.PR);
    await second.unlock();
    expect(await up).toBe("granted");
    await first.unlock();
  });

  test("a value block is read by who comes after", async () => {
    const writer = await a.lock("lvb");
    const reader = await b.lock("lvb");
    await Promise.all([writer.request(Mode.NL), reader.request(Mode.NL)]);
    await writer.request(Mode.EX, LockFlag.VALBLK);
    await writer.request(Mode.NL, LockFlag.VALBLK, Buffer.from("attributes"));
    await reader.request(Mode.PR, LockFlag.VALBLK);
    expect(Buffer.from(reader.lock.lvb ?? []).toString()).toBe("attributes");
    expect(reader.lock.lvbValid).toBe(true);
    await Promise.all([writer.unlock(), reader.unlock()]);
  });

  test("thousands of locks in one turn", async () => {
    const locks = await Promise.all(Array.from({ length: 5000 }, (_, at) => a.lock(`many${at}`)));
    expect(new Set(await Promise.all(locks.map((lock) => lock.request(Mode.EX))))).toEqual(new Set(["granted"]));
    expect(new Set(await Promise.all(locks.map((lock) => lock.unlock())))).toEqual(new Set(["unlocked"]));
  });

  test("locks of a client that died go only when the others have stopped serving it (hazard C7)", async () => {
    const happenings = new Happenings();
    const named: GoneClient[] = [];
    let stopServing = (): void => {};
    const watcher = await cluster.connect(1, {
      gone(clients) {
        named.push(...clients);
        happenings.happened();
        return new Promise((resolve) => (stopServing = resolve));
      },
    });
    // It is waited for because it has that lockspace open, too.
    await watcher.lock("watched");
    const dying = await cluster.connect(1);
    const { clientId } = dying.client.info;
    const held = await dying.lock("dead");
    await held.request(Mode.EX);
    const waiting = await b.lock("dead");
    const granted = waiting.request(Mode.EX);
    await held.bast();
    await dying.client.close();
    await happenings.until(() => named.length > 0);
    expect(named).toMatchObject([{ nodeid: 1, clientId }]);
    // A whole trip through the lock manager later it still waits.
    await (await b.lock("another")).request(Mode.EX);
    expect(waiting.lock.busy).toBe(true);
    stopServing();
    expect(await granted).toBe("granted");
    await waiting.unlock();
    await watcher.client.close();
  });

  test("queries give plain data", async () => {
    const lock = await a.lock("query");
    await lock.request(Mode.PW);
    expect(JSON.stringify(await a.client.query("status"))).toContain("quor");
    expect(JSON.stringify(await a.client.query("nodes"))).toContain("node1");
    const all = { lockspace: "", resource: "", nodeid: 0, waitingMs: null };
    expect(JSON.stringify(await a.client.inspect(all))).toContain("query");
    await lock.unlock();
  });

  test("a damaged frame ends that connection with the reason, and nothing else", async () => {
    const socket = createConnection(path.join(cluster.runDir(1), "dlmd.sock"));
    const reader = createFrameReader({ maxBytes: 1 << 20, crc32: null });
    const reason = await new Promise<string>((resolve) => {
      socket.on("data", (chunk) =>
        reader.push(chunk, (body) => {
          const message = decodeServerMessage(body);
          resolve(message.kind === "error" ? message.reason : message.kind);
        }),
      );
      socket.write(Buffer.from("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    });
    expect(reason).toContain("at most 4194304 allowed");
    socket.destroy();
    const lock = await a.lock("after");
    expect(await lock.request(Mode.EX)).toBe("granted");
    await lock.unlock();
  });
});

describe("starting and stopping", () => {
  let cluster: TestCluster;
  beforeAll(() => {
    cluster = createCluster({ nodes: 1 });
  });
  afterAll(() => cluster.close());

  function runDlmd(...words: string[]): SpawnSyncReturns<string> {
    return spawnSync(process.execPath, [dlmdProgram, ...words], { encoding: "utf8", timeout: 60_000 });
  }
  function refusal(...words: string[]): string {
    const { status, stderr, stdout } = runDlmd("--config", cluster.configFile, "--run-dir", cluster.runDir(9), ...words);
    expect(stdout).toBe("");
    expect(status).toBe(1);
    return stderr;
  }

  test("--help shows examples", () => {
    const { stdout, status } = runDlmd("--help");
    expect(status).toBe(0);
    expect(stdout).toContain("Examples:");
    expect(stdout).toContain("--run-dir");
  });

  test("what cannot start says what was expected, what was found, and what to do", () => {
    expect(refusal("--node", "nodee1")).toMatch(
      /node nodee1 is not in the configuration, which has node1\n {2}Did you mean --node node1\?/,
    );
    expect(refusal("--config", "/no/such/file")).toMatch(/configuration expected in .*, found: no such file\n {2}Name the file/);
    const other = path.join(cluster.dir, "other.yaml");
    writeFileSync(other, readFileSync(cluster.configFile, "utf8").replace("127.0.0.1", "198.51.100.77"));
    expect(refusal("--config", other)).toContain("no node of the configuration has an address of this machine");
    expect(refusal("--config", other, "--node", "node1")).toContain("cannot be received on 198.51.100.77");
    const noKey = path.join(cluster.dir, "nokey.yaml");
    writeFileSync(noKey, `${readFileSync(cluster.configFile, "utf8")}keyFile: none.key\n`);
    expect(refusal("--config", noKey, "--node", "node1")).toContain("coverlay keygen");
    const hasty = path.join(cluster.dir, "hasty.yaml");
    writeFileSync(hasty, readFileSync(cluster.configFile, "utf8").replace("timeoutMs: 3000", "timeoutMs: 1499"));
    expect(refusal("--config", hasty, "--node", "node1")).toContain("timeoutMs: expected a whole number from 1500");
    expect(runDlmd("--confg", "x").stderr).toContain("Unknown argument");
  });

  test("SIGTERM leaves and exits 0; a crash leaves a socket that the next start replaces; two at once are refused", async () => {
    const pidFile = path.join(cluster.runDir(1), "dlmd.pid");
    const first = await cluster.start(1);
    expect(readFileSync(pidFile, "utf8")).toBe(`${first.child.pid}\n`);
    await expect(cluster.start(1)).rejects.toThrow("another dlmd answers");
    first.child.kill("SIGKILL");
    await first.exited;
    expect(existsSync(first.socketPath)).toBe(true);

    const second = await cluster.start(1);
    const client = await cluster.connect(1);
    await client.lock("in use");
    second.child.kill("SIGTERM");
    expect(await second.exited).toBe(0);
    expect((await client.disconnected()).message).toContain("dlmd stops");
    expect(existsSync(second.socketPath)).toBe(false);
    expect(existsSync(pidFile)).toBe(false);
    expect(cluster.log(1).some(({ msg }) => msg === "view")).toBe(true);
    const lost = cluster.log(1).find(({ msg }) => msg === "programs lose their locks");
    expect(lost).toMatchObject({
      programs: [expect.stringContaining(`(process ${process.pid})`)],
      hint: expect.stringContaining("unmount"),
    });
  });

  test.each(["a full disk", "a reader that is gone"])("serves, though its `ready` is not taken: %s", async (which) => {
    const full = openSync("/dev/full", "w");
    const words = ["--config", cluster.configFile, "--node", "node1", "--run-dir", cluster.runDir(1)];
    const child = spawn(process.execPath, [dlmdProgram, ...words], { stdio: ["ignore", which === "a full disk" ? full : "pipe", "pipe"] });
    closeSync(full);
    child.stdout?.destroy();
    const exited = once(child, "exit");
    try {
      const said = createInterface({ input: child.stderr as NodeJS.ReadableStream });
      const isTold = new Promise<string>((resolve) => {
        said.on("line", (line) => line.includes("cannot be written to standard output") && resolve(line));
        said.on("close", () => resolve("it ended"));
      });
      expect(await isTold).toContain("this node goes on");
      const client = await cluster.connect(1);
      expect(client.client.info.nodeid).toBe(1);
      child.kill("SIGTERM");
      expect(await exited).toEqual([0, null]);
    } finally {
      child.kill("SIGKILL");
    }
  });

  test("a damaged state file is not guessed at", async () => {
    const state = path.join(cluster.runDir(1), "state.json");
    writeFileSync(state, "{");
    await expect(cluster.start(1)).rejects.toThrow("state file");
    rmSync(state);
  });
});
