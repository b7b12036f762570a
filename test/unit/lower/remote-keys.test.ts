/** The key of the cluster is replaced while overlays talk to each other: `coverlay keygen --add`, `--promote`, `--prune`. */
import { expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createLocalLower } from "../../../overlay/lower/local.ts";
import { createLowerServer, type LowerServer } from "../../../overlay/lower/server.ts";
import { nativeAddon } from "../../../overlay/native/index.ts";
import { TEST_VOLUME } from "../../compliance/lower-fixture.ts";
import { caller, name, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const { remote } = lab;
const oldKey = new Uint8Array(32).fill(1);
const newKey = new Uint8Array(32).fill(2);
const steps = { before: [oldKey], added: [oldKey, newKey], promoted: [newKey, oldKey], pruned: [newKey] } as const;

interface Ring {
  keys: readonly Uint8Array[];
}

async function keyedOwner(ring: Ring, use: (server: LowerServer, address: { host: string; port: number }) => Promise<void>): Promise<void> {
  const lower = createLocalLower({ native: nativeAddon(), rootFd: lab.place.rootFd, metadataCalls: "inline", log: silentLog });
  const freeMemory = (memory: ArrayBuffer): void => nativeAddon().freeArrayBuffer(memory);
  const server = createLowerServer({ lower, ...TEST_VOLUME, secrets: () => ring.keys, epoch: 1, log: silentLog, freeMemory });
  try {
    await use(server, { host: "127.0.0.1", port: await server.listen("127.0.0.1", 0) });
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
    const lower = remote({ secrets: () => steps[here] });
    await lower.connect(address, 1);
    expect((await lower.getattr(lower.root)).nlink).toBeGreaterThan(0);
  });
});

it.each([
  ["before", "pruned"],
  ["pruned", "before"],
] as const)("who missed the rotation is refused: it has %s, the owner %s", async (here, there) => {
  await keyedOwner({ keys: steps[there] }, async (_, address) => {
    await expect(remote({ secrets: () => steps[here] }).connect(address, 1)).rejects.toMatchObject({ code: "wrong-secret" });
  });
});

it("goes on through a rotation: the last step ends the connection of the old key, and the session goes on in another", async () => {
  const [mine, theirs]: [Ring, Ring] = [{ keys: steps.before }, { keys: steps.before }];
  await keyedOwner(theirs, async (server, address) => {
    const refusals: string[] = [];
    const lower = remote({ secrets: () => mine.keys }, silentLog, { onRefused: ({ code }) => void refusals.push(code) });
    await lower.connect(address, 1);
    const { handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
    const write = async (text: string): Promise<void> => void (await lower.write(handle, Buffer.from(text), 0, true));
    for (const step of ["added", "promoted"] as const) {
      mine.keys = steps[step];
      lower.secretsChanged();
      await write(step);
      theirs.keys = steps[step];
      server.secretsChanged();
      await write(step);
      expect(lower.disconnected).toBe(false);
    }
    const hellos = server.counters.received;
    theirs.keys = steps.pruned;
    server.secretsChanged();
    await write("pruned");
    expect(server.counters.received - hellos).toBeGreaterThan(2);
    mine.keys = steps.pruned;
    lower.secretsChanged();
    await write("pruned");
    expect(lower.disconnected).toBe(false);
    expect([server.sessions.length, server.sessions[0]?.openHandles]).toEqual([1, 1]);
    expect(refusals).toEqual([]);
  });
});

it("a caller does not go on with an owner that proved nothing but a key which was removed", async () => {
  const [mine, theirs]: [Ring, Ring] = [{ keys: steps.added }, { keys: steps.before }];
  await keyedOwner(theirs, async (_, address) => {
    const lower = remote({ secrets: () => mine.keys });
    await lower.connect(address, 1);
    mine.keys = steps.pruned;
    lower.secretsChanged();
    await until(() => lower.disconnected);
    const waiting = Promise.resolve(lower.getattr(lower.root));
    expect(lower.waitingCalls).toBe(1);
    theirs.keys = steps.promoted;
    expect((await waiting).nlink).toBeGreaterThan(0);
  });
});

it("a mount that is a step behind when its connection breaks waits until it has heard of the new key", async () => {
  const [mine, theirs]: [Ring, Ring] = [{ keys: steps.before }, { keys: steps.before }];
  await keyedOwner(theirs, async (server, address) => {
    const refusals: string[] = [];
    let tried = 0;
    const said: string[] = [];
    const log = { ...silentLog, info: () => void tried++, error: (_: unknown, message: string) => void said.push(message) };
    const lower = remote({ secrets: () => mine.keys }, log, { onRefused: ({ code }) => void refusals.push(code) });
    await lower.connect(address, 1);
    expect(lower.keyTrouble).toBe(null);
    theirs.keys = steps.pruned;
    server.secretsChanged();
    await until(() => tried > 4);
    // Once, however often it is tried; and for as long as it lasts, in the status of the mount.
    expect(said).toEqual([expect.stringContaining("the owner does not take the cluster key of this node")]);
    expect(lower.keyTrouble).toMatch(/no cluster key in common/);
    const waiting = Promise.resolve(lower.getattr(lower.root));
    mine.keys = steps.pruned;
    lower.secretsChanged();
    expect((await waiting).nlink).toBeGreaterThan(0);
    expect(lower.keyTrouble).toBe(null);
    expect(refusals).toEqual([]);
  });
});
