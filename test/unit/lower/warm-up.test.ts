/** Reading ahead in a directory: when it starts, what it looks at, and that it stops. */
import { describe, expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { COLD_LOOKUPS_MIN, WARM_NAMES_MAX, WarmUp } from "../../../overlay/lower/local/warm-up.ts";
import type { Native } from "../../../native/index.ts";

const directory = { ino: 12, generation: 7 };
const LISTED_AT_ONCE = 200;

function direntOf(name: string): Buffer {
  const bytes = Buffer.alloc((19 + name.length + 1 + 7) & ~7);
  bytes.writeUInt16LE(bytes.length, 16);
  bytes.write(name, 19);
  return bytes;
}

/** A directory with that many names; `gate` holds back each warm call. */
function fakeNative(
  count: number,
  gate: () => Promise<void> = () => Promise.resolve(),
): { native: Native; warmed: string[]; open: { fds: number } } {
  const warmed: string[] = [];
  const open = { fds: 0 };
  let listed = 0;
  const metadata = {
    openat2: () => {
      open.fds += 1;
      listed = 0;
      return Promise.resolve(5);
    },
    getdents: (_fd: number, buffer: Buffer) => {
      const names = Array.from({ length: Math.min(LISTED_AT_ONCE, count - listed) }, (_, at) => `name-${listed + at}`);
      listed += names.length;
      return Promise.resolve(Buffer.concat(names.map(direntOf)).copy(buffer));
    },
    warm: async (_dirfd: number, names: Buffer) => {
      await gate();
      const found = names.toString().split("\0").slice(0, -1);
      warmed.push(...found);
      return found.length;
    },
  };
  const close = (): number => {
    open.fds -= 1;
    return 0;
  };
  return { native: { sync: { close }, pool: { metadata } } as unknown as Native, warmed, open };
}

const directories = { use: <T>(_id: unknown, work: (fd: number) => T): T => work(4) };

function noteCold(warmUp: WarmUp, times: number): void {
  for (let n = 0; n < times; n += 1) warmUp.noteCold(directory);
}

/** Lets promises that wait for nothing outside run to their end. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

describe("reading ahead in a directory", () => {
  it("starts after a few cold lookups, looks at each name once, and starts again when as many have paid for it", async () => {
    const { native, warmed, open } = fakeNative(640);
    const warmUp = new WarmUp(native, directories, silentLog);
    noteCold(warmUp, COLD_LOOKUPS_MIN - 1);
    await settled();
    expect(warmed).toEqual([]);
    noteCold(warmUp, 1);
    await settled();
    expect(warmed).toEqual(Array.from({ length: 640 }, (_, at) => `name-${at}`));
    expect(open.fds).toBe(0);
    noteCold(warmUp, 640 / 32 - 1);
    await settled();
    expect(warmed.length).toBe(640);
    noteCold(warmUp, 1);
    await settled();
    expect(warmed.length).toBe(1280);
  });

  it("ends after a bounded number of names", async () => {
    const { native, warmed } = fakeNative(10 * WARM_NAMES_MAX);
    noteCold(new WarmUp(native, directories, silentLog), COLD_LOOKUPS_MIN);
    await settled();
    expect(warmed.length).toBeGreaterThanOrEqual(WARM_NAMES_MAX);
    expect(warmed.length).toBeLessThan(WARM_NAMES_MAX + LISTED_AT_ONCE);
  });

  it("stops after the call that it is in, and leaves nothing open", async () => {
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const { native, warmed, open } = fakeNative(1000, () => held);
    const warmUp = new WarmUp(native, directories, silentLog);
    noteCold(warmUp, COLD_LOOKUPS_MIN);
    await settled();
    expect(open.fds).toBe(1);
    let ended = false;
    const stopping = warmUp.stop().then(() => (ended = true));
    await settled();
    expect(ended).toBe(false);
    release();
    await stopping;
    expect([open.fds, warmed.length]).toEqual([0, 128]);
    noteCold(warmUp, 1000);
    await settled();
    expect(warmed.length).toBe(128);
  });
});
