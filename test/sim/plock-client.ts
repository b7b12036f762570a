/** A program on a simulated node that uses file locks at random: several owners of each kind, now and then two requests of one at a time. */
import { maxOffset, type OwnerKind, type PlockOwner } from "../../dlmd/wire/plock-range.ts";
import type { PlockClientRequest, PlockResult } from "../../dlmd/wire/local-plock.ts";
import { type Asked, cells, type PlockChecker, show } from "./plock-checker.ts";
import type { Random } from "./random.ts";

export const plockFiles: readonly string[] = ["a", "b", "c", "d"];

export interface PlockClientOptions {
  readonly nodeid: number;
  readonly clientId: number;
  readonly lockspaceId: number;
  readonly random: Random;
  readonly checker: PlockChecker;
  readonly send: (request: PlockClientRequest) => void;
  /** Share of requests that wait for whole files, POSIX only: many deadlocks. */
  readonly deadly: number;
  /** "": of the lockspace that all have. */
  readonly prefix?: string;
}

export class SimPlockClient {
  readonly asked: Map<number, Asked> = new Map();
  readonly #options: PlockClientOptions;
  /** Each owner has several threads, which all ask. */
  readonly #threads: boolean;
  #nextRequestId = 1;

  constructor(options: PlockClientOptions) {
    this.#options = options;
    this.#threads = options.random.chance(0.15);
  }

  #owner(kind: OwnerKind, owner: bigint): PlockOwner {
    return { nodeid: this.#options.nodeid, clientId: this.#options.clientId, kind, owner };
  }

  #file(): string {
    return `${this.#options.prefix ?? ""}${this.#options.random.pick(plockFiles)}`;
  }

  /** One random thing to do. */
  act(): void {
    const { random, deadly } = this.#options;
    const what = random.next();
    if (what < 0.12 && this.asked.size > 0) return this.#cancel(random.pick([...this.asked.values()]));
    const owner = this.#owner(random.chance(deadly) ? "posix" : random.pick(["posix", "ofd", "flock"] as const), BigInt(random.int(2)));
    if (what < 0.17) return this.#release(owner, random.chance(0.2) ? null : this.#file());
    const busy = [...this.asked.values()].filter((asked) => asked.owner.kind === owner.kind && asked.owner.owner === owner.owner).length;
    if (busy > 0 && !random.chance(this.#threads ? 0.6 : busy === 1 ? 0.15 : 0.02)) return;
    this.#ask(owner, random.chance(deadly));
  }

  #ask(owner: PlockOwner, whole: boolean): void {
    const { random, checker, send, lockspaceId } = this.#options;
    const op = random.pick(["lock", "lock", "lock", "unlock", owner.kind === "flock" ? "lock" : "test"] as const);
    const places = [random.int(cells), random.int(cells)].sort((a, b) => a - b) as [number, number];
    const all = whole || owner.kind === "flock";
    const request = {
      kind: "plock",
      lockspaceId,
      requestId: this.#nextRequestId++,
      file: this.#file(),
      op,
      ownerKind: owner.kind,
      owner: owner.owner,
      pid: 1,
      type: random.chance(0.5) ? "read" : "write",
      start: all ? 0n : BigInt(places[0]),
      end: all || places[1] === cells - 1 ? maxOffset : BigInt(places[1]),
      wait: op === "lock" && random.chance(0.7),
      // As of what the overlay had here before.
      begun: owner.kind === "flock" && op === "lock" && random.chance(0.15),
      heldMs: op === "lock" && random.chance(0.15) ? random.int(1000) : null,
      first: false,
    } as const;
    const asked: Asked = { request, owner, canceled: false, released: false };
    this.asked.set(request.requestId, asked);
    checker.sent(asked);
    send(request);
  }

  #cancel(asked: Asked): void {
    asked.canceled = true;
    this.#options.send({ kind: "plock-cancel", requestId: asked.request.requestId });
  }

  #release(owner: PlockOwner, file: string | null): void {
    for (const asked of this.asked.values()) {
      if (asked.owner.kind !== owner.kind || asked.owner.owner !== owner.owner) continue;
      if (file !== null && asked.request.file !== file) continue;
      asked.released = true;
      if (file === null) asked.canceled = true;
    }
    this.#options.checker.released(owner, file);
    const { lockspaceId, send } = this.#options;
    send({ kind: "plock-release", lockspaceId, file, ownerKind: owner.kind, owner: owner.owner });
  }

  /** It, or its node, is no more. */
  ended(): void {
    for (const kind of ["posix", "ofd", "flock"] as const) {
      for (const owner of [0n, 1n]) this.#options.checker.released(this.#owner(kind, owner), null);
    }
    this.asked.clear();
  }

  result(result: PlockResult): void {
    const { checker } = this.#options;
    const asked = this.asked.get(result.requestId);
    if (asked === undefined)
      return checker.fail(`client ${this.#options.clientId}: an answer to request ${result.requestId}, which has none coming`);
    this.asked.delete(result.requestId);
    checker.answered(asked, result, [...this.asked.values()]);
  }

  describe(): string[] {
    return [...this.asked.values()].map(show);
  }

  /** Lets go of everything. */
  releaseAll(): void {
    for (const kind of ["posix", "ofd", "flock"] as const) for (const owner of [0n, 1n]) this.#release(this.#owner(kind, owner), null);
  }
}
