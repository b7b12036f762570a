/** A lower that has just been mounted is served, or all is undone: in the order of an ordinary release, and its port is closed. */
import { connect } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { DiskGuard } from "../../../overlay/lower/server/disk-guard.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import type { LowerServer } from "../../../overlay/lower/server/server.ts";
import { nativeAddon } from "../../../native/index.ts";
import { type OwnedLower, type OwnedLowerParts, serveMounted } from "../../../overlay/serve/owned-lower.ts";
import type { GuardedDisk } from "../../../overlay/serve/withdrawal.ts";
import type { LowerMount } from "../../../overlay/volume/lower-mount.ts";
import { directoryPlace, LOOPBACK, type Place, testServer } from "../../compliance/lower-fixture.ts";

let place: Place;
/** What was ended, in order. */
let ended: string[];
/** At which the server listened. */
let port: number;
let guard: DiskGuard | null;
beforeEach(() => {
  place = directoryPlace();
  ended = [];
  port = 0;
  guard = null;
});
afterEach(() => place.release());

function mounted(release: () => Promise<void> = () => Promise.resolve()): LowerMount {
  const source = { kind: "device" as const, path: "/dev/x" };
  const of = { source, rootFd: place.rootFd, type: "ext4", readOnly: false, epoch: 1, cleanAfter: 0, letGoAfter: 0, dirty: null };
  return {
    ...of,
    contained: false,
    confirm: async () => {},
    growth: null,
    stopWriting: async () => {},
    release: () => {
      ended.push("mount");
      return release();
    },
  };
}

function parts(change: Partial<OwnedLowerParts> = {}, listening: () => void = () => undefined): OwnedLowerParts {
  return {
    createLocal: async () => {
      const local = createLocalLower({ native: nativeAddon(), rootFd: place.rootFd, metadataCalls: "inline", log: silentLog });
      return { ...local, shutdown: () => local.shutdown().then(() => void ended.push("local")) };
    },
    guard: guardOf,
    createServer: (served) => {
      const server = testServer(served, 1);
      return {
        ...server,
        listen: async (address, wanted) => {
          port = await server.listen(address, wanted);
          listening();
          return port;
        },
        close: () => server.close().then(() => void ended.push("server")),
      } satisfies LowerServer;
    },
    address: LOOPBACK,
    notReleased: (error) => void ended.push(error.message),
    ...change,
  };
}

function guardOf(local: LocalLower): GuardedDisk {
  const probe = (): Promise<boolean> => Promise.resolve(true);
  guard = new DiskGuard({
    local,
    readOnly: false,
    isDamaged: () => false,
    probe,
    mayWithdraw: () => true,
    withdraw: () => undefined,
    log: silentLog,
  });
  return { guard, trouble: null, fault: null, hasDisk: () => Promise.resolve(true), end: () => void ended.push("disk") };
}

/** "connected", or the code of the error. */
function dial(): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: LOOPBACK });
    socket.on("connect", () => resolve("connected")).on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
    socket.on("connect", () => socket.destroy());
  });
}

test("what is served listens, and nothing of it has ended", async () => {
  const owned: OwnedLower = await serveMounted(mounted(), parts());
  expect([owned.port, await dial(), ended]).toEqual([port, "connected", []]);
  await owned.server.close();
  await owned.local.shutdown();
});

test("a disk that fails as the server begins to listen: the port is closed, and the mount is given back last", async () => {
  const work = serveMounted(
    mounted(),
    parts({}, () => guard?.withdraw("EIO of a read")),
  );
  await expect(work).rejects.toThrow("the disk failed as it was mounted: EIO of a read");
  expect(ended).toEqual(["server", "local", "disk", "mount"]);
  expect([port > 0, await dial()]).toEqual([true, "ECONNREFUSED"]);
});

test("an address that is not this machine's: all is undone", async () => {
  await expect(serveMounted(mounted(), parts({ address: "192.0.2.1" }))).rejects.toMatchObject({ code: "can-not-listen" });
  expect(ended).toEqual(["server", "local", "disk", "mount"]);
});

test("a file system on which no calls can be made is given back; if that fails, it is said, and why it began is thrown", async () => {
  const createLocal = (): Promise<LocalLower> => Promise.reject(new Error("no handles"));
  await expect(serveMounted(mounted(), parts({ createLocal }))).rejects.toThrow("no handles");
  expect(ended).toEqual(["mount"]);
  const busy = mounted(() => Promise.reject(new Error("busy")));
  await expect(serveMounted(busy, parts({ createLocal }))).rejects.toThrow("no handles");
  expect(ended).toEqual(["mount", "mount", "busy"]);
});

test("a step of the undoing that fails keeps no other from its turn: the mount is given back, and the failure is said", async () => {
  const base = parts({ address: "192.0.2.1" });
  const stuck: OwnedLowerParts = {
    ...base,
    createServer: (served, disk) => ({ ...base.createServer(served, disk), close: () => Promise.reject(new Error("stuck")) }),
  };
  await expect(serveMounted(mounted(), stuck)).rejects.toMatchObject({ code: "can-not-listen" });
  expect(ended).toEqual(["stuck", "local", "disk", "mount"]);
});
