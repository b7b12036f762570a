/** The owner's role over real dlmds and one real disk with a loop device for each node: start, hand-over, death, return. */
import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { enableVolume } from "../../../overlay/cli/volume.ts";
import type { Bit } from "../../../overlay/volume/bit.ts";
import { readOwnerBlock } from "../../../overlay/volume/direct-block.ts";
import { tryExclusive } from "../../../overlay/volume/device.ts";
import { type LowerMount, mountLower } from "../../../overlay/volume/lower-mount.ts";
import { DiskSteps } from "../../../overlay/volume/disk-steps.ts";
import { createProveGone } from "../../../overlay/volume/prove-gone.ts";
import { VolumeOwner, volumeLockspace } from "../../../overlay/volume/owner.ts";
import { claimingProcess } from "../../../overlay/volume/taking.ts";
import { Happenings, type TestCluster, createCluster } from "../dlmd/cluster.ts";
import { attachLoop, checkFileSystem, withDisk } from "./disk.ts";
import { storedBit } from "./take.ts";

const bit: Bit = { cluster: "test", volume: "shared", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };

/** One node's mount of the volume, without the mount: the lower, and who owns it. */
class Mounter {
  readonly nodeid: number;
  readonly told: string[] = [];
  lower: LowerMount | null = null;
  owner: VolumeOwner | undefined;
  close: () => Promise<void> = async () => {};
  readonly #happenings = new Happenings();

  constructor(nodeid: number) {
    this.nodeid = nodeid;
  }

  async start(cluster: TestCluster, device: string): Promise<this> {
    const { client } = await cluster.connect(this.nodeid, {
      gone: async (clients) => {
        this.owner?.receiveGone(clients);
        this.#happenings.happened();
      },
      disconnected: (reason) => this.owner?.receiveDisconnected(reason),
    });
    this.close = () => client.close();
    const tell = (what: string): void => {
      this.told.push(what);
      this.#happenings.happened();
    };
    const stored = storedBit(device);
    this.owner = new VolumeOwner({
      info: client.info,
      lockspace: await client.lockspace(volumeLockspace(bit.uuid)),
      process: claimingProcess(device),
      reachesLower: true,
      // It logs each step: what `why` says may have changed.
      log: { ...silentLog, debug: () => this.#happenings.happened() },
      callbacks: {
        readOwnerBlock: () => readOwnerBlock(device, stored.ownerBlock ?? 0, bit.uuid),
        proveGone: ({ life }) => createProveGone({ nodeid: this.nodeid, pid: process.pid, device })(life),
        mountLower: async (epochAbove, claim) => {
          const taking = { self: client.info, claim, mayMount: () => true, disk: new DiskSteps(device) };
          this.lower = await mountLower({ kind: "device", path: device }, stored, false, epochAbove, taking);
          return { epoch: this.lower.epoch, address: `127.0.0.${this.nodeid}`, port: 7000 + this.nodeid };
        },
        releaseLower: async () => {
          const lower = this.lower;
          this.lower = null;
          await lower?.release();
        },
        ownerFound: (owner) => tell(`node${owner.nodeid} epoch ${owner.epoch}`),
        ownerLost: (reason) => tell(`lost: ${reason}`),
        becomeOwner: (owner) => tell(`owner epoch ${owner.epoch}`),
        left: (error) => tell(`left${error === null ? "" : `: ${error.name}`}`),
      },
    });
    this.owner.start();
    return this;
  }

  async until(what: string): Promise<void> {
    await this.#happenings.until(() => this.told.at(-1) === what);
  }

  /** Owned by anybody. */
  async untilEpoch(epoch: number): Promise<void> {
    await this.#happenings.until(() => this.told.at(-1)?.endsWith(` epoch ${epoch}`) === true);
  }

  async untilWhy(what: string): Promise<void> {
    await this.#happenings.until(() => this.owner?.why.startsWith(what) === true);
  }

  async leave(): Promise<void> {
    await this.owner?.leave();
    await this.close();
  }

  /** Writes or reads one file through the lower that this node has mounted. */
  file(name: string): string {
    if (this.lower === null) throw new Error(`node ${this.nodeid} is not the owner`);
    return `/proc/self/fd/${this.lower.rootFd}/${name}`;
  }
}

describe("the owner over real lock managers", () => {
  for (const type of ["ext4", "xfs"] as const) {
    test(`${type}: the first mounter owns; hand-over; death; return; the disk stays whole`, async () => {
      await withDisk(type, async (disk) => {
        await enableVolume(disk.device, bit);
        const devices = [disk.device, attachLoop(disk.image), attachLoop(disk.image)];
        const cluster = createCluster({ nodes: 3 });
        const mounters: Mounter[] = [];
        const mounter = (nodeid: number): Promise<Mounter> => {
          const made = new Mounter(nodeid);
          mounters.push(made);
          return made.start(cluster, devices[nodeid - 1] as string);
        };
        try {
          await cluster.startAll();
          const third = await mounter(3);
          await third.until("owner epoch 1");
          writeFileSync(third.file("by-node3"), "three");
          const first = await mounter(1);
          const second = await mounter(2);
          await Promise.all([first.until("node3 epoch 1"), second.until("node3 epoch 1")]);
          expect(second.owner?.owner).toMatchObject({ address: "127.0.0.3", port: 7003 });

          // A clean hand-over, to the lowest.
          await third.leave();
          await Promise.all([first.until("owner epoch 2"), second.until("node1 epoch 2")]);
          expect(tryExclusive(devices[2] as string)).toBe("free");
          expect(readFileSync(first.file("by-node3"), "utf8")).toBe("three");
          writeFileSync(first.file("by-node1"), "one");

          // Its lock manager dies: it releases its lower, and the owner's block says so to everybody.
          await cluster.kill(1, "SIGKILL");
          await first.until("left: OperatingError");
          await second.until("owner epoch 3");
          expect(tryExclusive(devices[0] as string)).toBe("free");
          expect(readFileSync(second.file("by-node1"), "utf8")).toBe("one");
          const back = await mounter(3);
          await back.until("node2 epoch 3");
          await cluster.start(1);
          const again = await mounter(1);
          await again.until("node2 epoch 3");

          // Only its overlay dies, with the lower mounted: the block names it, and nothing proves that it is over.
          const lower = second.lower;
          await second.close();
          const gone = "owner node2 is gone: operations go on when node2 mounts the volume again; no other node may:";
          await Promise.all([again.untilWhy(gone), back.untilWhy(gone)]);
          expect([again.owner?.role, back.owner?.role, tryExclusive(devices[0] as string)]).toEqual(["waiting", "waiting", "free"]);
          second.lower = null;
          await lower?.release();
          await Promise.all([again.untilEpoch(4), back.untilEpoch(4)]);
          const [next, other] = again.owner?.role === "owner" ? [again, back] : [back, again];
          expect([next.owner?.role, other.owner?.role]).toEqual(["owner", "remote"]);
          await next.leave();
          await other.until("owner epoch 5");
          await other.leave();
        } finally {
          for (const made of mounters) await made.lower?.release();
          await cluster.close();
        }
        checkFileSystem(type, disk.device);
      });
    });
  }
});
