/**
 * What a check says. Pure. `coverlay doctor` prints findings, and `coverlay setup` stops at a failure. A check that could not look says
 * "unknown": it never takes silence for health.
 */

export type FindingStatus = "ok" | "warn" | "fail" | "unknown";

/** What is checked. The names are stable: programs read them. */
export type CheckName =
  | "doctor"
  | "config"
  | "config-same"
  | "key"
  | "key-same"
  | "address"
  | "name"
  | "dlmd"
  | "quorum"
  | "port-tcp"
  | "port-udp"
  | "multicast"
  | "clock"
  | "device"
  | "file-system"
  | "bit"
  | "mmp"
  | "owner"
  | "same-disk"
  | "fstab"
  | "mounts"
  | "fuse"
  | "kernel"
  | "memory"
  | "node-version";

export interface Finding {
  readonly check: CheckName;
  /** Which node, port, device or file: "tcp 7701 of node2 (10.0.0.2)". */
  readonly about: string;
  readonly status: FindingStatus;
  readonly expected: string;
  readonly found: string;
  /** What to do; "" where all is well. */
  readonly action: string;
}

/** With the node that it was found on; null: this machine, which is none of the cluster's. */
export interface NodeFinding extends Finding {
  readonly node: string | null;
}

/** How a finding is made: its check and its subject once, then what was found. */
export interface Judge {
  readonly ok: (found: string) => Finding;
  readonly warn: (found: string, action: string) => Finding;
  readonly fail: (found: string, action: string) => Finding;
  readonly unknown: (found: string, action: string) => Finding;
}

export function judge(check: CheckName, about: string, expected: string): Judge {
  const finding =
    (status: FindingStatus) =>
    (found: string, action = ""): Finding => ({ check, about, status, expected, found, action });
  return { ok: finding("ok"), warn: finding("warn"), fail: finding("fail"), unknown: finding("unknown") };
}

/** A check that did not come to its end in its time. */
export function crossedLimit(check: CheckName, about: string, limitMs: number): Finding {
  return judge(check, about, `an answer within ${limitMs / 1000} s`).unknown(
    `none: the check was given up after ${limitMs / 1000} s`,
    "What it looks at does not answer: see dmesg and the network, or give the checks more time with --limit.",
  );
}

/** 0: all is well. 1: a warning, or something that could not be looked at. 2: a failure. */
export function exitStatusOf(findings: readonly Finding[]): 0 | 1 | 2 {
  if (findings.some(({ status }) => status === "fail")) return 2;
  return findings.some(({ status }) => status !== "ok") ? 1 : 0;
}

const ORDER: readonly FindingStatus[] = ["fail", "warn", "unknown", "ok"];

/** The worst first; those of one status stay in their order. */
export function worstFirst<F extends Finding>(findings: readonly F[]): F[] {
  return findings.toSorted((a, b) => ORDER.indexOf(a.status) - ORDER.indexOf(b.status));
}

/** A name that another machine chose must not look like a finding of its own. */
const oneLine = (text: string): string => text.replaceAll("\n", "\\x0a");

/** For people: what is well in a line each, or in one for another node; the rest with what to do. `self`: the node that they are shown on. */
export function describeFindings(findings: readonly NodeFinding[], self: string | null): string {
  const isOfMany = findings.some(({ node }) => node !== self);
  const isElsewhere = ({ status, node }: NodeFinding): boolean => status === "ok" && node !== self;
  const shown = findings.filter((finding) => !isElsewhere(finding));
  const lines = shown.flatMap(({ node, status, check, about, expected, found, action }) => {
    const head = `${status.padEnd(7)}  ${isOfMany ? `${node ?? "this machine"}: ` : ""}${check}: ${about}`;
    if (status === "ok") return [`${head}: ${found}`];
    return [head, `           expected: ${expected}`, `           found:    ${found}`, `           do:       ${action}`];
  });
  const well = new Map<string | null, number>();
  for (const { node } of findings.filter(isElsewhere)) well.set(node, (well.get(node) ?? 0) + 1);
  for (const [node, checks] of well) lines.push(`ok       ${node}: ${checks} checks there are well`);
  const count = (status: FindingStatus): number => findings.filter((finding) => finding.status === status).length;
  const sum = `${count("fail")} failed, ${count("warn")} warnings, ${count("unknown")} not known, ${count("ok")} well`;
  return [...lines.map(oneLine), sum].join("\n");
}
