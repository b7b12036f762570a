/** Whether a simulated cluster could have two quorums, by what its nodes know: of the living in memory, of the others on disk (hazard C8). */
import { agreesTo, quorumOf, type QuorumBasis } from "../../dlmd/membership/quorum.ts";
import { laterOf } from "../../dlmd/config/record.ts";
import { type Counting, laterCounting } from "../../dlmd/wire/view-id.ts";
import type { SimNode } from "./cluster-node.ts";

interface Knowing {
  readonly nodeid: number;
  readonly basis: QuorumBasis;
  readonly counting: Counting;
  readonly agreed: boolean;
  /** It has been in a quorate view since it started. */
  readonly continued: boolean;
}

function knowing({ nodeid, alive, core, config, storedLineage }: SimNode): Knowing {
  if (alive) {
    const { basis, counting, agreed, lineage } = core.engine.membership;
    return { nodeid, basis, counting, agreed, continued: lineage.epoch > 0 };
  }
  const { version, nodes, quorum, former, counting: told = null, agreed = true } = config.counted;
  const counting = laterOf(storedLineage, told) ?? storedLineage;
  return { nodeid, basis: { version, nodes, options: quorum, former }, counting, agreed, continued: false };
}

function knows({ nodes, former }: QuorumBasis, nodeid: number): boolean {
  return [...nodes, ...(former ?? [])].some((node) => node.nodeid === nodeid);
}

/** As a member counts that proposes a view of exactly those: the latest configuration of them, the latest view of them. None says no. */
function couldBeQuorate(members: readonly Knowing[]): boolean {
  const highest = Math.max(...members.map(({ basis }) => basis.version));
  const { electorate } = members.map(({ counting }) => counting).reduce(laterCounting);
  const continued = members.some((member) => member.continued);
  const ofFile = !members.some(({ basis, agreed }) => basis.version === highest && agreed);
  return members.some(({ basis: own }) => {
    const basis = { ...own, ofFile };
    if (basis.version !== highest || !members.every(({ nodeid }) => knows(basis, nodeid))) return false;
    const counted = { configVersion: basis.version, open: basis.former !== undefined, electorate };
    return quorumOf(basis, members, continued, electorate).quorate && members.every((each) => agreesTo(each.basis, members, counted));
  });
}

/** Two sets without a common node of which each could make a quorate view now; null: there are none. */
export function quorateHalves(nodes: readonly SimNode[]): readonly [readonly number[], readonly number[]] | null {
  // With a file of its own a node is refused by all others.
  const all = nodes.filter(({ config }) => !config.isStray).map(knowing);
  const membersOf = (set: number): Knowing[] => all.filter((_, at) => (set & (1 << at)) !== 0);
  const quorate: number[] = [];
  for (let set = 1; set < 1 << all.length; set++) {
    if (!couldBeQuorate(membersOf(set))) continue;
    const other = quorate.find((former) => (former & set) === 0);
    if (other !== undefined) return [membersOf(other).map(({ nodeid }) => nodeid), membersOf(set).map(({ nodeid }) => nodeid)];
    quorate.push(set);
  }
  return null;
}
