/** dlmd's lease page through the memory that a mount maps, and the clock that both go by. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { LeaseFile } from "../../../dlmd/driver/lease-file.ts";
import { decodeLeasePage, LEASE_ENDS_AT, LEASE_FILE } from "../../../dlmd/wire/lease-page.ts";
import { openLeasePage } from "../../../overlay/lease/lease.ts";
import { nativeAddon } from "../../../native/index.ts";

const never = Number.NEGATIVE_INFINITY;
const unexpected = (error: Error): never => {
  throw error;
};
const incarnationOf = (nodeid: number): string => String(nodeid).padStart(16, "0");

describe("the page, mapped", () => {
  const dirs: string[] = [];
  afterEach(() => {
    for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true });
  });
  function page(): { file: string; socket: string; ends: () => number } {
    const dir = mkdtempSync(path.join(tmpdir(), "coverlay-lease-"));
    dirs.push(dir);
    const file = path.join(dir, LEASE_FILE);
    return { file, socket: path.join(dir, "dlmd.sock"), ends: () => decodeLeasePage(readFileSync(file)).endMs };
  }

  it("is seen through the mapping as it is written, and ends for those who look at it when another life begins", async () => {
    const { file, socket, ends } = page();
    const first = await LeaseFile.create(file, incarnationOf(1), 600, unexpected);
    const { endMs: seen, marginMs } = openLeasePage(nativeAddon(), socket, incarnationOf(1));
    expect([seen(), marginMs]).toEqual([never, 600]);
    for (const endMs of [1000, 2000, 3000]) first.publish(endMs);
    await expect.poll(() => seen(), { timeout: 10_000 }).toBe(3000);
    const second = await LeaseFile.create(file, incarnationOf(2), 600, unexpected);
    expect(seen()).toBe(never);
    second.publish(4000);
    await expect.poll(ends, { timeout: 10_000 }).toBe(4000);
    expect(seen()).toBe(never);
    await second.close();
    expect(ends()).toBe(never);
    await first.close();
  });

  it("ends when the earlier of its two copies says so: one of them may be half written", async () => {
    const { file, socket } = page();
    const made = await LeaseFile.create(file, incarnationOf(1), 600, unexpected);
    const { endMs } = openLeasePage(nativeAddon(), socket, incarnationOf(1));
    made.publish(3000);
    await expect.poll(() => endMs(), { timeout: 10_000 }).toBe(3000);
    const bytes = readFileSync(file);
    for (const [first, second] of [
      [9000, 3000],
      [3000, 9000],
    ] as const) {
      bytes.writeDoubleLE(first, LEASE_ENDS_AT);
      bytes.writeDoubleLE(second, LEASE_ENDS_AT + 8);
      writeFileSync(file, bytes, { flag: "r+" });
      expect(endMs()).toBe(3000);
    }
    await made.close();
  });

  it("no page, one of another life, one that is too short: refused with what to do", async () => {
    const { file, socket } = page();
    const open = (): unknown => openLeasePage(nativeAddon(), socket, incarnationOf(1));
    expect(open).toThrow(/lease page of dlmd can not be opened/);
    const made = await LeaseFile.create(file, incarnationOf(2), 600, unexpected);
    await made.close();
    expect(open).toThrow(/of dlmd 0*1 expected, found that of 0*2/);
    rmSync(file);
    writeFileSync(file, "");
    expect(open).toThrow(/truncated/);
  });

  it("the clock of the addon counts as /proc/uptime does", () => {
    const before = Number.parseFloat(readFileSync("/proc/uptime", "latin1")) * 1000;
    const now = nativeAddon().bootTimeMs();
    expect(now).toBeGreaterThanOrEqual(before);
    expect(Number.parseFloat(readFileSync("/proc/uptime", "latin1")) * 1000 + 10).toBeGreaterThanOrEqual(now);
  });
});
