import fs from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { E, Errno } from "../../../dlmd/base/errno.ts";
import type { OperatingError } from "../../../dlmd/base/error.ts";
import { type Log, silentLog } from "../../../dlmd/base/log.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local.ts";
import type { Caller, Fetched, Maybe } from "../../../overlay/lower/lower.ts";
import { isAfter, type Stamp } from "../../../overlay/lower/stamp.ts";
import type { CallerIdentity } from "../../../overlay/lower/remote-connection.ts";
import type { LowerSessionId } from "../../../overlay/lower/handshake.ts";
import { createRemoteLower, type RemoteLower } from "../../../overlay/lower/remote.ts";
import { MAX_RUNNING_CALLS } from "../../../overlay/lower/server-session.ts";
import type { LowerServer } from "../../../overlay/lower/server.ts";
import { nativeAddon } from "../../../overlay/native/index.ts";
import { directoryPlace, type Place, TEST_CALLER, testServer } from "../../compliance/lower-fixture.ts";

const caller: Caller = { uid: 0, gid: 0, umask: 0o022 };
const RDWR = 2;
const name = (text: string): Buffer => Buffer.from(text);

async function errnoOf(call: () => Maybe<unknown>): Promise<number> {
  try {
    await call();
    return 0;
  } catch (error) {
    if (error instanceof Errno) return error.errno;
    throw error;
  }
}

interface Owner {
  readonly lower: LocalLower;
  readonly server: LowerServer;
  readonly address: { host: string; port: number };
  readonly epoch: number;
}

/** Between a caller and its owner: can keep answers back, and cut. */
class Proxy {
  readonly #server: Server;
  readonly #pairs: Set<{ near: Socket; far: Socket }> = new Set();
  holdAnswers = false;
  dropRequests = false;
  /** Bytes that came from the caller since holdAnswers was set. */
  onRequest: (() => void) | null = null;
  port = 0;

  constructor(target: () => number) {
    this.#server = createServer((near) => {
      const far = connect(target(), "127.0.0.1");
      const pair = { near, far };
      this.#pairs.add(pair);
      near.on("data", (chunk) => {
        if (!this.dropRequests) far.write(chunk);
        this.onRequest?.();
      });
      far.on("data", (chunk) => {
        if (!this.holdAnswers) near.write(chunk);
      });
      for (const [one, two] of [
        [near, far],
        [far, near],
      ] as const) {
        one.on("error", () => undefined);
        one.on("close", () => {
          this.#pairs.delete(pair);
          two.destroy();
        });
      }
    });
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    const address = this.#server.address();
    this.port = address !== null && typeof address !== "string" ? address.port : 0;
  }

  cut(): void {
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far.destroy();
    }
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

