/** The file-lock service of a cluster of one node, for tests of what locks mean: requests in, results out. */
import { type Client, newClient } from "../../../dlmd/clients/client.ts";
import type { ClientEvent } from "../../../dlmd/wire/program.ts";
import type { PlockClientRequest } from "../../../dlmd/wire/local-plock.ts";
import type { PlockLimits } from "../../../dlmd/plock/master.ts";
import { maxOffset, type OwnerKind, type PlockType } from "../../../dlmd/wire/plock-range.ts";
import { defaultPlockLimits, PlockService } from "../../../dlmd/plock/service.ts";
import type { PlockTable } from "../../../dlmd/plock/table.ts";

export type Result = Extract<ClientEvent, { kind: "plock-result" }>;
type Plock = Extract<PlockClientRequest, { kind: "plock" }>;
export type Ask = Omit<Plock, "kind" | "lockspaceId" | "requestId" | "begun" | "heldMs" | "first"> &
  Partial<Pick<Plock, "begun" | "heldMs" | "first">>;

export interface Who {
  readonly kind: OwnerKind;
  readonly owner: bigint;
}

export class LoneService {
  readonly service: PlockService;
  readonly client: Client;
  readonly time: { nowMs: number } = { nowMs: 0 };
  /** By request id. */
  readonly results: Map<number, Result> = new Map();
  #nextRequestId = 1;

  constructor(limits: Partial<PlockLimits> = {}) {
    this.service = new PlockService(
      1,
      this.time,
      {
        toPeer: (nodeid) => {
          throw new Error(`a message to node ${nodeid}`);
        },
        toClient: (_, event) => {
          if (event.kind !== "plock-result") throw new Error(`event ${event.kind}`);
          if (this.results.has(event.requestId)) throw new Error(`request ${event.requestId} was answered twice`);
          this.results.set(event.requestId, event);
        },
        protest: (_, message) => {
          throw new Error(message);
        },
        blocks: () => false,
      },
      { ...defaultPlockLimits, ...limits },
    );
    this.service.startRebuild([{ nodeid: 1, incarnation: "0000000000000001" }]);
    while (!this.service.name(1));
    while (!this.service.settle(1));
    this.client = this.connect(1);
  }

  connect(id: number): Client {
    const client = newClient(id);
    client.lockspaces.set(7, { name: "test", resources: new Map(), opens: 1, blocked: false });
    return client;
  }

  ask(ask: Ask, client: Client = this.client): number {
    const requestId = this.#nextRequestId++;
    this.service.request(client, { kind: "plock", lockspaceId: 7, requestId, begun: false, heldMs: null, first: false, ...ask });
    this.service.search(Number.POSITIVE_INFINITY);
    return requestId;
  }

  /** errno, or null while it waits. */
  errno(requestId: number): number | null {
    return this.results.get(requestId)?.errno ?? null;
  }

  lock(file: string, who: Who, type: PlockType, start: bigint, end: bigint = maxOffset, wait = true): number {
    return this.ask({ file, op: "lock", ownerKind: who.kind, owner: who.owner, pid: Number(who.owner), type, start, end, wait });
  }

  unlock(file: string, who: Who, start = 0n, end: bigint = maxOffset): number {
    return this.ask({ file, op: "unlock", ownerKind: who.kind, owner: who.owner, pid: 0, type: "read", start, end, wait: false });
  }

  test(file: string, who: Who, type: PlockType, start: bigint, end: bigint = maxOffset): Result {
    const id = this.ask({ file, op: "test", ownerKind: who.kind, owner: who.owner, pid: 0, type, start, end, wait: false });
    return this.results.get(id) as Result;
  }

  cancel(requestId: number): void {
    this.service.request(this.client, { kind: "plock-cancel", requestId });
    this.service.search(Number.POSITIVE_INFINITY);
  }

  table(file: string, space: "ranges" | "flock" = "ranges"): PlockTable | undefined {
    return this.service.master.files.get(`test\0${file}`)?.[space];
  }

  /** "kind/owner type start-end", sorted. */
  held(file: string, space: "ranges" | "flock" = "ranges"): string[] {
    const rows: string[] = [];
    for (const holder of this.table(file, space)?.holders.values() ?? []) {
      const { kind, owner } = holder.owner;
      for (const held of holder.ranges.overlapping(0n, maxOffset)) rows.push(`${kind}/${owner} ${held.type} ${held.start}-${held.end}`);
    }
    return rows.sort();
  }
}

export const posix = (owner: number): Who => ({ kind: "posix", owner: BigInt(owner) });
export const ofd = (owner: number): Who => ({ kind: "ofd", owner: BigInt(owner) });
export const flock = (owner: number): Who => ({ kind: "flock", owner: BigInt(owner) });
