/** The node's lease as dlmd publishes it and as a mount obeys it (hazards C4, H1): pure parts, the page, and what waits. */
import { closeSync, mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import type { OperatingError } from "../../../dlmd/base/error.ts";
import { EXIT } from "../../../dlmd/base/exit-status.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { LeaseFile } from "../../../dlmd/driver/lease-file.ts";
import { PublishedLease } from "../../../dlmd/membership/lease.ts";
import { decodeLeasePage, encodeLeasePage, LEASE_FILE, LEASE_PAGE_BYTES } from "../../../dlmd/wire/lease-page.ts";
import type { ViewId } from "../../../dlmd/wire/view-id.ts";
import { type KeptAnswer, Lease } from "../../../overlay/lease/lease.ts";
import { LAPSED_LOOK_MS, LeaseCore, LOOK_INTERVAL_MS } from "../../../overlay/lease/lease-core.ts";

const never = Number.NEGATIVE_INFINITY;
const unexpected = (error: Error): never => {
  throw error;
};
const incarnationOf = (nodeid: number): string => String(nodeid).padStart(16, "0");
const member = (nodeid: number): { nodeid: number; incarnation: string } => ({ nodeid, incarnation: incarnationOf(nodeid) });
const viewOf = (epoch: number): ViewId => ({ epoch, proposer: 1, incarnation: incarnationOf(1) });
const nodes = [1, 2, 3].map((nodeid) => ({ nodeid, votes: 1 }));

describe("what dlmd publishes", () => {
  const three = { members: [1, 2, 3].map(member), grounds: [{ nodes, needed: 2 }] };
  const from = (nodeid: number): { from: number; incarnation: string } => ({ from: nodeid, incarnation: incarnationOf(nodeid) });

  it("0.6 time-outs from when the heartbeat was sent that a quorum acknowledged", () => {
    const lease = new PublishedLease(member(1), 1000);
    expect(lease.endMs).toBe(never);
    lease.tell(viewOf(1), three);
    expect(lease.endMs).toBe(never);
    lease.acked(from(2), 5000);
    expect(lease.endMs).toBe(5600);
    lease.acked(from(3), 4000);
    expect(lease.endMs).toBe(5600);
    lease.acked({ from: 3, incarnation: incarnationOf(9) }, 9000);
    expect(lease.endMs).toBe(5600);
  });

  it("what one view acknowledged holds on in the next, and counts for no vote there", () => {
    const lease = new PublishedLease(member(1), 1000);
    lease.tell(viewOf(1), three);
    lease.acked(from(2), 5000);
    const five = [1, 2, 3, 4, 5].map((nodeid) => ({ nodeid, votes: 1 }));
    lease.tell(viewOf(2), { members: [1, 2, 3].map(member), grounds: [{ nodes: five, needed: 3 }] });
    expect(lease.endMs).toBe(5600);
    lease.acked(from(3), 8000);
    expect(lease.endMs).toBe(5600);
    lease.acked(from(2), 7000);
    expect(lease.endMs).toBe(7600);
  });

  it("a view that says the same again takes nothing back; one that is not quorate gives nothing", () => {
    const lease = new PublishedLease(member(1), 1000);
    const five = [1, 2, 3, 4, 5].map((nodeid) => ({ nodeid, votes: 1 }));
    const basis = { members: [1, 2, 3].map(member), grounds: [{ nodes: five, needed: 3 }] };
    lease.tell(viewOf(1), basis);
    lease.acked(from(2), 5000);
    lease.tell(viewOf(1), structuredClone(basis));
    lease.acked(from(3), 5100);
    expect(lease.endMs).toBe(5600);
    lease.tell(viewOf(2), { members: [member(1), member(2)], grounds: [{ nodes: five, needed: 3 }] });
    lease.acked(from(2), 9000);
    expect(lease.endMs).toBe(5600);
  });

  it("C8: while a change is open the votes of before and after must both have acknowledged it", () => {
    const lease = new PublishedLease(member(1), 1000);
    const after = [
      { nodeid: 1, votes: 1 },
      { nodeid: 2, votes: 2 },
    ];
    const grounds = [
      { nodes: after, needed: 2 },
      { nodes, needed: 3 },
    ];
    lease.tell(viewOf(1), { ...three, grounds });
    lease.acked(from(2), 5000);
    expect(lease.endMs).toBe(never);
    lease.acked(from(3), 4000);
    expect(lease.endMs).toBe(4600);
  });

  it("who is a quorum alone needs no acknowledgement, and keeps nothing of that in a larger view", () => {
    const lease = new PublishedLease(member(1), 1000);
    lease.tell(viewOf(1), { members: [member(1)], grounds: [{ nodes, needed: 1 }] });
    expect(lease.endMs).toBe(Number.POSITIVE_INFINITY);
    lease.tell(viewOf(2), three);
    expect(lease.endMs).toBe(never);
  });

  it("a node that leaves ends it", () => {
    const lease = new PublishedLease(member(1), 1000);
    lease.tell(viewOf(1), three);
    lease.acked(from(2), 5000);
    lease.tell(viewOf(1), null);
    expect(lease.endMs).toBe(never);
  });
});

/** As a program sees it that keeps the file open. */
function readAt(fd: number): number {
  const bytes = new Uint8Array(LEASE_PAGE_BYTES);
  readSync(fd, bytes, 0, LEASE_PAGE_BYTES, 0);
  return decodeLeasePage(bytes).endMs;
}

describe("the page", () => {
  const dirs: string[] = [];
  afterEach(() => {
    for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true });
  });
  function page(): { file: string } {
    const dir = mkdtempSync(path.join(tmpdir(), "coverlay-lease-"));
    dirs.push(dir);
    return { file: path.join(dir, LEASE_FILE) };
  }

  it("has these bytes", () => {
    const bytes = encodeLeasePage({ incarnation: "0123456789abcdef", endMs: 1.5, marginMs: 600 });
    const end = "000000000000f83f";
    const head = `434c533102000000${Buffer.from("0123456789abcdef").toString("hex")}`;
    expect(Buffer.from(bytes).toString("hex")).toBe(`${head}${end}${end}0000000000c08240`);
    expect(bytes.byteLength).toBe(LEASE_PAGE_BYTES);
    expect(decodeLeasePage(bytes)).toEqual({ incarnation: "0123456789abcdef", endMs: 1.5, marginMs: 600 });
  });

  it("that cannot be written is told once, as what ends dlmd; nothing is published after it, and no end is claimed", async () => {
    const { file } = page();
    const failed: OperatingError[] = [];
    const lease = await LeaseFile.create(file, incarnationOf(1), 600, (error) => void failed.push(error));
    const probe = await open(file, "r");
    const disk = vi.spyOn(Object.getPrototypeOf(probe) as FileHandle, "write");
    await probe.close();
    const looked = openSync(file, "r");
    try {
      lease.publish(1000);
      await expect.poll(() => readAt(looked), { timeout: 10_000 }).toBe(1000);
      disk.mockRejectedValueOnce(Object.assign(new Error("EIO: i/o error, write"), { code: "EIO" }));
      lease.publish(2000);
      lease.publish(3000);
      await expect(lease.end()).rejects.toMatchObject({ code: "unkept", exitStatus: EXIT.UNKEPT });
      lease.publish(4000);
      await expect(lease.close()).rejects.toBe(failed[0]);
      expect(failed.map(({ message }) => message)).toEqual([`the lease of this node cannot be kept in ${file}: EIO: i/o error, write`]);
      expect(readAt(looked)).toBe(1000);
    } finally {
      disk.mockRestore();
      closeSync(looked);
    }
  });

  it("of a former life ends when another one begins, for those who still look at it", async () => {
    const { file } = page();
    const first = await LeaseFile.create(file, incarnationOf(1), 600, unexpected);
    const looked = openSync(file, "r");
    try {
      first.publish(1000);
      await expect.poll(() => readAt(looked), { timeout: 10_000 }).toBe(1000);
      const second = await LeaseFile.create(file, incarnationOf(2), 600, unexpected);
      expect(readAt(looked)).toBe(never);
      await Promise.all([first.close(), second.close()]);
    } finally {
      closeSync(looked);
    }
  });
});

