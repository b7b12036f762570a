/** The key of the cluster is replaced while overlays talk to each other: `coverlay keygen --add`, `--promote`, `--prune`. */
import { expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createLocalLower } from "../../../overlay/lower/local/local.ts";
import { createLowerServer, type LowerServer } from "../../../overlay/lower/server/server.ts";
import { nativeAddon } from "../../../native/index.ts";
import { createKeyring } from "../../../dlmd/tls/keyring.ts";
import type { OwnerAddress } from "../../../overlay/lower/remote/connection.ts";
import { listenOn, testServerOptions } from "../../compliance/lower-fixture.ts";
import { caller, name, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const { remote } = lab;
const oldKey = new Uint8Array(32).fill(1);
const newKey = new Uint8Array(32).fill(2);
const steps = { before: [oldKey], added: [oldKey, newKey], promoted: [newKey, oldKey], pruned: [newKey] } as const;

interface Ring {
  keys: readonly [Uint8Array, ...Uint8Array[]];
}

async function keyedOwner(ring: Ring, use: (server: LowerServer, address: OwnerAddress) => Promise<void>): Promise<void> {
  const lower = createLocalLower({ native: nativeAddon(), rootFd: lab.place.rootFd, metadataCalls: "inline", log: silentLog });
  const server = createLowerServer({ ...testServerOptions(lower, 1), keyring: () => createKeyring(ring.keys) });
  try {
    await use(server, await listenOn(server));
  } finally {
    await server.close();
    await lower.shutdown();
  }
}

it.each([
  ["before", "before"],
  ["before", "added"],
  ["added", "before"],
  ["added", "promoted"],
  ["promoted", "added"],
  ["promoted", "pruned"],
  ["pruned", "promoted"],
] as const)("at every step a mount reaches its owner: it has %s, the owner %s", async (here, there) => {
  await keyedOwner({ keys: steps[there] }, async (_, address) => {
    const lower = remote({ keyring: () => createKeyring(steps[here]) });
    await lower.connect(address, 1);
    expect((await lower.getattr(lower.root)).nlink).toBeGreaterThan(0);
  });
});

it.each([
  ["before", "pruned"],
  ["pruned", "before"],
] as const)("a mount that missed the rotation waits, and says why: it has %s, the owner %s", async (here, there) => {
  const [mine, theirs]: [Ring, Ring] = [{ keys: steps[here] }, { keys: steps[there] }];
  await keyedOwner(theirs, async (server, address) => {
    const lower = remote({ keyring: () => createKeyring(mine.keys) });
    const connected = lower.connect(address, 1);
    await until(() => server.counters.refused > 1 && lower.keyTrouble !== null);
    expect(lower.keyTrouble).toMatch(/no cluster key in common: wrong key/);
    mine.keys = steps[there];
    await connected;
    expect(lower.keyTrouble).toBe(null);
    expect((await lower.getattr(lower.root)).nlink).toBeGreaterThan(0);
  });
});

it("goes on through a rotation: the last step ends the connection of the old key, and the session goes on in another", async () => {
  const [mine, theirs]: [Ring, Ring] = [{ keys: steps.before }, { keys: steps.before }];
  await keyedOwner(theirs, async (server, address) => {
    const refusals: string[] = [];
    const lower = remote({ keyring: () => createKeyring(mine.keys) }, silentLog, { onRefused: ({ code }) => void refusals.push(code) });
    await lower.connect(address, 1);
    const { handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
    const write = async (text: string): Promise<void> => void (await lower.write(handle, Buffer.from(text), 0, true));
    for (const step of ["added", "promoted"] as const) {
      mine.keys = steps[step];
      lower.keysChanged();
      await write(step);
      theirs.keys = steps[step];
      server.keysChanged();
      await write(step);
      expect(lower.disconnected).toBe(false);
    }
    const hellos = server.counters.received;
    theirs.keys = steps.pruned;
    server.keysChanged();
    await write("pruned");
    expect(server.counters.received - hellos).toBeGreaterThan(1);
    mine.keys = steps.pruned;
    lower.keysChanged();
    await write("pruned");
    expect(lower.disconnected).toBe(false);
    expect([server.sessions.length, server.sessions[0]?.openHandles]).toEqual([1, 1]);
    expect(refusals).toEqual([]);
  });
});

it("a caller does not go on with an owner that proved nothing but a key which was removed", async () => {
  const [mine, theirs]: [Ring, Ring] = [{ keys: steps.added }, { keys: steps.before }];
  await keyedOwner(theirs, async (_, address) => {
    const lower = remote({ keyring: () => createKeyring(mine.keys) });
    await lower.connect(address, 1);
    mine.keys = steps.pruned;
    lower.keysChanged();
    await until(() => lower.disconnected);
    const waiting = Promise.resolve(lower.getattr(lower.root));
    expect(lower.ownerWait?.calls).toBe(1);
    theirs.keys = steps.promoted;
    expect((await waiting).nlink).toBeGreaterThan(0);
  });
});

it("a mount that is a step behind when its connection breaks waits until it has heard of the new key", async () => {
  const [mine, theirs]: [Ring, Ring] = [{ keys: steps.before }, { keys: steps.before }];
  await keyedOwner(theirs, async (server, address) => {
    const refusals: string[] = [];
    const said: string[] = [];
    const log = { ...silentLog, error: (_: unknown, message: string) => void said.push(message) };
    const lower = remote({ keyring: () => createKeyring(mine.keys) }, log, { onRefused: ({ code }) => void refusals.push(code) });
    await lower.connect(address, 1);
    expect(lower.keyTrouble).toBe(null);
    theirs.keys = steps.pruned;
    server.keysChanged();
    await until(() => server.counters.refused > 4);
    // Once, however often it is tried; and for as long as it lasts, in the status of the mount.
    expect(said).toEqual([expect.stringContaining("the owner does not take the cluster key of this node")]);
    expect(lower.keyTrouble).toMatch(/no cluster key in common/);
    const waiting = Promise.resolve(lower.getattr(lower.root));
    mine.keys = steps.pruned;
    lower.keysChanged();
    expect((await waiting).nlink).toBeGreaterThan(0);
    expect(lower.keyTrouble).toBe(null);
    expect(refusals).toEqual([]);
  });
});

it("what an owner did not take is said of that owner, once, and of no other one, nor while there is none", async () => {
  await keyedOwner({ keys: steps.pruned }, async (_, address) => {
    const said: string[] = [];
    const log = { ...silentLog, error: (__: unknown, message: string) => void said.push(message) };
    const lower = remote({ keyring: () => createKeyring(steps.before) }, log);
    lower.ownerFound(address, 1);
    await until(() => lower.keyTrouble !== null);
    lower.ownerFound(address, 1);
    expect([lower.keyTrouble !== null, said.length]).toEqual([true, 1]);
    lower.ownerFound(address, 2);
    expect(lower.keyTrouble).toBe(null);
    await until(() => lower.keyTrouble !== null);
    expect(said.length).toBe(2);
    lower.ownerLost();
    expect(lower.keyTrouble).toBe(null);
  });
});
