/**
 * Locks that outlived their client (PERSISTENT; Linux ls_orphans, dlm_user_adopt_orphan): they stay held until a client of the same
 * owner adopts them or somebody purges them (hazard C6). An owner is a user id and a key that the program declared when it connected.
 */
import type { Lkb, Resource, LockClient } from "./lkb.ts";
import type { Mode } from "../wire/mode.ts";

export class Orphans {
  readonly #byResource: Map<Resource, Lkb[]> = new Map();

  get size(): number {
    let size = 0;
    for (const locks of this.#byResource.values()) size += locks.length;
    return size;
  }

  add(lkb: Lkb): void {
    const locks = this.#byResource.get(lkb.resource);
    if (locks === undefined) this.#byResource.set(lkb.resource, [lkb]);
    else if (!locks.includes(lkb)) locks.push(lkb);
  }

  delete(lkb: Lkb): void {
    const locks = this.#byResource.get(lkb.resource);
    const at = locks?.indexOf(lkb) ?? -1;
    if (locks === undefined || at < 0) return;
    if (locks.length === 1) this.#byResource.delete(lkb.resource);
    else locks.splice(at, 1);
  }

  find(client: LockClient, resource: Resource | undefined, mode: Mode): Lkb | "none" | "other-mode" {
    let found: Lkb | "none" | "other-mode" = "none";
    for (const lkb of (resource === undefined ? null : this.#byResource.get(resource)) ?? []) {
      const left = lkb.client as LockClient;
      // Hazard C12: a client that was ended for hanging has no heir; its kernel may have what the lock covered.
      if (!sameOwner(left, client) || (left.kept && left.ending)) continue;
      // One with a request outstanding cannot be had now; two clients of this owner may have left one each.
      if (lkb.granted === mode && lkb.requested === null) return lkb;
      if (lkb.granted === mode) found = lkb;
      else if (found === "none") found = "other-mode";
    }
    return found;
  }

  adopt(lkb: Lkb, client: LockClient, lockId: number): void {
    this.delete(lkb);
    (lkb.client as LockClient).locks.delete(lkb.lockId);
    lkb.client = client;
    lkb.clientId = client.id;
    lkb.lockId = lockId;
    lkb.transaction = 0;
    client.locks.set(lockId, lkb);
  }
}

/** A client without an owner key cannot adopt. */
export function sameOwner(dead: LockClient, client: LockClient): boolean {
  return client.owner !== "" && dead.owner === client.owner && dead.uid === client.uid;
}
