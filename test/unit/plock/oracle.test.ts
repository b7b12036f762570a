/**
 * Random operations on one file against a model that keeps a type for each byte and each owner and looks at all waiting requests in
 * order after every change.
 */
import assert from "node:assert/strict";
import { expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { maxOffset, type PlockType, typesConflict } from "../../../dlmd/wire/plock-range.ts";
import { Random } from "../../sim/random.ts";
import { LoneService, ofd, posix, type Who } from "./lone-service.ts";

const bytes = 24;
/** The model's last byte stands for all the rest of the file. */
const toOffset = (byte: number): bigint => (byte === bytes - 1 ? maxOffset : BigInt(byte));

interface Waiting {
  readonly id: number;
  readonly who: number;
  readonly type: PlockType;
  readonly start: number;
  readonly end: number;
}

class Model {
  readonly bytesOf: (PlockType | null)[][];
  waiting: Waiting[] = [];
  readonly granted: Set<number> = new Set();
  /** Requests that need not wait behind others any more: the order of coming had made a cycle (search.ts). */
  readonly overtaking: Set<number> = new Set();

  constructor(owners: number) {
    this.bytesOf = Array.from({ length: owners }, () => Array.from({ length: bytes }, () => null));
  }

  /** Whether that owner holds what excludes it. */
  holds(owner: number, { type, start, end }: Omit<Waiting, "id" | "who">): boolean {
    const held = (this.bytesOf[owner] as (PlockType | null)[]).slice(start, end + 1);
    return held.some((of) => of !== null && typesConflict(of, type));
  }

  conflicts(wanted: Omit<Waiting, "id">): boolean {
    return this.bytesOf.some((_, owner) => owner !== wanted.who && this.holds(owner, wanted));
  }

  waitsBehind(wanted: Omit<Waiting, "id">, earlier: readonly Waiting[]): boolean {
    return earlier.some(
      (other) =>
        other.who !== wanted.who &&
        other.start <= wanted.end &&
        wanted.start <= other.end &&
        typesConflict(other.type, wanted.type) &&
        !this.holds(wanted.who, other),
    );
  }

  set(owner: number, start: number, end: number, type: PlockType | null): void {
    (this.bytesOf[owner] as (PlockType | null)[]).fill(type, start, end + 1);
  }

  serve(): void {
    for (;;) {
      const at = this.waiting.findIndex(
        (wanted, at) => !this.conflicts(wanted) && (this.overtaking.has(wanted.id) || !this.waitsBehind(wanted, this.waiting.slice(0, at))),
      );
      if (at < 0) return;
      const [wanted] = this.waiting.splice(at, 1) as [Waiting];
      this.granted.add(wanted.id);
      this.set(wanted.who, wanted.start, wanted.end, wanted.type);
    }
  }

  rows(owner: number, who: Who): string[] {
    const of = this.bytesOf[owner] as (PlockType | null)[];
    const rows: string[] = [];
    for (let start = 0; start < bytes; ) {
      let end = start;
      while (end + 1 < bytes && of[end + 1] === of[start]) end++;
      if (of[start] !== null) rows.push(`${who.kind}/${who.owner} ${of[start]} ${start}-${toOffset(end)}`);
      start = end + 1;
    }
    return rows;
  }
}

it.each(Array.from({ length: 20 }, (_, i) => i + 1))("a file and a model, seed %i", (seed) => {
  const random = new Random(seed);
  const lone = new LoneService();
  // Owners of open files: nobody is refused for a deadlock, so the model need not know of them.
  const owners = Array.from({ length: 2 + random.int(4) }, (_, i) => ofd(i));
  const model = new Model(owners.length);
  const { master } = lone.service;
  const sentence = master.sentence.bind(master);
  master.sentence = (name, what) => {
    expect(what).toBe("overtake");
    model.overtaking.add(name.requestId);
    return sentence(name, what);
  };
  for (let step = 0; step < 1500; step++) {
    const who = random.int(owners.length);
    const owner = owners[who] as Who;
    const start = random.int(bytes);
    const end = Math.min(bytes - 1, start + random.int(random.chance(0.3) ? bytes : 6));
    const type = random.chance(0.5) ? "read" : "write";
    const wanted = { who, type, start, end } as const;
    const what = random.next();
    if (what < 0.35) {
      const errno = lone.errno(lone.lock("f", owner, type, BigInt(start), toOffset(end), false));
      const conflicts = model.conflicts(wanted);
      assert.equal(errno, conflicts ? E.EAGAIN : 0);
      if (!conflicts) model.set(who, start, end, type);
    } else if (what < 0.5) {
      const found = lone.test("f", owner, type, BigInt(start), toOffset(end)).conflict;
      assert.equal(found !== null, model.conflicts(wanted));
      if (found !== null) {
        assert.ok(model.holds(Number(found.owner.owner), wanted));
        assert.ok(
          model
            .rows(Number(found.owner.owner), owners[Number(found.owner.owner)] as Who)
            .includes(`ofd/${found.owner.owner} ${found.type} ${found.start}-${found.end}`),
        );
      }
    } else if (what < 0.65 && model.waiting.length < 12) {
      const id = lone.lock("f", owner, type, BigInt(start), toOffset(end));
      if (!model.conflicts(wanted) && !model.waitsBehind(wanted, model.waiting)) {
        model.granted.add(id);
        model.set(who, start, end, type);
      } else model.waiting.push({ id, ...wanted });
    } else if (what < 0.72 && model.waiting.length > 0) {
      const [canceled] = model.waiting.splice(random.int(model.waiting.length), 1) as [Waiting];
      lone.cancel(canceled.id);
      assert.equal(lone.errno(canceled.id), E.EINTR);
    } else {
      lone.unlock("f", owner, BigInt(start), toOffset(end));
      model.set(who, start, end, null);
    }
    model.serve();
    expect(lone.held("f")).toEqual(owners.flatMap((owner, who) => model.rows(who, owner)).sort());
    for (const { id } of model.waiting) {
      if (lone.errno(id) === null) continue;
      throw new Error(`step ${step}: request ${id} was answered ${lone.errno(id)}, the model waits`);
    }
    for (const id of model.granted) expect(lone.errno(id)).toBe(0);
    model.granted.clear();
  }
});

it("merges neighbours and splits, up to the last byte", () => {
  const lone = new LoneService();
  const a = posix(1);
  lone.lock("f", a, "write", 0n, 9n);
  lone.lock("f", a, "write", 10n, 19n);
  expect(lone.held("f")).toEqual(["posix/1 write 0-19"]);
  lone.lock("f", a, "read", 5n, 6n);
  expect(lone.held("f")).toEqual(["posix/1 read 5-6", "posix/1 write 0-4", "posix/1 write 7-19"]);
  lone.unlock("f", a, 0n, 6n);
  lone.lock("f", a, "write", 20n);
  expect(lone.held("f")).toEqual([`posix/1 write 7-${maxOffset}`]);
  lone.unlock("f", a, maxOffset, maxOffset);
  expect(lone.held("f")).toEqual([`posix/1 write 7-${maxOffset - 1n}`]);
  lone.unlock("f", a);
  expect(lone.service.master.files.size).toBe(0);
});