describe("the remote lower", () => {
  let place: Place;
  const owners: Owner[] = [];
  const callers: RemoteLower[] = [];
  const proxies: Proxy[] = [];

  beforeEach(() => {
    place = directoryPlace();
  });
  afterEach(async () => {
    for (const one of callers.splice(0)) one.shutdown();
    for (const one of proxies.splice(0)) await one.close();
    for (const one of owners.splice(0)) {
      await one.server.close();
      await one.lower.shutdown();
    }
    await place.release();
  });

  async function owner(
    epoch = 1,
    wrap: (lower: LocalLower) => LocalLower = (lower) => lower,
    isGone: (session: LowerSessionId) => boolean = () => false,
  ): Promise<Owner> {
    const lower = createLocalLower({ native: nativeAddon(), rootFd: place.rootFd, metadataCalls: "inline", log: silentLog });
    const server = testServer(wrap(lower), epoch, isGone);
    const port = await server.listen("127.0.0.1", 0);
    const made = { lower, server, epoch, address: { host: "127.0.0.1", port } };
    owners.push(made);
    return made;
  }
  function remote(identity: Partial<CallerIdentity> = {}, log: Log = silentLog, onRefused?: (error: OperatingError) => void): RemoteLower {
    const made = createRemoteLower({ ...TEST_CALLER, ...identity, log, ...(onRefused === undefined ? {} : { onRefused }) });
    callers.push(made);
    return made;
  }
  async function proxyTo(target: Owner): Promise<Proxy> {
    const proxy = new Proxy(() => target.address.port);
    await proxy.listen();
    proxies.push(proxy);
    return proxy;
  }
  async function refusal(identity: Partial<CallerIdentity>, to: Owner, epoch = to.epoch): Promise<string> {
    const error = await remote(identity)
      .connect(to.address, epoch)
      .then(
        () => null,
        (reason: OperatingError) => reason,
      );
    return error?.code ?? "welcome";
  }
  async function until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise((resolve) => setImmediate(resolve));
  }

  it("an append whose file is cut before it is answered, because its caller was killed, does not take the owner down", async () => {
    const real = nativeAddon();
    const write: typeof real.pool.data.write = async (...args) => {
      const count = await real.pool.data.write(...args);
      fs.truncateSync(`${place.path}/f`, 0);
      return count;
    };
    const native = { ...real, pool: { ...real.pool, data: { ...real.pool.data, write } } };
    const lower = createLocalLower({ native, rootFd: place.rootFd, metadataCalls: "inline", log: silentLog });
    const to = await owner(1, () => lower);
    try {
      const from = remote();
      await from.connect(to.address, 1);
      const { handle } = await from.create(from.root, name("f"), RDWR, 0o644, caller);
      expect(await from.write(handle, Buffer.from("some text"), 0, true)).toEqual({ offset: 0, bytes: 9 });
    } finally {
      await to.server.close();
      await lower.shutdown();
    }
  });

  it("knows what was done before its own change was answered, and a fetch from after that has a greater stamp", async () => {
    const to = await owner();
    const [writer, reader] = [remote(), remote({ nodeid: 3 })];
    for (const one of [writer, reader]) await one.connect(to.address, 1);
    const { entry, handle } = await writer.create(writer.root, name("f"), RDWR, 0o644, caller);
    const open = await reader.open(entry.id, RDWR);
    const fetched = async (): Promise<Fetched> => {
      const answer = await reader.fetch(entry.id, open, 0, 100);
      if (answer === null) throw new Error("the lower of another node fetches");
      return answer;
    };
    const before = await fetched();
    expect([before.attr.size, before.data.byteLength]).toEqual([0, 0]);
    const mark = writer.stamps.mark();
    expect(writer.stamps.since(mark)).toBeNull();
    await writer.write(handle, Buffer.from("text"), 0, false);
    const done = writer.stamps.since(mark);
    if (done === null) throw new Error("a write was answered");
    expect(isAfter(before.stamp, done)).toBe(false);
    const after = await fetched();
    expect(isAfter(after.stamp, done)).toBe(true);
    expect(after.attr.size).toBe(4);
    expect(Buffer.from(after.data).toString()).toBe("text");
    // Somebody whose calls were all answered before the mark knows nothing of what others did since.
    const later = writer.stamps.mark();
    await fetched();
    expect(writer.stamps.since(later)).toBeNull();
    // The owner's own changes, and another owner's count.
    expect(isAfter((await fetched()).stamp, to.lower.stamps.since(0) as Stamp)).toBe(false);
    const other = await owner(2);
    expect(isAfter({ ...other.lower.raiseStamp(), count: 1000 }, done)).toBe(false);
  });

  it("is refused by a new owner whose node knows that it is gone, and by it alone", async () => {
    const asked: number[] = [];
    const one = await owner(
      1,
      (lower) => lower,
      ({ clientId }) => {
        asked.push(clientId);
        return clientId === TEST_CALLER.clientId;
      },
    );
    expect(await refusal({}, one)).toBe("gone");
    expect(await refusal({ clientId: 99 }, one)).toBe("welcome");
    expect(asked).toEqual([TEST_CALLER.clientId, 99]);
  });

  it("says once that an owner will never serve it; what waits, and whatever comes later, ends with EIO", async () => {
    const [first, second] = [
      await owner(1),
      await owner(
        2,
        (lower) => lower,
        () => true,
      ),
    ];
    const refusals: string[] = [];
    const told = (error: OperatingError): void => void refusals.push(error.code);
    const lower = remote({}, silentLog, told);
    await lower.connect(first.address, 1);
    lower.ownerLost();
    const waiting = errnoOf(() => lower.getattr(lower.root));
    lower.ownerFound(second.address, 2);
    expect(await waiting).toBe(E.EIO);
    expect(refusals).toEqual(["gone"]);
    lower.ownerFound(first.address, 1);
    expect(await errnoOf(() => lower.getattr(lower.root))).toBe(E.EIO);
    expect(refusals).toEqual(["gone"]);
  });

  it("a refusal that the next word of the owner may mend is not for ever: calls go on waiting", async () => {
    const one = await owner(1);
    const refusals: string[] = [];
    let refused = (): void => {};
    const heard = new Promise<void>((resolve) => {
      refused = resolve;
    });
    const lower = remote({}, { ...silentLog, error: () => refused() }, (error) => void refusals.push(error.code));
    await lower.connect(one.address, 1);
    lower.ownerFound(one.address, 2);
    const waiting = errnoOf(() => lower.getattr(lower.root));
    await heard;
    lower.ownerFound(one.address, 1);
    expect(await waiting).toBe(0);
    expect(refusals).toEqual([]);
  });

  it("is refused with a reason: another secret, cluster, volume, epoch", async () => {
    const one = await owner();
    expect(await refusal({}, one)).toBe("welcome");
    expect(await refusal({ secret: new Uint8Array(32) }, one)).toBe("wrong-secret");
    expect(await refusal({ clusterName: "other" }, one)).toBe("other-cluster");
    expect(await refusal({ volumeUuid: "other" }, one)).toBe("other-volume");
    expect(await refusal({}, one, 2)).toBe("other-epoch");
    expect(one.server.sessions.length).toBe(1);
  });

  it("does not show itself to an owner without the secret, nor the owner to a stranger's frames", async () => {
    const one = await owner();
    const stranger = connect(one.address.port, "127.0.0.1");
    await new Promise<void>((resolve) => stranger.once("connect", () => resolve()));
    const closed = new Promise<void>((resolve) => stranger.once("close", () => resolve()));
    stranger.on("error", () => undefined);
    stranger.write(Buffer.from("GET / HTTP/1.1\r\n\r\n"));
    await closed;
    expect(one.server.sessions.length).toBe(0);
  });

  it("waits while there is no owner, and goes on when there is one", async () => {
    const one = await owner();
    const lower = remote();
    await lower.connect(one.address, 1);
    const { root } = lower;
    lower.ownerLost();
    expect(lower.disconnected).toBe(true);
    const waiting = [lower.getattr(root), lower.mkdir(root, name("made later"), 0o755, caller)];
    expect(lower.waitingCalls).toBe(2);
    expect(fs.existsSync(`${place.path}/made later`)).toBe(false);
    lower.ownerFound(one.address, 1);
    await Promise.all(waiting.map(async (one) => await one));
    expect(fs.existsSync(`${place.path}/made later`)).toBe(true);
  });

  it("does a change once, though its connection broke before the answer came", async () => {
    const one = await owner();
    const proxy = await proxyTo(one);
    const lower = remote();
    await lower.connect({ host: "127.0.0.1", port: proxy.port }, 1);
    proxy.holdAnswers = true;
    const changes = Array.from({ length: 20 }, (_, n) => lower.mkdir(lower.root, name(`d${n}`), 0o755, caller));
    const file = lower.create(lower.root, name("f"), RDWR, 0o644, caller);
    const attr = lower.getattr(lower.root);
    await until(() => fs.existsSync(`${place.path}/f`));
    proxy.cut();
    proxy.holdAnswers = false;
    // A second execution would be EEXIST.
    await Promise.all(changes.map(async (one) => await one));
    const { handle } = await file;
    expect((await attr).ino).toBe(lower.root.ino);
    await lower.write(handle, Buffer.from("through the same handle"), 0, false);
    proxy.cut();
    await lower.write(handle, Buffer.from("!"), 0, true);
    expect(fs.readFileSync(`${place.path}/f`, "utf8")).toBe("through the same handle!");
    expect(one.server.sessions.length).toBe(1);
    expect(one.server.sessions[0]?.openHandles).toBe(1);
  });

  it("forgets answers that the caller has", async () => {
    const one = await owner();
    const lower = remote();
    await lower.connect(one.address, 1);
    for (let n = 0; n < 50; n += 1) await lower.mkdir(lower.root, name(`d${n}`), 0o755, caller);
    await lower.getattr(lower.root);
    expect(one.server.sessions[0]?.rememberedAnswers).toBeLessThanOrEqual(1);
  });

  it("acknowledges again what was acknowledged on a connection that broke", async () => {
    const one = await owner();
    const proxy = await proxyTo(one);
    const lower = remote();
    await lower.connect({ host: "127.0.0.1", port: proxy.port }, 1);
    for (let round = 0; round < 3; round += 1) {
      await Promise.all(Array.from({ length: 20 }, async (_, n) => await lower.mkdir(lower.root, name(`d${round}-${n}`), 0o755, caller)));
      const swallowed = new Promise<void>((resolve) => {
        proxy.onRequest = resolve;
      });
      proxy.dropRequests = true;
      const question = lower.getattr(lower.root);
      await swallowed;
      proxy.onRequest = null;
      proxy.cut();
      proxy.dropRequests = false;
      await question;
    }
    await lower.getattr(lower.root);
    await lower.getattr(lower.root);
    expect(one.server.sessions.length).toBe(1);
    expect(one.server.sessions[0]?.rememberedAnswers).toBe(0);
  });

  it("opens a file once at the next owner, though the connection broke while it did", async () => {
    const first = await owner(1);
    const lower = remote();
    await lower.connect(first.address, 1);
    const { handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
    await lower.write(handle, Buffer.from("content"), 0, false);
    lower.ownerLost();
    let release: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const second = await owner(2, (local) => ({
      ...local,
      async open(...args) {
        await gate;
        return await local.open(...args);
      },
    }));
    const proxy = await proxyTo(second);
    lower.ownerFound({ host: "127.0.0.1", port: proxy.port }, 2);
    // Hello, proof and the open, and all of them again.
    await until(() => second.server.counters.received === 3);
    proxy.cut();
    await until(() => second.server.counters.received === 6);
    release();
    expect(Buffer.from(await lower.read(handle, 0, 100)).toString()).toBe("content");
    expect(second.lower.openHandles).toBe(1);
    lower.close(handle);
    await lower.getattr(lower.root);
    expect(second.lower.openHandles).toBe(0);
  });

  it("goes on at the next owner: handles opened again, questions asked again, unknown outcomes EIO", async () => {
    let released: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      released = resolve;
    });
    const stuck: string[] = [];
    const first = await owner(1, (lower) => ({
      ...lower,
      async getattr(id) {
        if (id.ino !== lower.root.ino) {
          stuck.push("getattr");
          await gate;
        }
        return await lower.getattr(id);
      },
      async mkdir(...args) {
        stuck.push("mkdir");
        const made = await lower.mkdir(...args);
        await gate;
        return made;
      },
    }));
    const errors: Readonly<Record<string, unknown>>[] = [];
    const lower = remote({}, { ...silentLog, error: (fields) => errors.push(fields) });
    await lower.connect(first.address, 1);
    const kept = await lower.create(lower.root, name("kept"), RDWR, 0o644, caller);
    const gone = await lower.create(lower.root, name("gone"), RDWR, 0o644, caller);
    await lower.write(kept.handle, Buffer.from("kept"), 0, false);
    await lower.fsync(kept.handle, false);
    const directory = await lower.opendir(lower.root);
    const listed = await lower.readdir(directory, 0n, 64, "plain");
    const unanswered = errnoOf(() => lower.mkdir(lower.root, name("d"), 0o755, caller));
    const question = lower.getattr(kept.entry.id);
    await until(() => stuck.length === 2);

    lower.ownerLost();
    const later = lower.read(kept.handle, 0, 100);
    fs.unlinkSync(`${place.path}/gone`);
    lower.ownerFound((await owner(2)).address, 2);
    // While the first owner's server holds it open the file is not gone: as after a real death, nothing may.
    await first.lower.shutdown();
    released();

    expect(await unanswered).toBe(E.EIO);
    expect(errors[0]).toMatchObject({ count: 1, calls: ["mkdir"] });
    expect((await question).ino).toBe(kept.entry.id.ino);
    expect(Buffer.from(await later).toString()).toBe("kept");
    const rest = await lower.readdir(directory, listed.entries.at(-1)?.cookie ?? 0n, 4096, "plain");
    expect(rest.entries.length).toBeGreaterThan(0);
    expect(lower.openHandles).toBe(3);
    lower.close(gone.handle);
  });

  it("says ESTALE for an open file that the new owner does not find", async () => {
    const first = await owner(1);
    const lower = remote();
    await lower.connect(first.address, 1);
    const { handle } = await lower.create(lower.root, name("gone"), RDWR, 0o644, caller);
    await first.server.close();
    lower.ownerLost();
    await first.lower.shutdown();
    fs.unlinkSync(`${place.path}/gone`);
    lower.ownerFound((await owner(2)).address, 2);
    expect(await errnoOf(() => lower.read(handle, 0, 1))).toBe(E.ESTALE);
    expect(await errnoOf(() => lower.write(handle, Buffer.from("x"), 0, false))).toBe(E.ESTALE);
    lower.close(handle);
    expect(await errnoOf(() => lower.read(handle, 0, 1))).toBe(E.EBADF);
  });

  it("does not say that data is on disk which died with its owner", async () => {
    const first = await owner(1);
    const lower = remote();
    await lower.connect(first.address, 1);
    const lost = await lower.create(lower.root, name("lost"), RDWR, 0o644, caller);
    const safe = await lower.create(lower.root, name("safe"), RDWR, 0o644, caller);
    await lower.write(lost.handle, Buffer.from("x"), 0, false);
    await lower.write(safe.handle, Buffer.from("x"), 0, false);
    await lower.fsync(safe.handle, true);
    lower.ownerLost();
    lower.ownerFound((await owner(2)).address, 2);
    expect(await errnoOf(() => lower.fsync(safe.handle, false))).toBe(0);
    expect(await errnoOf(() => lower.fsync(lost.handle, false))).toBe(E.EIO);
    expect(await errnoOf(() => lower.fsync(lost.handle, false))).toBe(0);
  });

  it("hears nothing more of an owner that was lost (C7)", async () => {
    let release: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    let asked = false;
    const first = await owner(1, (lower) => ({
      ...lower,
      async statfs() {
        asked = true;
        await gate;
        return { ...(await lower.statfs()), namelen: 1 };
      },
    }));
    const lower = remote();
    await lower.connect(first.address, 1);
    const answer = lower.statfs();
    await until(() => asked);
    lower.ownerLost();
    release();
    await until(() => first.server.sessions[0]?.runningCalls === 0);
    lower.ownerFound((await owner(2)).address, 2);
    expect((await answer).namelen).toBe(255);
  });

  it("is closed for ever when declared gone, after what runs of it has ended (C7)", async () => {
    let release: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    let writes = 0;
    const one = await owner(1, (lower) => ({
      ...lower,
      async write(...args) {
        writes += 1;
        await gate;
        return await lower.write(...args);
      },
    }));
    const victim = remote();
    const neighbour = remote({ clientId: 6 });
    await victim.connect(one.address, 1);
    await neighbour.connect(one.address, 1);
    const { handle } = await victim.create(victim.root, name("f"), RDWR, 0o644, caller);
    const dead = errnoOf(() => victim.write(handle, Buffer.from("late"), 0, false));
    await until(() => writes === 1);
    let closed = false;
    const closing = (async () => {
      await one.server.closeSessions([{ nodeid: 2, incarnation: "i1", clientId: 5 }]);
      closed = true;
    })();
    // The victim comes back at once, and is told.
    expect(await dead).toBe(E.EIO);
    expect(closed).toBe(false);
    expect(fs.readFileSync(`${place.path}/f`, "utf8")).toBe("");
    release();
    await closing;
    // What ran has ended before the answer: nothing of it happens later.
    expect(fs.readFileSync(`${place.path}/f`, "utf8")).toBe("late");
    expect(one.lower.openHandles).toBe(0);
    expect(await refusal({}, one)).toBe("gone");
    expect((await neighbour.getattr(neighbour.root)).nlink).toBeGreaterThan(0);
    await one.server.closeSessions([{ nodeid: 2, incarnation: "i1", clientId: null }]);
    expect(one.server.sessions.length).toBe(0);
    expect(await refusal({ clientId: 7 }, one)).toBe("gone");
    expect(await refusal({ incarnation: "i2" }, one)).toBe("welcome");
  });

  it("asks thousands at once, a bounded number at a time, several in a message", async () => {
    let running = 0;
    let most = 0;
    const one = await owner(1, (lower) => ({
      ...lower,
      async statfs() {
        running += 1;
        most = Math.max(most, running);
        await new Promise((resolve) => setImmediate(resolve));
        running -= 1;
        return await lower.statfs();
      },
    }));
    const lower = remote();
    await lower.connect(one.address, 1);
    const before = { ...lower.counters };
    const answers = await Promise.all(Array.from({ length: 5000 }, async () => await lower.statfs()));
    expect(answers.length).toBe(5000);
    expect(most).toBeGreaterThan(1);
    expect(most).toBeLessThanOrEqual(MAX_RUNNING_CALLS);
    expect(lower.counters.roundTrips - before.roundTrips).toBe(5000);
    expect(lower.counters.messagesSent - before.messagesSent).toBe(5000);
    expect(lower.counters.flushes - before.flushes).toBeLessThan(2500);
  });

  it("costs one message each way", async () => {
    const one = await owner();
    const lower = remote();
    await lower.connect(one.address, 1);
    const { handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
    await lower.write(handle, Buffer.alloc(4096), 0, false);
    await lower.getattr(lower.root);
    const before = { ...lower.counters };
    await lower.read(handle, 0, 4096);
    expect(lower.counters.messagesSent - before.messagesSent).toBe(1);
    expect(lower.counters.messagesReceived - before.messagesReceived).toBe(1);
    expect(lower.counters.bytesReceived - before.bytesReceived).toBe(4096 + 13);
  });

  it("opens again at the new owner though the connection breaks in the middle of it", async () => {
    const first = await owner(1);
    const lower = remote();
    await lower.connect(first.address, 1);
    const { handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
    await lower.write(handle, Buffer.from("data"), 0, false);
    lower.ownerLost();
    let breaks = 3;
    const second = await owner(2, (local) => ({
      ...local,
      open(id, flags) {
        if (breaks > 0) {
          breaks -= 1;
          proxy.cut();
        }
        return local.open(id, flags);
      },
    }));
    const proxy = await proxyTo(second);
    lower.ownerFound({ host: "127.0.0.1", port: proxy.port }, 2);
    expect(Buffer.from(await lower.read(handle, 0, 10)).toString()).toBe("data");
    expect(second.server.sessions[0]?.openHandles).toBe(1);
    expect(second.lower.openHandles).toBe(1);
  });
});