describe("how a mount obeys it", () => {
  it("lapses at the end, not before; holds again with a later end; never after the mount is taken out", () => {
    const core = new LeaseCore();
    expect(core.look(100, 99.9)).toBe(null);
    expect(core.nextLookMs(100, 99)).toBe(1);
    expect(core.nextLookMs(1e9, 0)).toBe(LOOK_INTERVAL_MS);
    expect(core.look(100, 100)).toBe("lapse");
    expect(core.nextLookMs(100, 100)).toBe(LAPSED_LOOK_MS);
    expect(core.look(100, 200)).toBe(null);
    expect(core.look(300, 200)).toBe("renew");
    expect(core.lapses).toBe(1);
    expect(core.look(never, 200)).toBe("lapse");
    core.end();
    expect(core.look(1e9, 201)).toBe(null);
    expect(core.nextLookMs(1e9, 201)).toBe(null);
    expect(core.state).toBe("over");
  });

  interface Scene {
    readonly lease: Lease;
    readonly done: string[];
    endMs: number;
    nowMs: number;
  }

  function scene(): Scene {
    const done: string[] = [];
    const at = { endMs: 100, nowMs: 0 };
    const lease = new Lease({
      endMs: () => at.endMs,
      nowMs: () => at.nowMs,
      log: silentLog,
      suspend: () => done.push("suspend"),
      resume: (answered) => done.push(`resume ${answered}`),
    });
    return Object.assign(at, { lease, done });
  }

  const answer = (name: string, done: string[]): KeptAnswer => ({
    release: () => void done.push(`${name} leaves`),
    giveUp: () => void done.push(`${name} is given up`),
  });

  it("what waits goes on after the answers that were kept; who is killed gets EINTR", async () => {
    const one = scene();
    const { lease, done } = one;
    expect(lease.holds()).toBe(true);
    one.nowMs = 100;
    expect(lease.holds()).toBe(false);
    const waiter = { interrupted: false, onInterrupt: null as (() => void) | null };
    const killed = { interrupted: false, onInterrupt: null as (() => void) | null };
    const waits = lease.again(waiter).then(() => done.push("request goes on"));
    const ends = lease.again(killed);
    lease.keep(answer("answer", done));
    killed.onInterrupt?.();
    await expect(ends).rejects.toMatchObject({ errno: E.EINTR });
    expect(done).toEqual(["suspend"]);
    one.endMs = 200;
    expect(lease.holds()).toBe(true);
    await waits;
    expect(done).toEqual(["suspend", "answer leaves", "resume true", "request goes on"]);
    expect(waiter.onInterrupt).toBe(null);
    lease.end();
  });

  it("an answer that leaves early, to a caller that is killed, has everything dropped once more", () => {
    const one = scene();
    one.nowMs = 100;
    expect(one.lease.holds()).toBe(false);
    const early = answer("answer", one.done);
    one.lease.keep(early);
    one.lease.hurried(early);
    one.lease.end();
    expect(one.done).toEqual(["suspend", "suspend"]);
  });

  it("when the mount is taken out, who waits gets EIO, and nothing that was kept leaves", async () => {
    const one = scene();
    one.nowMs = 100;
    expect(one.lease.holds()).toBe(false);
    const waits = one.lease.again({ interrupted: false, onInterrupt: null });
    one.lease.keep(answer("answer", one.done));
    one.lease.end();
    await expect(waits).rejects.toMatchObject({ errno: E.EIO });
    one.endMs = 1e9;
    expect(one.lease.holds()).toBe(false);
    await expect(one.lease.again({ interrupted: false, onInterrupt: null })).rejects.toMatchObject({ errno: E.EIO });
    expect(one.done).toEqual(["suspend", "answer is given up"]);
  });

  it("the timer sees the end when nobody asks, and that it holds again", async () => {
    const one = scene();
    one.nowMs = 99;
    one.lease.holds();
    one.nowMs = 100;
    await expect.poll(() => one.done, { timeout: 10_000 }).toEqual(["suspend"]);
    one.endMs = 1000;
    await expect.poll(() => one.done, { timeout: 10_000 }).toEqual(["suspend", "resume false"]);
    one.lease.end();
  });
});
