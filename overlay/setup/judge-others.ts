/**
 * What the other nodes' own checks say, beside those of this node. Pure: facts in, findings out. A dlmd that was asked runs `coverlay doctor`
 * on its machine (dlmd/wire/self-check.ts). A node that could not be asked is a finding too.
 */
import { shortened } from "../../dlmd/wire/fence-life.ts";
import { visibleInJson } from "../status/visible.ts";
import { type CheckName, type Finding, type NodeFinding, judge, worstFirst } from "./finding.ts";
import type { TcpFact } from "./judge-nodes.ts";

/** What came of a question to a node for a check of its machine. */
export type CheckFact =
  | { readonly kind: "checked"; readonly findings: readonly Finding[] }
  /** Its dlmd is of a version that does not know the question. */
  | { readonly kind: "earlier"; readonly words: string }
  | { readonly kind: "wrong-key"; readonly words: string }
  /** It answers, and does not check. */
  | { readonly kind: "other"; readonly words: string }
  /** There is no connection, or no key here to ask with. */
  | { readonly kind: "none" };

export interface OtherNode {
  readonly name: string;
  readonly address: string;
  readonly tcp: TcpFact;
  readonly check: CheckFact;
}

/** What each node says of all: of other nodes it is shown only where it is not well, and nobody else has said it. */
const OF_THE_NETWORK: ReadonlySet<CheckName> = new Set<CheckName>([
  "dlmd",
  "quorum",
  "port-tcp",
  "port-udp",
  "multicast",
  "clock",
  "key-same",
  "config-same",
]);

/** Of an answer: findings that are left out are the best ones, and those for which the rest has no room. */
export const MAX_TOLD_FINDINGS = 500;
/** As they are printed. With what is around them that is less than dlmd sends (MAX_CHECKED_BYTES). */
export const MAX_TOLD_BYTES: number = 160 * 1024;
/** Of each word of a finding: a longer one is cut. Four, each sign of which is printed as six, have room above: so the worst finding is always told. */
export const MAX_TOLD_WORDS_BYTES: number = 4 * 1024;

const cutShort = ({ check, about, status, expected, found, action }: Finding): Finding => ({
  check,
  about: shortened(about, MAX_TOLD_WORDS_BYTES),
  status,
  expected: shortened(expected, MAX_TOLD_WORDS_BYTES),
  found: shortened(found, MAX_TOLD_WORDS_BYTES),
  action: shortened(action, MAX_TOLD_WORDS_BYTES),
});

const printedBytes = (finding: Finding): number => Buffer.byteLength(visibleInJson(JSON.stringify(finding)));

/** What another node is told of this one: each finding of this machine, and of the network what is not well. */
export function toldToAnother(findings: readonly Finding[]): Finding[] {
  const wanted = worstFirst(findings.filter(({ check, status }) => status !== "ok" || !OF_THE_NETWORK.has(check)));
  const told: Finding[] = [];
  let bytes = 0;
  for (const finding of wanted.map(cutShort)) {
    const more = printedBytes(finding);
    if (told.length >= MAX_TOLD_FINDINGS || bytes + more > MAX_TOLD_BYTES) continue;
    bytes += more;
    told.push(finding);
  }
  const left = wanted.length - told.length;
  if (left === 0) return told;
  const cut = judge("doctor", "this machine", "all findings in one answer").unknown(
    `${left} more are left out`,
    "See all: coverlay doctor --here",
  );
  return [...told, cut];
}

/** `own`: of this node, whose name is `self`. `isBefore`: dlmd is to run nowhere yet. */
export function judgeAll(own: readonly Finding[], self: string | null, others: readonly OtherNode[], isBefore: boolean): NodeFinding[] {
  const all: NodeFinding[] = [...own, ...others.map((other) => judgeOther(other, isBefore))].map((finding) => ({ ...finding, node: self }));
  const keyOf = ({ check, about }: Finding): string => `${check} ${about}`;
  const known = new Set(own.filter(({ status }) => status !== "ok").map(keyOf));
  for (const { name, check } of others) {
    if (check.kind !== "checked") continue;
    for (const finding of check.findings) {
      if (OF_THE_NETWORK.has(finding.check)) {
        // Clocks are told as they differ from this one.
        if (finding.status === "ok" || finding.check === "clock" || known.has(keyOf(finding))) continue;
        known.add(keyOf(finding));
      }
      all.push({ ...finding, node: name });
    }
  }
  return all;
}

function judgeOther({ name, address, tcp, check }: OtherNode, isBefore: boolean): Finding {
  const doctor = judge("doctor", `${name} (${address})`, "its dlmd lets it check its own disks, fstab, kernel and memory");
  const there = `run there: coverlay doctor --here`;
  switch (check.kind) {
    case "checked":
      return doctor.ok(`${check.findings.length} findings`);
    case "earlier":
      return doctor.unknown(`its dlmd is of an earlier version, and cannot be asked: ${check.words}`, `Upgrade it, or ${there}`);
    case "wrong-key":
      return doctor.unknown(`its dlmd has another key: ${check.words}`, `Give both the same key file. Until then ${there}`);
    case "other":
      return doctor.unknown(check.words, `Look at the log of dlmd on ${name}, and ${there}`);
    case "none":
      if (isBefore && tcp.kind !== "answers") {
        return doctor.ok("not looked at: no dlmd is to run there yet. When it does, coverlay doctor looks at all nodes");
      }
      if (tcp.kind === "answers") return doctor.unknown("there is no key here to ask it with", "See what is said of the key.");
      return doctor.unknown(
        `no dlmd answers there: ${tcp.kind === "unreachable" ? tcp.words : tcp.kind === "refused" ? "connection refused" : "silence"}`,
        `See what is said of its port. Start dlmd on ${name}, or ${there}`,
      );
  }
}
