/** Where the lower's compliance suite runs: a directory, and images of real file systems mounted in no namespace. */
import { execFileSync } from "node:child_process";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { silentLog } from "../../dlmd/base/log.ts";
import { createLocalLower, type LocalLower } from "../../overlay/lower/local.ts";
import type { Lower } from "../../overlay/lower/lower.ts";
import type { CallerIdentity } from "../../overlay/lower/remote-connection.ts";
import { createRemoteLower } from "../../overlay/lower/remote.ts";
import type { LowerSessionId } from "../../overlay/lower/handshake.ts";
import { createLowerServer, type LowerServer } from "../../overlay/lower/server.ts";
import { nativeAddon } from "../../overlay/native/index.ts";

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
  readonly remove: () => void;
}

export function makeImage(type: "ext4" | "xfs", mebibytes: number): Image {
  const native = nativeAddon();
  const directory = mkdtempSync(path.join(tmpdir(), "coverlay-image-"));
  const file = path.join(directory, "image");
  const image = openSync(file, "w+");
  ftruncateSync(image, mebibytes * 1024 * 1024);
  execFileSync(type === "ext4" ? "mkfs.ext4" : "mkfs.xfs", type === "ext4" ? ["-q", "-F", "-b", "4096", file] : ["-q", "-f", file]);
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

export function localFixture(place: Place, metadataCalls: "inline" | "pool" = "inline"): Fixture {
  const lower = createLocalLower({ native: nativeAddon(), rootFd: place.rootFd, metadataCalls, log: silentLog });
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

const TEST_SECRET: Uint8Array = new Uint8Array(32).fill(7);
export const TEST_VOLUME: { readonly clusterName: string; readonly volumeUuid: string; readonly secrets: () => readonly Uint8Array[] } = {
  clusterName: "test",
  volumeUuid: "0b9f5f1e-7f5c-4f0e-9a47-5d4f0f6a1c11",
  secrets: () => [TEST_SECRET],
};
export const TEST_CALLER: CallerIdentity = { ...TEST_VOLUME, nodeid: 2, incarnation: "i1", clientId: 5 };

export function testServer(lower: LocalLower, epoch: number, isGone: (session: LowerSessionId) => boolean = () => false): LowerServer {
  const freeMemory = (memory: ArrayBuffer): void => nativeAddon().freeArrayBuffer(memory);
  return createLowerServer({ lower, ...TEST_VOLUME, epoch, log: silentLog, freeMemory, isGone });
}

export async function remoteFixture(place: Place): Promise<Fixture> {
  const local = createLocalLower({ native: nativeAddon(), rootFd: place.rootFd, metadataCalls: "inline", log: silentLog });
  const server = testServer(local, 1);
  const port = await server.listen("127.0.0.1", 0);
  const lower = createRemoteLower({ ...TEST_CALLER, log: silentLog });
  await lower.connect({ host: "127.0.0.1", port }, 1);
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
