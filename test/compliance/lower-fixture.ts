/** Where the lower's compliance suite runs: a directory, and images of real file systems mounted in no namespace. */
import { execFileSync, spawnSync } from "node:child_process";
import { closeSync, copyFileSync, mkdtempSync, openSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { silentLog } from "../../dlmd/base/log.ts";
import { createLocalLower, type LocalLower } from "../../overlay/lower/local/local.ts";
import type { Lower } from "../../overlay/lower/lower.ts";
import { createKeyring, type Keyring } from "../../dlmd/tls/keyring.ts";
import type { CallerIdentity, OwnerAddress } from "../../overlay/lower/remote/connection.ts";
import { type Holds, NO_HOLDS } from "../../overlay/lower/remote/known.ts";
import { createRemoteLower } from "../../overlay/lower/remote/remote.ts";
import type { LowerSessionId, OwnerId } from "../../overlay/lower/wire/handshake.ts";
import { createLowerServer, type LowerServer, type LowerServerOptions } from "../../overlay/lower/server/server.ts";
import { nativeAddon } from "../../native/index.ts";

const O_DIRECTORY = process.arch === "arm64" ? 0o40000 : 0o200000;

/** A root directory and the way that node:fs sees it. */
export interface Place {
  /** Nobody else uses the file system: which inode numbers it gives is its own doing. */
  readonly alone: boolean;
  readonly rootFd: number;
  readonly path: string;
  release(): Promise<void>;
}

function opened(result: number, what: string): number {
  if (result < 0) throw new Error(`${what}: errno ${-result}`);
  return result;
}

export function directoryPlace(base: string = tmpdir()): Place {
  const directory = mkdtempSync(path.join(base, "coverlay-lower-"));
  const rootFd = opened(nativeAddon().open(directory, O_DIRECTORY, 0), "open of the directory");
  return {
    alone: false,
    rootFd,
    path: directory,
    async release() {
      closeSync(rootFd);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export interface Image {
  readonly type: "ext4" | "xfs";
  readonly mount: (readOnly?: boolean) => Place;
  /** Another image, with what is on the disk now: as after a loss of power. */
  readonly crash: () => Image;
  /** What fsck(8) finds wrong; null: nothing. While it is mounted nowhere. */
  readonly fsck: () => string | null;
  readonly remove: () => void;
}

/** `options`: of mkfs. */
export function makeImage(type: "ext4" | "xfs", mebibytes: number, options: readonly string[] = []): Image {
  return imageIn(type, (file) => {
    closeSync(openSync(file, "w"));
    truncateSync(file, mebibytes * 1024 * 1024);
    const usual = type === "ext4" ? ["-q", "-F", "-b", "4096"] : ["-q", "-f"];
    execFileSync(`mkfs.${type}`, [...usual, ...options, file]);
  });
}

function fsck(type: "ext4" | "xfs", file: string): string | null {
  const [program, words] = type === "ext4" ? ["e2fsck", ["-f", "-n", file]] : ["xfs_repair", ["-n", "-f", file]];
  const { status, stdout, stderr } = spawnSync(program, words, { encoding: "utf8" });
  return status === 0 ? null : `${program}: ${status}\n${stdout}${stderr}`;
}

/** `make`: the file that has it. */
function imageIn(type: "ext4" | "xfs", make: (file: string) => void): Image {
  const native = nativeAddon();
  const directory = mkdtempSync(path.join(tmpdir(), "coverlay-image-"));
  const file = path.join(directory, "image");
  make(file);
  const image = openSync(file, "r+");
  const mount = (readOnly = false): Place => {
    const number = opened(native.loopAttach(image, false, false, 512), "loop device");
    const device = `/dev/loop${number}`;
    const loopFd = opened(native.open(device, 2, 0), `open of ${device}`);
    const log: string[] = [];
    const rootFd = native.mountDetached(type, device, readOnly ? ["ro"] : [], readOnly ? 1 : 0, log);
    if (rootFd < 0) {
      native.loopDetach(loopFd);
      closeSync(loopFd);
      throw new Error(`mount of ${type}: errno ${-rootFd} ${log.join("; ")}`);
    }
    return {
      alone: true,
      rootFd,
      path: `/proc/self/fd/${rootFd}`,
      async release() {
        closeSync(rootFd);
        native.loopDetach(loopFd);
        closeSync(loopFd);
      },
    };
  };
  return {
    type,
    mount,
    crash: () => imageIn(type, (copy) => copyFileSync(file, copy)),
    fsck: () => fsck(type, file),
    remove() {
      closeSync(image);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export interface Fixture {
  readonly alone: boolean;
  readonly lower: Lower;
  readonly path: string;
  release(): Promise<void>;
}

/** As a mount has it (overlay/serve/owned-lower.ts). */
export async function ownedLower(
  rootFd: number,
  metadataCalls: "inline" | "pool" = "inline",
  readOnly = false,
  contained = false,
): Promise<LocalLower> {
  const lower = createLocalLower({ native: nativeAddon(), rootFd, contained, metadataCalls, log: silentLog });
  await lower.openOrphans(readOnly);
  return lower;
}

export async function localFixture(place: Place, metadataCalls: "inline" | "pool" = "inline", contained = false): Promise<Fixture> {
  const lower = await ownedLower(place.rootFd, metadataCalls, false, contained);
  await lower.recoverOrphans();
  return {
    alone: place.alone,
    lower,
    path: place.path,
    async release() {
      await lower.shutdown();
      await place.release();
    },
  };
}

const TEST_KEYRING: Keyring = createKeyring([new Uint8Array(32).fill(7)]);
export const TEST_VOLUME: { readonly clusterName: string; readonly volumeUuid: string; readonly keyring: () => Keyring } = {
  clusterName: "test",
  volumeUuid: "0b9f5f1e-7f5c-4f0e-9a47-5d4f0f6a1c11",
  keyring: () => TEST_KEYRING,
};
export const TEST_CALLER: CallerIdentity = { ...TEST_VOLUME, nodeid: 2, incarnation: "i1", clientId: 5 };
/** The client of the lock manager that the owner is. */
export const TEST_OWNER: Omit<OwnerId, "epoch"> = { nodeid: 1, incarnation: "i0", clientId: 1 };
export const LOOPBACK = "127.0.0.1";

/** What all owners of these tests have in common. */
export function testServerOptions(lower: LocalLower, epoch: number): LowerServerOptions {
  const freeMemory = (memory: ArrayBuffer): void => nativeAddon().freeArrayBuffer(memory);
  const nodeAddresses = (): string[] => [LOOPBACK];
  const isMember = (): boolean => true;
  return { lower, ...TEST_VOLUME, owner: { ...TEST_OWNER, epoch }, nodeAddresses, isMember, log: silentLog, freeMemory };
}

export function testServer(
  lower: LocalLower,
  epoch: number,
  isGone: (session: LowerSessionId) => boolean = () => false,
  after: Pick<LowerServerOptions, "cleanAfter" | "letGoAfter" | "hasDisk" | "claimed" | "received" | "mayServe"> = {},
): LowerServer {
  return createLowerServer({ ...testServerOptions(lower, epoch), isGone, ...after });
}

/** That server listens. */
export async function listenOn(server: LowerServer): Promise<OwnerAddress> {
  return { host: LOOPBACK, port: await server.listen(LOOPBACK, 0), ...TEST_OWNER };
}

/** A node that has every lock from the beginning, and keeps it: what it knows must never differ from what the owner would answer. */
const EVERY_LOCK: Holds = { grants: () => 1, of: () => 1 };

export function lockedRemoteFixture(place: Place): Promise<Fixture> {
  return remoteFixture(place, EVERY_LOCK);
}

export async function remoteFixture(place: Place, holds: Holds = NO_HOLDS): Promise<Fixture> {
  const local = await ownedLower(place.rootFd);
  await local.recoverOrphans();
  const server = testServer(local, 1);
  const address = await listenOn(server);
  const lower = createRemoteLower({ ...TEST_CALLER, log: silentLog, holds });
  await lower.connect(address, 1);
  return {
    alone: place.alone,
    lower,
    path: place.path,
    async release() {
      lower.shutdown();
      await server.close();
      await local.shutdown();
      await place.release();
    },
  };
}
