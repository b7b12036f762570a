/** The owner's role over real dlmds and one real disk with a loop device for each node: start, hand-over, death, return. */
import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { enableVolume } from "../../../overlay/cli/volume.ts";
import type { Bit } from "../../../overlay/volume/bit.ts";
import { tryExclusive } from "../../../overlay/volume/device.ts";
import { type LowerMount, mountLower } from "../../../overlay/volume/lower-mount.ts";
import { VolumeOwner, volumeLockspace } from "../../../overlay/volume/owner.ts";
import { Happenings, type TestCluster, createCluster } from "../dlmd/cluster.ts";
import { attachLoop, checkFileSystem, diskProblem, withDisk } from "./disk.ts";

const missing = diskProblem();
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
    this.owner = new VolumeOwner({
      info: client.info,
      lockspace: await client.lockspace(volumeLockspace(bit.uuid)),
      reachesLower: true,
      // It logs each step: what `why` says may have changed.
      log: { ...silentLog, debug: () => this.#happenings.happened() },
      callbacks: {
        mountLower: async (epochAbove) => {
          this.lower = await mountLower({ kind: "device", path: device }, bit, false, epochAbove);
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

  async untilWhy(what: string): Promise<void> {
    await this.#happenings.until(() => this.owner?.why === what);
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

describe.skipIf(missing !== null)("the owner over real lock managers", () => {
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

          // The owner's node dies (its lower is released here, which nobody but it can know).
          await cluster.kill(1, "SIGKILL");
          await first.until("left: OperatingError");
          const gone = "owner node1 is gone: operations go on when node1 mounts the volume again";
          await second.untilWhy(gone);
          // One that mounts only now is told the same by the record.
          const back = await mounter(3);
          await back.untilWhy(gone);
          expect([second.owner?.role, back.owner?.role, back.told]).toEqual(["waiting", "waiting", []]);

          // It comes back, and goes on with a higher epoch.
          await cluster.start(1);
          const again = await mounter(1);
          await Promise.all([again.until("owner epoch 3"), second.until("node1 epoch 3"), back.until("node1 epoch 3")]);
          expect(readFileSync(again.file("by-node1"), "utf8")).toBe("one");

          // Only its overlay dies, with dlmd alive: the same.
          const lower = again.lower;
          await again.close();
          await Promise.all([second.untilWhy(gone), back.untilWhy(gone)]);
          again.lower = null;
          await lower?.release();
          const onceMore = await mounter(1);
          await Promise.all([onceMore.until("owner epoch 4"), second.until("node1 epoch 4"), back.until("node1 epoch 4")]);
          await onceMore.leave();
          await Promise.all([second.until("owner epoch 5"), back.until("node2 epoch 5")]);
          await Promise.all([second.leave(), back.leave()]);
        } finally {
          for (const made of mounters) await made.lower?.release();
          await cluster.close();
        }
        checkFileSystem(type, disk.device);
      });
    });
  }
});
