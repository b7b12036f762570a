/** A model of the lock manager of one resource, of which each node has one lock: the rules of Linux fs/dlm/lock.c that matter here. */
import { LockFlag } from "../../../dlmd/client/api.ts";
import type { LockStatus } from "../../../dlmd/client/api.ts";
import { Mode, modeCovers, modesCompatible } from "../../../dlmd/wire/mode.ts";

interface ModelLock {
  granted: Mode;
  requested: Mode | null;
  readonly node: number;
}

export class ModelResource {
  readonly locks: ModelLock[] = [];
  readonly converting: ModelLock[] = [];
  readonly waiting: ModelLock[] = [];
  readonly send: (node: number, message: { status: LockStatus; mode: Mode } | { wanted: Mode }) => void;

  constructor(send: ModelResource["send"]) {
    this.send = send;
  }

  request(node: number, mode: Mode, flags: number): void {
    let lock = this.locks.find((one) => one.node === node);
    if (lock === undefined) {
      lock = { granted: Mode.NL, requested: null, node };
      this.locks.push(lock);
    }
    const queue = lock.granted === Mode.NL ? this.waiting : this.converting;
    const others = this.locks.filter((one) => one !== lock);
    const free = others.every((one) => modesCompatible(one.granted, mode)) && this.converting.length === 0;
    const down = modeCovers(lock.granted, mode);
    if (down || (free && (queue === this.converting || this.waiting.length === 0))) {
      lock.granted = mode;
      this.send(node, { status: "granted", mode });
      this.grant();
      return;
    }
    const blockers = others.filter((one) => !modesCompatible(one.granted, mode));
    if ((flags & LockFlag.NOQUEUE) !== 0) {
      if ((flags & LockFlag.NOQUEUEBAST) !== 0) for (const one of blockers) this.send(one.node, { wanted: mode });
      this.send(node, { status: "again", mode: lock.granted });
      return;
    }
    const { granted } = lock;
    if (queue === this.converting && queue.some((earlier) => !modesCompatible(granted, earlier.requested as Mode))) {
      this.send(node, { status: "deadlock", mode: granted });
      return;
    }
    lock.requested = mode;
    queue.push(lock);
    for (const one of blockers) this.send(one.node, { wanted: mode });
  }

  cancel(node: number): void {
    for (const queue of [this.converting, this.waiting]) {
      const at = queue.findIndex((one) => one.node === node);
      if (at < 0) continue;
      const [lock] = queue.splice(at, 1) as [ModelLock];
      lock.requested = null;
      this.send(node, { status: "canceled", mode: lock.granted });
      this.grant();
      return;
    }
  }

  unlock(node: number): void {
    const at = this.locks.findIndex((one) => one.node === node);
    if (at >= 0) this.locks.splice(at, 1);
    this.grant();
  }

  grant(): void {
    for (const queue of [this.converting, this.waiting]) {
      while (queue.length > 0) {
        const head = queue[0] as ModelLock;
        const wanted = head.requested as Mode;
        if (!this.locks.every((one) => one === head || modesCompatible(one.granted, wanted))) break;
        queue.shift();
        head.granted = wanted;
        head.requested = null;
        this.send(head.node, { status: "granted", mode: wanted });
      }
      if (queue.length > 0) break;
    }
    const head = this.converting[0] ?? this.waiting[0];
    if (head === undefined) return;
    for (const one of this.locks) {
      if (one !== head && !modesCompatible(one.granted, head.requested as Mode)) this.send(one.node, { wanted: head.requested as Mode });
    }
  }
}
