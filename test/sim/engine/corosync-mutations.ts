/** Rules of the engine over corosync, each broken once (../mutation.ts). */
import type { Mutation } from "../mutation.ts";

const core = "dlmd/engine/corosync/corosync-core.ts";
const round = "dlmd/engine/corosync/round.ts";
const exchange = "dlmd/engine/corosync/round-exchange.ts";
const seats = "dlmd/engine/corosync/group-seats.ts";
const stream = "dlmd/engine/corosync/view-stream.ts";
const coreTest = "test/unit/dlmd/corosync-core.test.ts";
const roundTest = "test/unit/dlmd/corosync-round.test.ts";
const clusterTest = "test/unit/dlmd/corosync-cluster.test.ts";

export const corosyncMutations: readonly Mutation[] = [
  {
    id: "corosync-ends-under-mounts",
    breaks: "corosync is told that it may end while lockspaces are open on its node",
    file: "dlmd/driver/corosync/link.ts",
    find: 'if (users === "") {',
    replace: 'if (users !== "-") {',
    caughtBy: "test/unit/dlmd-shell/corosync-link.test.ts",
  },
  {
    id: "corosync-force-unanswered",
    breaks: "corosync-cfgtool -H --force, as systemctl stop has it, waits 5 s for an answer of dlmd",
    file: "dlmd/driver/corosync/connection.ts",
    find: "void this.#shutdownAsked.push(how);",
    replace: "void (how === SHUTDOWN_REQUEST && this.#shutdownAsked.push(how));",
    caughtBy: "test/unit/dlmd-shell/corosync-connection.test.ts",
  },
  {
    id: "corosync-force-asks-programs",
    breaks: "an end of corosync that nobody can refuse is answered with no",
    file: "dlmd/driver/corosync/connection.ts",
    find: "how === SHUTDOWN_REQUEST ? (this.#options.shutdown?.() ?? null) : null;",
    replace: "this.#options.shutdown?.() ?? null;",
    caughtBy: "test/unit/dlmd-shell/corosync-connection.test.ts",
  },
  {
    id: "corosync-shutdown-answer-lost",
    breaks: "a request to end corosync is answered with yes, whatever the link says",
    file: "dlmd/driver/corosync/connection.ts",
    find: "refusal === null ? SHUTDOWN_YES : SHUTDOWN_NO",
    replace: "refusal === null ? SHUTDOWN_YES : SHUTDOWN_YES",
    caughtBy: "test/unit/dlmd-shell/corosync-connection.test.ts",
  },
  {
    id: "corosync-view-before-all-are-ready",
    breaks: "a view is installed whose epoch other members have not heard of: they may take a lower one for a view that serves",
    file: exchange,
    find: "if (decision.members.every((member) => this.#ready.has(member.nodeid)) && isMemberOf",
    replace: "if (isMemberOf",
    caughtBy: coreTest,
  },
  {
    id: "corosync-same-epoch-twice",
    breaks: "a node states one epoch in two rounds, so two views may have one name",
    file: exchange,
    find: "    this.#highestEpoch++;\n",
    replace: "",
    caughtBy: coreTest,
  },
  {
    id: "corosync-ready-before-disk",
    breaks: "a node that restarts forgets an epoch to which it has said yes",
    file: exchange,
    find: "    this.#readyAtEpoch = decision.id.epoch;\n",
    replace: '    this.#port.say({ kind: "ready", view: decision.id });\n',
    caughtBy: coreTest,
  },
  {
    id: "corosync-packets-of-any-view",
    breaks: "what CPG delivers of another view is taken for one of this",
    file: stream,
    find: 'if (this.#blocked || this.#stopped || !sameView(view, this.#lived)) return "dropped";',
    replace: 'if (this.#blocked || this.#stopped) return "dropped";',
    caughtBy: coreTest,
  },
  {
    id: "corosync-together-whatever-was-seen",
    breaks: "members that saw different packets in a partition go on together",
    file: round,
    find: "    const key = `${answer.packets}/${answer.digest}`;",
    replace: '    const key = "";',
    caughtBy: roundTest,
  },
  {
    id: "corosync-old-state-merges",
    breaks: "a node that a quorum left behind comes back with its locks",
    file: round,
    find: "if (lived.epoch > 0 && !sameView(lived, latest.id))",
    replace: "if (false)",
    caughtBy: roundTest,
  },
  {
    id: "corosync-lease-not-waited-for",
    breaks: "a view serves while a node outside has a lease",
    file: round,
    find: "  return Math.max(0, ...waits);",
    replace: "  return Math.min(0, ...waits);",
    caughtBy: roundTest,
  },
  {
    id: "corosync-lease-of-another-version",
    hazard: "C4",
    breaks: "a view serves while a node outside has a lease that a node of another version acknowledged",
    file: round,
    find: "const waits = answers.flatMap(",
    replace: "const waits = admitted.flatMap(",
    caughtBy: roundTest,
  },
  {
    id: "corosync-quorum-by-votequorum-alone",
    breaks: "a dlmd alone serves because corosync runs on the other nodes",
    file: round,
    find: "quorate: dissenting.length === 0 && haveMajority(admitted)",
    replace: "quorate: dissenting.length === 0",
    caughtBy: roundTest,
  },
  {
    id: "corosync-quorum-of-another-ring",
    breaks: "what votequorum said of the ring before counts for the next one",
    file: seats,
    find: "quorum.ring.seq === this.#ring.seq && quorum.ring.nodeid === this.#ring.nodeid",
    replace: "quorum.ring.seq > 0",
    caughtBy: coreTest,
  },
  {
    id: "corosync-few-leave-many-out",
    breaks: "a node that hears nobody makes all others begin anew",
    file: exchange,
    find: "      if (!this.#isMajority(desired)) return;\n",
    replace: "",
    caughtBy: clusterTest,
  },
  {
    id: "corosync-left-out-comes-at-once",
    breaks: "a node that hangs in each of its lives keeps the others from a view",
    file: exchange,
    find: "      this.#seats.shun(seat.nodeid, nowMs + shunShare * this.#boot.timeoutMs);\n",
    replace: "",
    caughtBy: clusterTest,
  },
  {
    id: "corosync-highest-version-wins",
    breaks: "a node that was started alone with a later cluster.yaml takes the quorum from all",
    file: round,
    find: "choices.find(({ quorate }) => quorate) ?? (choices[0] as Choice)",
    replace: "choices[0] as Choice",
    caughtBy: roundTest,
  },
  {
    id: "corosync-lowest-version-wins",
    breaks: "a node that ran on with an older cluster.yaml keeps all others from a view",
    file: round,
    find: ".sort((a, b) => b - a);",
    replace: ".sort((a, b) => a - b);",
    caughtBy: roundTest,
  },
  {
    id: "corosync-life-outlives-its-version",
    breaks: "a node that is given a later cluster.yaml goes on by the one of its start, until its dlmd is restarted",
    file: core,
    find: "if (version !== before && !this.#ended)",
    replace: "if (version < before && !this.#ended)",
    caughtBy: clusterTest,
  },
];
