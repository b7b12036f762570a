/** What happened to the cluster: views and fences as one list, in words. Pure. */
import type { PastFence, PastView } from "../status/facts.ts";

/** "good": a node came, or quorum; "bad": quorum went, or a fence failed; "note": anything else. */
export type Mood = "good" | "bad" | "note";

export interface HistoryEntry {
  /** The same in each snapshot. */
  readonly id: string;
  readonly kind: "view" | "fence";
  /** CLOCK_REALTIME of the node that recorded it. */
  readonly atMs: number;
  readonly title: string;
  readonly words: string;
  readonly mood: Mood;
}

type Name = (nodeid: number) => string;

/** The latest first. */
export function historyOf(views: readonly PastView[], fences: readonly PastFence[], name: Name): HistoryEntry[] {
  const entries = [
    ...views.map((view, at) => viewEntry(view, views[at - 1] ?? null, name)),
    ...fences.map((fence) => fenceEntry(fence, name)),
  ];
  return entries.toSorted((a, b) => b.atMs - a.atMs);
}

function viewEntry(view: PastView, before: PastView | null, name: Name): HistoryEntry {
  const { viewId, members, quorumReason, atMs } = view;
  const { title, mood } = changeOf(view, before, name);
  const epoch = viewId.split(".")[0] ?? "";
  // The rule of the quorum is in the header of the page.
  const votes = quorumReason.split(" because ")[0] ?? "";
  return { id: `view ${viewId}`, kind: "view", atMs, title, words: `view ${epoch}: ${listed(members, name)}; ${votes}`, mood };
}

function changeOf(view: PastView, before: PastView | null, name: Name): { readonly title: string; readonly mood: Mood } {
  const { members, quorate } = view;
  if (before === null) return { title: `first view, with ${listed(members, name)}`, mood: quorate ? "good" : "note" };
  const went = before.members.filter((nodeid) => !members.includes(nodeid));
  const came = members.filter((nodeid) => lifeIn(before, nodeid) === null);
  const anew = members.filter((nodeid) => ![null, lifeIn(view, nodeid)].includes(lifeIn(before, nodeid)));
  const parts = [
    ...(went.length === 0 ? [] : [`${listed(went, name)} went`]),
    ...(came.length === 0 ? [] : [`${listed(came, name)} came`]),
    ...(anew.length === 0 ? [] : [`${listed(anew, name)} came back in another life`]),
    ...(before.quorate && !quorate ? ["quorum lost"] : []),
    ...(!before.quorate && quorate ? ["quorum reached"] : []),
  ];
  const mood = quorate ? (went.length === 0 && parts.length > 0 ? "good" : "note") : before.quorate ? "bad" : "note";
  return { title: parts.length === 0 ? "the same members agreed again" : parts.join("; "), mood };
}

/** Null: it is not in it. */
function lifeIn({ members, incarnations }: PastView, nodeid: number): string | null {
  const at = members.indexOf(nodeid);
  return at < 0 ? null : (incarnations[at] ?? "");
}

function listed(nodeids: readonly number[], name: Name): string {
  return nodeids.length === 0 ? "no node" : nodeids.map(name).join(", ");
}

const fenceTitles: Readonly<Record<string, (node: string) => string>> = {
  fenced: (node) => `${node} was fenced`,
  acknowledged: (node) => `${node} was said to be off`,
  failed: (node) => `fencing ${node} failed`,
  returned: (node) => `${node} is back in the same boot`,
  rebooted: (node) => `${node} is back in another boot`,
  refused: (node) => `a fence of ${node} was refused`,
  known: (node) => `${node} was known before to write no more`,
};

function fenceEntry({ nodeid, outcome, by, words, atMs }: PastFence, name: Name): HistoryEntry {
  const node = name(nodeid);
  const title = Object.hasOwn(fenceTitles, outcome) ? fenceTitles[outcome]?.(node) : undefined;
  const mood = outcome === "failed" || outcome === "refused" ? "bad" : outcome === "returned" || outcome === "rebooted" ? "good" : "note";
  return {
    id: `fence ${nodeid} ${outcome} ${atMs}`,
    kind: "fence",
    atMs,
    title: title ?? `${node}: ${outcome}`,
    words: [...(by === "" ? [] : [`by ${by}`]), ...(words === "" ? [] : [words])].join("; "),
    mood,
  };
}
