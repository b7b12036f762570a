/** What is done with a mount of type fuse.clustered, on one whose server is only a record: already mounted, left behind, remount, umount. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { enableVolume } from "../../../overlay/cli/volume.ts";
import { nativeAddon } from "../../../native/index.ts";
import type { Bit } from "../../../overlay/volume/bit.ts";
import { checkMount } from "../../../overlay/volume/mount-checks.ts";
import { MountFlag } from "../../../overlay/volume/mount-options.ts";
import { RECORD_DIR, isServing, readMountRecord, removeMountRecord, writeMountRecord } from "../../../overlay/volume/mount-record.ts";
import { mountAt } from "../../../dlmd/base/mount-table.ts";
import { HOLDERS_AFTER_MS, RELEASE_LIMIT_MS, remount, unmount } from "../../../overlay/volume/remount.ts";
import { refusal } from "../../refusal.ts";
import { type Disk, run, withDisk } from "./disk.ts";

const bit: Bit = { cluster: "demo", volume: "shared", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };
const cluster = async (): ReturnType<Parameters<typeof checkMount>[3]> => ({
  info: {
    clusterName: "demo",
    nodeid: 1,
    incarnation: "a",
    clientId: 1,
    nodes: [],
    volumes: [{ name: "shared", uuid: bit.uuid, lower: "device" }],
    preferredOwners: [],
    overlayKeys: [{ id: "00000000", bytes: new Uint8Array(32) }],
  },
  view: { viewId: "1.1.a", quorate: true, members: [1], incarnations: ["aa"], quorumReason: "1 of 1 votes", running: true },
});

interface Mounted {
  readonly disk: Disk;
  /** st_dev of the mount. */
  readonly device: string;
  /** Stands for the overlay: lives until it is ended. */
  readonly server: ChildProcess;
  readonly end: () => Promise<void>;
  /** It takes its record away first, as an overlay that has released its disk. */
  readonly release: () => Promise<void>;
}

/** A mount that the kernel knows and nobody answers: enough for everything that must not touch it. */
async function withMount(use: (mounted: Mounted) => Promise<void>): Promise<void> {
  await withDisk("ext4", async (disk) => {
    await enableVolume(disk.device, bit);
    const native = nativeAddon();
    const fd = native.fuseOpen();
    const server = spawn("cat", [], { stdio: ["pipe", "ignore", "inherit"] });
    await once(server, "spawn");
    const exited = once(server, "exit");
    const end = async (): Promise<void> => {
      server.stdin?.end();
      await exited;
    };
    let device: string | undefined;
    try {
      const data = `fd=${fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other`;
      expect(native.mount(disk.device, disk.mountPoint, "fuse.clustered", MountFlag.NOSUID, data)).toBe(0);
      device = mountAt(disk.mountPoint)?.device;
      if (device === undefined) throw new Error("no mount");
      writeMountRecord(device, { source: disk.device, mountPoint: disk.mountPoint, runDir: disk.dir });
      const record = recordFile(device);
      // Its server is that process, not this one.
      writeFileSync(record, JSON.stringify({ ...readMountRecord(device), pid: server.pid, startTime: startTime(server.pid ?? 0) }));
      const release = (): Promise<void> => {
        rmSync(record);
        return end();
      };
      await use({ disk, device, server, end, release });
    } finally {
      native.umount(disk.mountPoint, 2);
      closeSync(fd);
      await end();
      if (device !== undefined) rmSync(recordFile(device), { force: true });
    }
  });
}

const plain = { lazy: false, force: false, tell: (): void => {} };
const recordFile = (device: string): string => path.join(RECORD_DIR, `${device}.json`);
const startTime = (pid: number): string => readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ")[19] ?? "";

