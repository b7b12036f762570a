/** A caller whose owner goes, and comes, or is another one. */
import fs from "node:fs";
import { expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { Entry, FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import type { OwnerAddress } from "../../../overlay/lower/remote/connection.ts";
import { createLowerServer } from "../../../overlay/lower/server/server.ts";
import { listenOn, TEST_CALLER, TEST_OWNER, testServerOptions } from "../../compliance/lower-fixture.ts";
import { caller, errnoOf, name, type Owner, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const { owner, proxyTo, refusal, remote } = lab;

interface Made {
  readonly entry: Entry;
  readonly handle: LowerHandle;
}

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
  const lower = remote({}, silentLog, { onRefused: told });
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

it.each<[string, (one: Owner) => readonly [OwnerAddress, number]]>([
  ["of another epoch", ({ address }) => [address, 2]],
  ["on another node", ({ address }) => [{ ...address, nodeid: 3 }, 1]],
  ["of an earlier life of its node", ({ address }) => [{ ...address, incarnation: "i9" }, 1]],
  ["that is another program", ({ address }) => [{ ...address, clientId: 7 }, 1]],
])("an owner %s than the one that it was told of counts for nothing: calls wait for the next word", async (_, wrong) => {
  const one = await owner(1);
  const refusals: string[] = [];
  let heard: (reason: unknown) => void = () => {};
  const reason = new Promise((resolve) => (heard = resolve));
  const log = { ...silentLog, warn: (fields: Readonly<Record<string, unknown>>) => heard(fields["reason"]) };
  const lower = remote({}, log, { onRefused: (error) => void refusals.push(error.code) });
  await lower.connect(one.address, 1);
  lower.ownerLost();
  lower.ownerFound(...wrong(one));
  const waiting = errnoOf(() => lower.getattr(lower.root));
  expect(await reason).toMatch(/^another owner answers: client/);
  expect(lower.ownerWait?.calls).toBe(1);
  lower.ownerFound(one.address, 1);
  expect(await waiting).toBe(0);
  expect(refusals).toEqual([]);
});

it("a life of a node that is not in the view gets no session, and is served once it is; another life of that node is not", async () => {
  const one = await owner(1);
  const view = new Set<string>();
  const isMember = (nodeid: number, incarnation: string): boolean => view.has(`${nodeid} ${incarnation}`);
  const server = createLowerServer({ ...testServerOptions(one.lower, 1), isMember });
  try {
    const address = await listenOn(server);
    const refusals: string[] = [];
    const said: unknown[] = [];
    const log = { ...silentLog, warn: (fields: Readonly<Record<string, unknown>>) => void said.push(fields["reason"]) };
    const lower = remote({}, log, { onRefused: (error) => void refusals.push(error.code) });
    const connected = lower.connect(address, 1);
    await until(() => server.counters.refused > 1);
    expect([server.sessions.length, said[0]]).toEqual([0, "node 2 (incarnation i1) is not in the view"]);
    view.add("2 i1");
    await connected;
    expect((await lower.getattr(lower.root)).nlink).toBeGreaterThan(0);
    // The view changes: a connection that is there ends with the word that its client is gone, another one does not begin.
    view.delete("2 i1");
    view.add("2 i2");
    await server.closeSessions([{ nodeid: 2, incarnation: "i1", clientId: null }]);
    const evicted = errnoOf(() => lower.getattr(lower.root));
    expect(await evicted).toBe(E.EIO);
    expect(refusals).toEqual(["gone"]);
    const restarted = remote({ incarnation: "i2" });
    await restarted.connect(address, 1);
    expect(server.sessions.map(({ id }) => id.incarnation)).toEqual(["i2"]);
  } finally {
    await server.close();
  }
});

it("a caller that is not admitted yet waits, and is served when it is; another one is served meanwhile", async () => {
  const one = await owner(1);
  let all = false;
  const server = createLowerServer({ ...testServerOptions(one.lower, 1), admits: ({ clientId }) => all || clientId === 1 });
  try {
    const address = await listenOn(server);
    const refusals: string[] = [];
    const said: unknown[] = [];
    const log = { ...silentLog, warn: (fields: Readonly<Record<string, unknown>>) => void said.push(fields["reason"]) };
    const waits = remote({ clientId: 2 }, log, { onRefused: (error) => void refusals.push(error.code) });
    const connected = waits.connect(address, 1);
    await until(() => server.counters.refused > 1);
    await remote({ clientId: 1 }).connect(address, 1);
    expect([server.sessions.map(({ id }) => id.clientId), said[0]]).toEqual([[1], "this owner opens its own files first"]);
    all = true;
    await connected;
    expect([server.sessions.length, refusals]).toEqual([2, []]);
  } finally {
    await server.close();
  }
});

it("the server of another volume that has the owner's port by now ends no mount, though it refuses", async () => {
  const one = await owner(1);
  const other = createLowerServer({
    ...testServerOptions(one.lower, 1),
    volumeUuid: "another",
    owner: { ...TEST_OWNER, clientId: 77, epoch: 1 },
  });
  try {
    const lower = remote();
    await lower.connect(one.address, 1);
    lower.ownerLost();
    lower.ownerFound({ ...(await listenOn(other)), ...TEST_OWNER }, 1);
    const waiting = errnoOf(() => lower.getattr(lower.root));
    await until(() => other.counters.refused > 1);
    lower.ownerFound(one.address, 1);
    expect(await waiting).toBe(0);
  } finally {
    await other.close();
  }
});

it("waits while there is no owner, and goes on when there is one", async () => {
  const one = await owner();
  const lower = remote();
  await lower.connect(one.address, 1);
  const { root } = lower;
  lower.ownerLost();
  expect(lower.disconnected).toBe(true);
  const waiting = [lower.getattr(root), lower.mkdir(root, name("made later"), 0o755, caller)];
  expect(lower.ownerWait?.calls).toBe(2);
  expect(fs.existsSync(`${lab.place.path}/made later`)).toBe(false);
  lower.ownerFound(one.address, 1);
  await Promise.all(waiting.map(async (one) => await one));
  expect(fs.existsSync(`${lab.place.path}/made later`)).toBe(true);
});

it.each([
  ["no directory", false, [E.EIO, 0, E.EIO]],
  ["its directory", true, [0, 0, 0]],
])("a rename that may be lost with its owner is told by fsync of the file, once; synced before that: %s", async (_, syncs, errors) => {
  const first = await owner(1);
  const lower = remote();
  await lower.connect(first.address, 1);
  const { root } = lower;
  const make = async (file: string): Promise<Made> => {
    const made = await lower.create(root, name(file), RDWR, 0o644, caller);
    await lower.fsync(made.handle, false);
    return made;
  };
  const [moved, one, other] = [await make("moved"), await make("one"), await make("other")];
  const dir = (await lower.mkdir(root, name("d"), 0o755, caller)).id;
  await lower.rename(root, name("moved"), dir, name("new"), 0, moved.entry.id, null);
  await lower.rename(root, name("one"), root, name("other"), 2, one.entry.id, other.entry.id);
  const directory = await lower.opendir(root);
  if (syncs) await lower.fsyncdir(directory, false);
  lower.ownerLost();
  lower.ownerFound((await owner(2)).address, 2);
  const fsync = ({ handle }: Made): Promise<number> => errnoOf(() => lower.fsync(handle, false));
  expect([await fsync(moved), await fsync(moved), await fsync(other)]).toEqual(errors);
  expect(await fsync(one)).toBe(errors[0]);
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
  lower.ownerFound(proxy.address, 2);
  // The hello and the open, and both again.
  await until(() => second.server.counters.received === 2);
  proxy.cut();
  await until(() => second.server.counters.received === 4);
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
  fs.unlinkSync(`${lab.place.path}/gone`);
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

it("loses nothing when an owner ends in good order: what runs is answered, what it has not begun is for the next, and all is on disk", async () => {
  let released: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => {
    released = resolve;
  });
  const begun: string[] = [];
  const first = await owner(1, (lower) => ({
    ...lower,
    async mkdir(...args) {
      begun.push("mkdir");
      await gate;
      return await lower.mkdir(...args);
    },
    async syncfs() {
      begun.push("syncfs");
      await lower.syncfs();
    },
  }));
  const lower = remote();
  await lower.connect(first.address, 1);
  const { handle } = await lower.create(lower.root, name("written"), RDWR, 0o644, caller);
  await lower.write(handle, Buffer.from("x"), 0, false);
  const running = errnoOf(() => lower.mkdir(lower.root, name("running"), 0o755, caller));
  await until(() => begun.length === 1);
  const closing = first.server.close();
  const { received } = first.server.counters;
  const late = errnoOf(() => lower.mkdir(lower.root, name("late"), 0o755, caller));
  await until(() => first.server.counters.received > received);
  released();
  expect(await running).toBe(0);
  await closing;
  expect(begun).toEqual(["mkdir", "syncfs"]);
  lower.ownerLost();
  await first.lower.shutdown();
  lower.ownerFound((await owner(2)).address, 2);
  expect(await late).toBe(0);
  expect(await errnoOf(() => lower.fsync(handle, false))).toBe(0);
  expect(fs.readdirSync(lab.place.path).sort()).toEqual(["late", "running", "written"]);
});

it("says ESTALE for an open file that the new owner does not find", async () => {
  const first = await owner(1);
  const lower = remote();
  await lower.connect(first.address, 1);
  const { handle } = await lower.create(lower.root, name("gone"), RDWR, 0o644, caller);
  await first.server.close();
  lower.ownerLost();
  await first.lower.shutdown();
  fs.unlinkSync(`${lab.place.path}/gone`);
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
  const reader = await lower.open(lost.entry.id, RDWR);
  lower.ownerLost();
  lower.ownerFound((await owner(2)).address, 2);
  expect(await errnoOf(() => lower.fsync(safe.handle, false))).toBe(0);
  // Whoever else hears of it first.
  expect(await errnoOf(() => lower.syncfs())).toBe(E.EIO);
  expect(await errnoOf(() => lower.fsync(reader, false))).toBe(E.EIO);
  expect(await errnoOf(() => lower.fsync(lost.handle, false))).toBe(E.EIO);
  expect(await errnoOf(() => lower.fsync(lost.handle, false))).toBe(0);
});

it("does not say that names and attributes are on disk which died with their owner", async () => {
  const first = await owner(1);
  const lower = remote();
  await lower.connect(first.address, 1);
  const { root } = lower;
  const changes: Record<string, (dir: FileId, file: FileId) => unknown> = {
    create: (dir) => lower.create(dir, name("new"), RDWR, 0o644, caller),
    mkdir: (dir) => lower.mkdir(dir, name("new"), 0o755, caller),
    mknod: (dir) => lower.mknod(dir, name("new"), 0o010644, 0, 0, caller),
    symlink: (dir) => lower.symlink(dir, name("new"), Buffer.from("f"), caller),
    link: (dir, file) => lower.link(file, dir, name("new")),
    unlink: (dir, file) => lower.unlink(dir, name("f"), file),
    rmdir: async (dir) => lower.rmdir(dir, name("sub"), (await lower.lookup(dir, name("sub"))).id),
    "rename from": (dir, file) => lower.rename(dir, name("f"), root, name("renamed"), 0, file, null),
    "rename to": async (dir) => lower.rename(root, name("f"), dir, name("renamed"), 0, (await lower.lookup(root, name("f"))).id, null),
    setattr: (dir) => lower.setattr(dir, { mode: 0o700 }, null),
    setxattr: (dir) => lower.setxattr(dir, name("user.a"), Buffer.from("b"), 0),
    removexattr: (dir) => lower.removexattr(dir, name("user.kept")),
    "a change that is on disk": async (dir) => {
      await lower.mkdir(dir, name("new"), 0o755, caller);
      const synced = await lower.opendir(dir);
      await lower.fsyncdir(synced, false);
      lower.close(synced);
    },
    "a change that failed": async (dir) => expect(await errnoOf(() => lower.mkdir(dir, name("sub"), 0o755, caller))).toBe(E.EEXIST),
    nothing: () => undefined,
  };
  await lower.create(root, name("f"), RDWR, 0o644, caller);
  const places = [];
  for (const [what, change] of Object.entries(changes)) {
    const { id } = await lower.mkdir(root, name(what), 0o755, caller);
    const file = (await lower.create(id, name("f"), RDWR, 0o644, caller)).entry;
    await lower.mkdir(id, name("sub"), 0o755, caller);
    await lower.setxattr(id, name("user.kept"), Buffer.from("b"), 0);
    places.push({ what, change, id, file, handles: [await lower.opendir(id), await lower.opendir(id)] });
  }
  await lower.syncfs();
  for (const { change, id, file } of places) await change(id, file.id);
  lower.ownerLost();
  lower.ownerFound((await owner(2)).address, 2);
  for (const { what, handles } of places) {
    const lost = ["nothing", "a change that is on disk", "a change that failed"].includes(what) ? 0 : E.EIO;
    for (const handle of handles) {
      expect([what, await errnoOf(() => lower.fsyncdir(handle, false))]).toEqual([what, lost]);
      expect([what, await errnoOf(() => lower.fsyncdir(handle, false))]).toEqual([what, 0]);
    }
  }
});

it("fdatasync does not say of a file's attributes that they are on disk, and fallocate may have made something though it failed", async () => {
  const first = await owner(1, (lower) => ({ ...lower, fallocate: () => Promise.reject(errnoError(E.ENOSPC)) }));
  const lower = remote();
  await lower.connect(first.address, 1);
  const files = [];
  for (const called of ["data", "attributes", "both", "allocated"]) {
    files.push(await lower.create(lower.root, name(called), RDWR, 0o644, caller));
  }
  const [data, attributes, both, allocated] = files as [Made, Made, Made, Made];
  for (const { handle } of [data, both]) await lower.write(handle, Buffer.from("x"), 0, false);
  for (const { entry } of [attributes, both]) await lower.setattr(entry.id, { mode: 0o600 }, null);
  await lower.write(both.handle, Buffer.from("y"), 0, false);
  for (const { handle } of files) await lower.fsync(handle, true);
  expect(await errnoOf(() => lower.fallocate(allocated.handle, 0, 0, 4096))).toBe(E.ENOSPC);
  lower.ownerLost();
  lower.ownerFound((await owner(2)).address, 2);
  const told = [];
  for (const { handle } of files) told.push(await errnoOf(() => lower.fsync(handle, false)));
  expect(told).toEqual([0, E.EIO, E.EIO, E.EIO]);
});

it("forgets what it was told when the owner dies, and once more before it asks the next one; not after a farewell, or when a connection broke", async () => {
  const heard: string[] = [];
  let forgotten: () => void = () => undefined;
  const onOwnerDied = (): Promise<void> => {
    heard.push("forget");
    return new Promise((resolve) => {
      forgotten = resolve;
    });
  };
  const lower = remote({}, silentLog, { onOwnerDied });
  lower.ownerLost();
  const first = await owner(1);
  const proxy = await proxyTo(first);
  await lower.connect(proxy.address, 1);
  proxy.cut();
  await lower.getattr(lower.root);
  await first.server.close();
  lower.ownerLost();
  lower.ownerFound((await owner(2)).address, 2);
  await lower.getattr(lower.root);
  expect(heard).toEqual([]);
  lower.ownerLost();
  lower.ownerLost();
  expect(heard).toEqual(["forget"]);
  const third = await owner(3);
  const asked = Promise.resolve(lower.getattr(lower.root)).then(() => heard.push("answered"));
  lower.ownerFound(third.address, 3);
  await until(() => heard.length === 2);
  forgotten();
  await asked;
  expect(heard).toEqual(["forget", "forget", "answered"]);
  lower.ownerFound((await owner(4)).address, 4);
  await until(() => heard.length === 4);
  forgotten();
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
  lower.ownerFound(proxy.address, 2);
  expect(Buffer.from(await lower.read(handle, 0, 10)).toString()).toBe("data");
  expect(second.server.sessions[0]?.openHandles).toBe(1);
  expect(second.lower.openHandles).toBe(1);
});

it("says to no owner that all is open there because it was at the one before, which went while programs were waited for (H10)", async () => {
  const first = await owner(1);
  let forgotten: () => void = () => undefined;
  let deaths = 0;
  const onOwnerDied = (): Promise<void> => {
    deaths += 1;
    return deaths === 2 ? new Promise((resolve) => (forgotten = resolve)) : Promise.resolve();
  };
  const lower = remote({}, silentLog, { onOwnerDied });
  await lower.connect(first.address, 1);
  const { handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
  await lower.write(handle, Buffer.from("data"), 0, false);
  lower.ownerLost();
  const second = await owner(2);
  const { roundTrips } = lower.counters;
  lower.ownerFound(second.address, 2);
  // The open is answered.
  await until(() => lower.counters.roundTrips > roundTrips);
  let opens: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => (opens = resolve));
  const third = await owner(3, (local) => ({
    ...local,
    async open(...args) {
      await gate;
      return await local.open(...args);
    },
  }));
  lower.ownerLost();
  lower.ownerFound(third.address, 3);
  // The hello and the open.
  await until(() => third.server.counters.received === 2);
  const { messagesSent } = lower.counters;
  forgotten();
  await new Promise((resolve) => setImmediate(resolve));
  const sent = lower.counters.messagesSent - messagesSent;
  opens();
  expect(sent).toBe(0);
  expect(Buffer.from(await lower.read(handle, 0, 10)).toString()).toBe("data");
  expect([second, third].map(({ server }) => server.sessions[0]?.hasClaimed)).toEqual([false, true]);
});
