/** No descriptor of the volume is left: neither by calls that fail, nor by those that are under way when all is closed. One would keep the disk with this node. */
import { readdirSync, readlinkSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { type Native, nativeAddon } from "../../../native/index.ts";
import { O } from "../../../overlay/lower/linux.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import { directoryPlace, type Place } from "../../compliance/lower-fixture.ts";

const real = nativeAddon();
const caller = { uid: 0, gid: 0, umask: 0, pid: 1 } as never;
const name = Buffer.from("x");
let place: Place;
let lower: LocalLower;
/** What opening a directory to read it becomes. */
let opened: (open: () => Promise<number>) => Promise<number>;

type OpenByHandle = Native["pool"]["metadata"]["openByHandle"];

beforeEach(async () => {
  place = directoryPlace();
  opened = (open) => open();
  const openByHandle: OpenByHandle = (mountFd, handle, flags) => {
    const open = (): Promise<number> => real.pool.metadata.openByHandle(mountFd, handle, flags);
    return (flags & O.PATH) === 0 ? opened(open) : open();
  };
  const metadata = Object.assign(Object.create(real.pool.metadata) as typeof real.pool.metadata, { openByHandle });
  const pool = Object.assign(Object.create(real.pool) as typeof real.pool, { metadata });
  const native = Object.assign(Object.create(real) as Native, { pool });
  lower = createLocalLower({ native, rootFd: place.rootFd, metadataCalls: "inline", log: silentLog });
  await lower.openOrphans(false);
});
afterEach(async () => {
  await lower.shutdown();
  await place.release();
});

const codeOf = async (work: () => unknown): Promise<string> => {
  try {
    await work();
    return "none";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
};

/** Descriptors of what is below that place, not of itself. */
function heldBelow(): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(path.join(place.path, "x"));
    } catch {
      // That of the listing itself is closed by now.
      return false;
    }
  }).length;
}

it("an rmdir that cannot look into its directory holds it no longer", async () => {
  const { id } = await lower.mkdir(lower.root, name, 0o755, caller);
  const open = await lower.opendir(id);
  const before = heldBelow();
  expect(before).toBeGreaterThan(0);
  opened = () => Promise.resolve(-E.EMFILE);
  for (let count = 0; count < 5; count += 1) expect(await codeOf(() => lower.rmdir(lower.root, name, id))).toBe("EMFILE");
  expect(heldBelow()).toBe(before);
  lower.close(open);
});

it("a directory that is being opened when all is closed is not open after it, and that is waited for", async () => {
  const { id } = await lower.mkdir(lower.root, name, 0o755, caller);
  let goOn = (): void => undefined;
  const asked = new Promise<void>((resolve) => {
    opened = (open) => {
      resolve();
      return new Promise<void>((go) => (goOn = go)).then(open);
    };
  });
  const opening = codeOf(() => lower.opendir(id));
  await asked;
  const ended: string[] = [];
  const shut = lower.shutdown().then(() => ended.push("shut"));
  await new Promise((resolve) => setImmediate(resolve));
  expect(ended).toEqual([]);
  goOn();
  await shut;
  expect([await opening, heldBelow()]).toEqual(["ESTALE", 0]);
});