describe("a mount of type fuse.clustered", () => {
  test("shows its type and device; is not mounted a second time", async () => {
    await withMount(async ({ disk }) => {
      expect(run("findmnt", "-n", "-o", "SOURCE,FSTYPE", disk.mountPoint).trim()).toMatch(new RegExp(`^${disk.device} +fuse.clustered$`));
      const other = path.join(disk.dir, "other");
      mkdirSync(other);
      const error = await refusal(checkMount(disk.device, other, disk.dir, cluster));
      expect([error.code, error.exitStatus]).toEqual(["already-mounted", 32]);
      expect(error.message).toContain(disk.mountPoint);
      // By another name of the same device, too.
      const link = path.join(disk.dir, "by-uuid");
      run("ln", "-s", disk.device, link);
      expect((await refusal(checkMount(link, other, disk.dir, cluster))).code).toBe("already-mounted");
    });
  });

  test("one whose overlay is gone is told from one that serves", async () => {
    await withMount(async ({ disk, device, end }) => {
      await end();
      const record = readMountRecord(device);
      expect(record !== null && isServing(record)).toBe(false);
      const error = await refusal(checkMount(disk.device, disk.mountPoint, disk.dir, cluster));
      expect(error.code).toBe("stale-mount");
      expect(error.hint).toContain(`umount ${disk.mountPoint}`);
    });
  });

  test("remount changes what is named and keeps the rest", async () => {
    await withMount(async ({ disk }) => {
      remount(disk.mountPoint, "remount,ro", false);
      expect(mountAt(disk.mountPoint)?.options).toEqual(expect.arrayContaining(["ro", "nosuid"]));
      remount(disk.mountPoint, "remount,rw,suid,noexec", false);
      expect(mountAt(disk.mountPoint)?.options).toEqual(expect.arrayContaining(["rw", "noexec"]));
      expect(mountAt(disk.mountPoint)?.options).not.toContain("nosuid");
    });
  });

  test("umount comes back when the overlay has ended, not before", async () => {
    await withMount(async ({ disk, release }) => {
      let back = false;
      const link = path.join(disk.dir, "link");
      run("ln", "-s", disk.dir, link);
      const unmounted = unmount(path.join(link, "mnt"), plain).then((note) => {
        back = true;
        return note;
      });
      expect(mountAt(disk.mountPoint)).toBeNull();
      await new Promise((resolve) => setImmediate(resolve));
      expect(back).toBe(false);
      await release();
      expect(await unmounted).toBeNull();
    });
  });

  test("umount fails when the overlay has ended and its record is still there: it was ended amid the release", async () => {
    await withMount(async ({ disk, end, server }) => {
      const unmounted = refusal(unmount(disk.mountPoint, plain));
      await end();
      const error = await unmounted;
      expect([error.code, error.exitStatus]).toEqual(["not-released", 32]);
      expect(error.message).toContain(`its process ${server.pid} ended before it had released ${disk.device}`);
    });
  });

  test("umount -l does not wait; a bind mount keeps it alive, and that is said", async () => {
    await withMount(async ({ disk }) => {
      expect(await unmount(disk.mountPoint, { ...plain, lazy: true, force: true })).toBeNull();
      expect(mountAt(disk.mountPoint)).toBeNull();
    });
    await withMount(async ({ disk }) => {
      const bound = path.join(disk.dir, "bound");
      mkdirSync(bound);
      const fd = nativeAddon().mount(disk.mountPoint, bound, "", 4096, "");
      expect(fd).toBe(0);
      expect(await unmount(disk.mountPoint, plain)).toBe(`it is still mounted at ${bound}`);
      expect(nativeAddon().umount(bound, 2)).toBe(0);
    });
  });

  /** Waits in a mount namespace of its own, with a copy of every mount. */
  async function withNamespace<T>(use: (pid: number) => Promise<T>): Promise<T> {
    const other = spawn("unshare", ["-m", "cat"], { stdio: ["pipe", "pipe", "inherit"] });
    try {
      other.stdin.write("ready\n");
      await once(other.stdout, "data");
      return await use(other.pid ?? 0);
    } finally {
      other.stdin.end();
      await once(other, "exit");
    }
  }

  test("umount names the process whose mount namespace holds it up, and waits; it comes back when that process is gone", async () => {
    await withMount(async ({ disk, release }) => {
      const told: string[] = [];
      let unmounted: Promise<string | null> = Promise.resolve(null);
      await withNamespace(async (pid) => {
        const namespace = readlinkSync(`/proc/${pid}/ns/mnt`);
        await new Promise<void>((resolve) => {
          unmounted = unmount(disk.mountPoint, { ...plain, holdersAfterMs: 20, tell: (line) => (told.push(line), resolve()) });
        });
        const who = `process ${pid} (cat) at ${disk.mountPoint} in mount namespace ${namespace}`;
        expect(told).toEqual([`${disk.mountPoint} is unmounted here, but not everywhere: ${who}`]);
      });
      await release();
      expect(await unmounted).toBeNull();
      expect(told).toHaveLength(1);
    });
    expect(HOLDERS_AFTER_MS).toBeLessThanOrEqual(1000);
  });

  test("umount ends after its limit, with what still holds the volume", async () => {
    const limits = { holdersAfterMs: 10, releaseLimitMs: 50 };
    await withMount(async ({ disk, server }) => {
      await withNamespace(async (pid) => {
        const error = await refusal(unmount(disk.mountPoint, { ...plain, ...limits }));
        expect([error.code, error.exitStatus]).toEqual(["still-releasing", 32]);
        expect(error.message).toContain(`(process ${server.pid}) has not released ${disk.device} yet`);
        expect(error.message).toContain(`process ${pid} (cat) at ${disk.mountPoint}`);
        expect(error.hint).toContain(`nsenter -t ${pid} -m umount ${disk.mountPoint}`);
      });
    });
    await withMount(async ({ disk }) => {
      const error = await refusal(unmount(disk.mountPoint, { ...plain, ...limits }));
      expect(error.hint).toContain("coverlay status");
    });
    expect(RELEASE_LIMIT_MS).toBe(300_000);
  });

  test("a record belongs to the process that wrote it", async () => {
    await withMount(async ({ device, server }) => {
      removeMountRecord(device);
      expect(readMountRecord(device)?.pid).toBe(server.pid);
      writeMountRecord(device, { source: "s", mountPoint: "m", runDir: "r" });
      const record = readMountRecord(device);
      expect(record).toMatchObject({ pid: process.pid, source: "s", mountPoint: "m", runDir: "r" });
      expect(record !== null && isServing(record)).toBe(true);
      removeMountRecord(device);
      expect(readMountRecord(device)).toBeNull();
    });
  });
});
