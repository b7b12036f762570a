/** Rules of the file-lock service, each broken once: what must notice it is named. */
import type { Mutation } from "./mutations.ts";

const sim = "test/sim/plock.test.ts";
const service = "test/unit/plock/service.test.ts";
const master = "test/unit/plock/master.test.ts";
const oracle = "test/unit/plock/oracle.test.ts";
const kernel = "test/unit/plock/kernel.test.ts";

export const plockMutations: readonly Mutation[] = [
  {
    name: "M5: an unlock without an answer is not remembered for rebuild",
    file: "dlmd/plock/home.ts",
    find: "    this.#asked.set(requestId, asked);\n    owned.asked.set(requestId, asked);",
    replace:
      "    if (clientRequestId !== null) {\n      this.#asked.set(requestId, asked);\n      owned.asked.set(requestId, asked);\n    }",
    caughtBy: sim,
  },
  {
    name: "M5: an unlock is remembered, but not given up again after a grant that came in between",
    file: "dlmd/plock/home.ts",
    find: '    if (ask.op === "unlock") this.#change(owned, ask, null);\n    else',
    replace: '    if (ask.op === "unlock") ;\n    else',
    caughtBy: sim,
  },
  {
    name: "a grant heard late sends a message before what is rebuilt",
    file: "dlmd/plock/home.ts",
    find: "    if (late) return;",
    replace: "",
    caughtBy: sim,
  },
  {
    name: "requests without an answer are not asked again in the next view",
    file: "dlmd/plock/home.ts",
    find: "    for (const asked of this.#asked.values()) {\n      const { ask, canceling } = asked;",
    replace: "    for (const asked of [] as Asked[]) {\n      const { ask, canceling } = asked;",
    caughtBy: sim,
  },
  {
    name: "a lock that was weakened before the master died is taken back at full strength",
    file: "dlmd/plock/master.ts",
    find: "    const explained = this.#explain(agains);",
    replace: "    const explained = new Set<PlockAgainMessage>();",
    caughtBy: master,
  },
  {
    name: "a home does not hear what a waiting flock conversion removed",
    file: "dlmd/plock/master.ts",
    find: '    if (m.wait) this.#answer(from, m.requestId, "removed");',
    replace: "",
    caughtBy: sim,
  },
  {
    name: "a cancel that was under way is forgotten in a view change",
    file: "dlmd/plock/master.ts",
    find: "      if (message.canceled) this.cancel(from, message.requestId);",
    replace: "",
    caughtBy: sim,
  },
  {
    name: "a dead client's waiting requests go on",
    file: "dlmd/plock/home.ts",
    find: "    if (cancel) for (const asked of locks) this.#cancel(asked);",
    replace: "",
    caughtBy: service,
  },
  {
    name: "an owner with only an unanswered lock is not unlocked at its end",
    file: "dlmd/plock/home.ts",
    find: "    if (owned.ranges.size === 0 && locks.length === 0) return;",
    replace: "    if (owned.ranges.size === 0) return;",
    caughtBy: sim,
  },
  {
    name: "deadlocks are not looked for",
    file: "dlmd/plock/search.ts",
    find: "      this.#queue.add(waiter);\n      this.#startNext();",
    replace: "",
    caughtBy: service,
  },
  {
    name: "the judge believes what the search saw at different times",
    file: "dlmd/plock/judge.ts",
    find: "    if (!yes) trial.whole = false;",
    replace: "",
    caughtBy: sim,
  },
  {
    name: "an edge that went and came again counts as the same",
    file: "dlmd/plock/table.ts",
    find: "    holder.stamp = this.#next();\n",
    replace: "",
    caughtBy: master,
  },
  {
    name: "a search looks only at held locks, not at the order",
    file: "dlmd/plock/master.ts",
    find: "    if (isWaiter(blocker)) edges.push(to(owner, true, blocker.rank));",
    replace: "    if (isWaiter(blocker)) return edges;",
    caughtBy: service,
  },
  {
    name: "after a grant to an owner that waits elsewhere nobody looks again",
    file: "dlmd/plock/home.ts",
    find: '{ kind: "plock-recheck", requestId: ask.requestId }',
    replace: '{ kind: "plock-recheck", requestId: 0 }',
    caughtBy: sim,
  },
  {
    name: "deadlock victims among open files",
    file: "dlmd/plock/search.ts",
    find: '  return !soft && from.kind === "posix" && to.kind === "posix";',
    replace: "  return !soft && from !== to;",
    caughtBy: service,
  },
  {
    name: "readers overtake a writer that waits",
    file: "dlmd/plock/table.ts",
    find: "    return earlier ?? this.conflict(holder, wanted)?.holder ?? null;",
    replace: "    return this.conflict(holder, wanted)?.holder ?? earlier?.holder ?? null;",
    caughtBy: oracle,
  },
  {
    name: "nobody is looked at again when a waiting request is canceled",
    file: "dlmd/plock/table.ts",
    find: "      recheck.add(behind);\n",
    replace: "",
    caughtBy: oracle,
  },
  {
    name: "a lock made weaker lets nobody in",
    file: "dlmd/plock/owned.ts",
    find: '      if (type !== "write") weakened = true;',
    replace: "      if (type === null) weakened = true;",
    caughtBy: oracle,
  },
  {
    name: "neighbours are not merged",
    file: "dlmd/plock/owned.ts",
    find: "  const touching = tree.overlapping(start > 0n ? start - 1n : start, end < maxOffset ? end + 1n : end);",
    replace: "  const touching = tree.overlapping(start, end < maxOffset ? end : end);",
    caughtBy: kernel,
  },
  {
    name: "a flock conversion keeps the old lock while it waits",
    file: "dlmd/plock/master.ts",
    find: '    if (m.ownerKind === "flock" && holder.ranges.size > 0) this.#removeFirst(from, table, holder, m);',
    replace: "",
    caughtBy: kernel,
  },
  {
    name: "ENOLCK of a client is never given",
    file: "dlmd/plock/home.ts",
    find: "    if (ranges + outstanding + mostAdded <= this.#limits.fileLocksPerClient) return false;",
    replace: "    if (ranges + outstanding >= 0) return false;",
    caughtBy: service,
  },
];
