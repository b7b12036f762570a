/** Rules of the engine, each broken once (../mutations.ts). */
import type { Mutation } from "../mutations.ts";

const ordering = "dlmd/engine/builtin/ordering.ts";
const sequencer = "dlmd/engine/builtin/sequencer.ts";
const groups = "dlmd/engine/builtin/groups.ts";
const engine = "dlmd/engine/builtin/engine-core.ts";
const agreement = "dlmd/membership/agreement.ts";
const membership = "dlmd/membership/membership.ts";
const detector = "dlmd/membership/detector.ts";
const quorum = "dlmd/membership/quorum.ts";

function simulation(name: string, file: string, find: string, replace: string): Mutation {
  return { name, file, find, replace, caughtBy: "engine-sim" };
}
function scenario(name: string, file: string, find: string, replace: string): Mutation {
  return { name, file, find, replace, caughtBy: "test/sim/engine/scenario.test.ts" };
}

export const engineMutations: readonly Mutation[] = [
  simulation(
    "the cut takes in all that anybody has",
    "dlmd/membership/cut.ts",
    "return { cut, sources };",
    "return { cut: least, sources };",
  ),
  simulation(
    "nothing is delivered after the promise",
    ordering,
    "if (this.stopped) return this.#pull(nowMs);\n    this.#submitAll",
    "this.#submitAll",
  ),
  simulation("a frame of an old view is not accepted", ordering, "!sameView(message.view, view.id) || !hasMember(", "!hasMember("),
  scenario("M3: the sequencer goes on with the senders' numbers", ordering, "          lastOf,\n", "          () => 0,\n"),
  simulation("what is submitted and lost is submitted again", ordering, "if (nowMs >= this.#resendAtMs) this.#resend(nowMs);", ""),
  simulation("the sequencer looks after who lags", ordering, "if (nowMs >= this.#probeAtMs) {", "if (nowMs < 0) {"),
  simulation("a gap is asked for", ordering, "if (nowMs >= this.#nackAtMs) this.#nackMissing(nowMs);", ""),
  simulation(
    "who holds a packet gives it between two views too",
    ordering,
    "#receiveNack(message: Nack): void {",
    "#receiveNack(message: Nack): void {\n    if (this.stopped) return;",
  ),
  scenario(
    "a member catches up with a view that was installed without its knowing",
    ordering,
    "const next = sameView(",
    "const next = false && sameView(",
  ),
  scenario(
    "a member that receives nothing is taken out",
    ordering,
    "for (const nodeid of sequencer.stuck(this.#stuckMs, nowMs)) this.#host.stuck(nodeid);",
    "",
  ),
  simulation(
    "stable is what everybody has",
    sequencer,
    "stable = Math.min(stable, received);",
    "stable = Math.max(stable === this.highest ? 0 : stable, received);",
  ),
  simulation(
    "a packet is ordered once",
    sequencer,
    "n <= source.lastN || n > source.lastN + submitLimit || source.waiting.has(n)",
    "n > source.lastN + submitLimit",
  ),
  scenario("the window bounds what is not stable", sequencer, "if (this.highest - this.stable >= underWayLimit) return null;", ""),
  simulation(
    "a sender's packets are ordered in its order",
    sequencer,
    "const n = source.lastN + 1;\n      const body",
    "const n = source.waiting.keys().next().value ?? 0;\n      const body",
  ),
  simulation("a packet begun in one view is packed anew in the next", "dlmd/engine/builtin/sender.ts", "this.#nextN = lastN + 1;", ""),
  simulation(
    "a message that was half through is sent from its beginning",
    "dlmd/engine/builtin/sender.ts",
    "    this.#at = 0;\n    this.#offset = 0;\n    this.#nextN",
    "    this.#at = 0;\n    this.#nextN",
  ),
  simulation("half a message does not go over into the next view", groups, "this.#assemblers.clear();", ""),
  simulation("who does not know the groups sends nothing", ordering, "if (!this.#host.synced()) return;\n", ""),
  simulation(
    "a newcomer replays what came before the table",
    groups,
    "for (const { origin, message } of early) this.#change(this.#nameOf(message.group), origin, message);",
    "",
  ),
  simulation(
    "who is not in the view is in no group",
    groups,
    "for (const group of this.#groups.values()) this.#dropGone(group, here);",
    "",
  ),
  simulation("C4: nothing is ordered without a lease", engine, "&& nowMs < this.#leaseEndMs", ""),
  simulation("C4: nothing is ordered before others must have stopped", engine, "nowMs >= view.serveFromMs && nowMs", "nowMs"),
  simulation(
    "H4: of two proposals with one epoch only one is promised",
    agreement,
    "if (view.epoch <= this.promisedEpoch) return;",
    "if (view.epoch < this.promisedEpoch) return;",
  ),
  scenario(
    "H13: a main thread that stands still is left out",
    detector,
    " && nowMs - peer.movedMs < standstillShare * this.#timeoutMs",
    "",
  ),
  scenario("M1: acks of before a standstill do not count", detector, "peer.ackedMs = Number.NEGATIVE_INFINITY;", ""),
  scenario(
    "two_node waits for all after a start",
    quorum,
    "if ((options.waitForAll || options.twoNode) && !continued && !all)",
    "if (options.waitForAll && options.twoNode && all && !continued)",
  ),
  scenario(
    "C4: in two_node the lease ends when the peer is silent",
    quorum,
    'if (quorum.rule === "two-node") return [{ nodes, needed: count(nodes, members).votes }];',
    "",
  ),
  scenario(
    "the tie breaker decides exactly half",
    quorum,
    "const won = members.some((member) => member.nodeid === breaker);",
    "const won = members.length > 0;",
  ),
  simulation(
    "more than half of the votes",
    quorum,
    "Math.floor((expected + 2) / 2), Math.floor((votes + 2) / 2)",
    "Math.floor((expected + 1) / 2), Math.floor((votes + 1) / 2)",
  ),
  scenario(
    "last_man_standing: not before the window is over",
    membership,
    " || nowMs - view.installedMs < windowMs) return null;",
    ") return null;",
  ),
  scenario(
    "last_man_standing: who knows best who counts is believed, not who was there first",
    agreement,
    "if (a.id.epoch !== b.id.epoch) return b.id.epoch > a.id.epoch ? b : a;",
    "if (a.id.epoch !== b.id.epoch) return b.id.epoch > a.id.epoch ? a : b;",
  ),
  scenario(
    "last_man_standing: until a change is kept the majority of before counts as well",
    quorum,
    "if (electorate !== null && electorate.former !== null) {",
    "if (nodes.length === 0) {",
  ),
  scenario(
    "last_man_standing: the lease needs both majorities too",
    quorum,
    "const sets = electorate.former === null ? [electorate.nodeids] : [electorate.nodeids, electorate.former];",
    "const sets = [electorate.nodeids];",
  ),
  scenario(
    "last_man_standing: who comes back counts again",
    quorum,
    "stays(nodeid) || members.some((member) => member.nodeid === nodeid)",
    "stays(nodeid)",
  ),
  scenario("last_man_standing: a change is settled when all have it on disk", membership, "this.#agreement.settleElectorate();", ";"),
  simulation(
    "a node that proposes gives up when it is not answered",
    membership,
    "if (nowMs - proposal.sinceMs >= proposalShare * this.#boot.timeoutMs) return false;",
    "",
  ),
];
