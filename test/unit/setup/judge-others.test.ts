/** What other nodes say of their machines: which of it is shown, how a node that could not be asked is told, and what of a foreign report is believed. */
import { describe, expect, it } from "vitest";
import { MAX_CHECKED_BYTES } from "../../../dlmd/wire/self-check.ts";
import { jsonText, visibleLines } from "../../../overlay/cli/output.ts";
import { type Finding, type NodeFinding, describeFindings, exitStatusOf, judge, worstFirst } from "../../../overlay/setup/finding.ts";
import { readForeignReport } from "../../../overlay/setup/foreign-report.ts";
import {
  type CheckFact,
  MAX_TOLD_BYTES,
  MAX_TOLD_FINDINGS,
  MAX_TOLD_WORDS_BYTES,
  type OtherNode,
  judgeAll,
  toldToAnother,
} from "../../../overlay/setup/judge-others.ts";

const other = (check: CheckFact, tcp: OtherNode["tcp"] = { kind: "answers" }, name = "node2"): OtherNode => ({
  name,
  address: "10.0.0.2",
  tcp,
  check,
});
const checked = (...findings: Finding[]): CheckFact => ({ kind: "checked", findings });
const brief = (findings: readonly NodeFinding[]): string[] =>
  findings.map(({ node, status, check, about }) => `${node} ${status} ${check} ${about}`);
const kernel = judge("kernel", "this machine", "e");
const tcp = judge("port-tcp", "tcp 7701 of node3 (10.0.0.3)", "e");

describe("findings of all nodes", () => {
  it("have the node that they were found on, and the worst of all is the exit status", () => {
    const all = judgeAll([kernel.ok("o")], "node1", [other(checked(kernel.fail("old", "a"), kernel.ok("o")))], false);
    expect(brief(all)).toEqual([
      "node1 ok kernel this machine",
      "node1 ok doctor node2 (10.0.0.2)",
      "node2 fail kernel this machine",
      "node2 ok kernel this machine",
    ]);
    expect(exitStatusOf(all)).toBe(2);
  });

  it("about the network are told once, and only where something is not well; clocks as this node sees them", () => {
    const own = [tcp.fail("f", "a")];
    const clock = judge("clock", "node1 (10.0.0.1)", "e");
    const udp = judge("port-udp", "udp 7701 from node3 to node2", "e");
    const third = other(checked(udp.fail("f", "a"), tcp.ok("o")), { kind: "answers" }, "node3");
    const all = judgeAll(own, "node1", [other(checked(tcp.fail("f", "a"), clock.warn("f", "a"), udp.fail("f", "a"))), third], false);
    expect(brief(all).filter((line) => !line.includes("doctor"))).toEqual([
      "node1 fail port-tcp tcp 7701 of node3 (10.0.0.3)",
      "node2 fail port-udp udp 7701 from node3 to node2",
    ]);
    // Where it is well here, the other node has another way.
    expect(brief(judgeAll([tcp.ok("o")], "node1", [other(checked(tcp.fail("f", "a")))], false))).toContain(
      "node2 fail port-tcp tcp 7701 of node3 (10.0.0.3)",
    );
  });

  it.each<[string, CheckFact, OtherNode["tcp"], string, string]>([
    [
      "an earlier dlmd",
      { kind: "earlier", words: "frame of kind 6" },
      { kind: "answers" },
      "of an earlier version, and cannot be asked",
      "Upgrade it, or run there",
    ],
    ["another key", { kind: "wrong-key", words: "no key" }, { kind: "answers" }, "another key", "the same key file"],
    [
      "a dlmd that stands still",
      { kind: "other", words: "no answer within 4000 ms" },
      { kind: "answers" },
      "no answer within 4000 ms",
      "log of dlmd",
    ],
    ["no dlmd", { kind: "none" }, { kind: "refused" }, "no dlmd answers there: connection refused", "Start dlmd on node2"],
    ["silence", { kind: "none" }, { kind: "silent" }, "no dlmd answers there: silence", "Start dlmd on node2"],
    ["no machine", { kind: "none" }, { kind: "unreachable", words: "EHOSTUNREACH" }, "EHOSTUNREACH", "Start dlmd on node2"],
    ["no key here", { kind: "none" }, { kind: "answers" }, "no key here", "of the key"],
  ])("%s is not known, in words, with what to do", (_, check, connection, found, action) => {
    const all = judgeAll([], "node1", [other(check, connection)], false);
    expect(all).toMatchObject([{ node: "node1", check: "doctor", status: "unknown", about: "node2 (10.0.0.2)" }]);
    expect(all[0]?.found).toContain(found);
    expect(all[0]?.action).toContain(action);
    expect(exitStatusOf(all)).toBe(1);
  });

  it("before dlmd runs say that the others were not looked at, which is well; one that runs and does not answer is not", () => {
    expect(judgeAll([], "node1", [other({ kind: "none" }, { kind: "refused" })], true)).toMatchObject([
      { status: "ok", found: expect.stringContaining("not looked at") as unknown },
    ]);
    expect(judgeAll([], "node1", [other({ kind: "other", words: "w" })], true)).toMatchObject([{ status: "unknown" }]);
  });

  it("are named with their node as lines; what is well elsewhere is one line, and a foreign word commands no terminal", () => {
    const forged = judge("device", "/dev/a\u001b[2J\nok       node2: fstab: x: well", "e").fail("\u009b31m\u202e", "rm\r");
    const all = judgeAll([kernel.ok("o")], "node1", [other(checked(kernel.ok("o"), kernel.ok("p"), forged))], false);
    const lines = visibleLines(describeFindings(worstFirst(all), "node1"));
    expect(lines).toEqual([
      "fail     node2: device: /dev/a\\x1b[2J\\x0aok       node2: fstab: x: well",
      "           expected: e",
      "           found:    \\x9b31m\\u202e",
      "           do:       rm\\x0d",
      "ok       node1: kernel: this machine: o",
      "ok       node1: doctor: node2 (10.0.0.2): 3 findings",
      "ok       node2: 2 checks there are well",
      "1 failed, 0 warnings, 0 not known, 4 well",
    ]);
    expect(describeFindings(judgeAll([kernel.ok("o")], "node1", [], false), "node1").split("\n")[0]).toBe(
      "ok       kernel: this machine: o",
    );
  });
});

/** As it is printed there. */
const sent = (findings: readonly Finding[]): string => jsonText({ node: "node2", findings });

describe("what another node is told", () => {
  it("is all of this machine, and of the network what is not well; the worst first", () => {
    const told = toldToAnother([
      kernel.ok("o"),
      tcp.ok("o"),
      judge("clock", "c", "e").warn("f", "a"),
      judge("fstab", "f", "e").fail("f", "a"),
    ]);
    expect(told.map(({ check }) => check)).toEqual(["fstab", "clock", "kernel"]);
  });

  it("has a number and a length, and says what is left out", () => {
    const many = Array.from({ length: MAX_TOLD_FINDINGS + 3 }, (_, at) => judge("device", String(at), "e").ok("o"));
    const told = toldToAnother([...many, kernel.fail("f", "a")]);
    expect(told).toHaveLength(MAX_TOLD_FINDINGS + 1);
    expect(told[0]?.status).toBe("fail");
    expect(told.at(-1)).toMatchObject({ check: "doctor", status: "unknown", found: "4 more are left out" });
    expect(readForeignReport(sent(told), "node2")).toEqual(told);
    const longest = "x".repeat(MAX_TOLD_WORDS_BYTES);
    const long = Array.from({ length: 1 + MAX_TOLD_BYTES / MAX_TOLD_WORDS_BYTES }, () => judge("device", longest, "e").ok("o"));
    const [left = "", ...more] = toldToAnother(long).flatMap(({ check, found }) => (check === "doctor" ? [found] : []));
    expect(left).toMatch(/^[2-9] more are left out$/);
    expect(more).toEqual([]);
  });

  it.each([
    [
      "a device that is mounted in many namespaces",
      Array.from({ length: 200 }, (_, at) => `/var/lib/containers/storage/overlay/${at}/merged/srv`).join(", "),
    ],
    ["a word that is longer than all that is told", "y".repeat(MAX_TOLD_BYTES + 1)],
    ["one of long signs", "\u20ac".repeat(MAX_TOLD_BYTES)],
    ["one of signs that are sent as more than they are", "\u0001\u202e".repeat(MAX_TOLD_BYTES)],
  ])("has the failure in it, cut short: %s", (_, words) => {
    const about = judge("mounts", words, words);
    const told = toldToAnother([kernel.ok("o"), about.fail(words, words), about.fail("no", "a"), about.warn(words, "a")]);
    expect(told.map(({ status }) => status)).toEqual(["fail", "fail", "warn", "ok"]);
    expect(told[0]?.found).toMatch(/\.\.\.$/);
    expect(Buffer.byteLength(sent(told))).toBeLessThan(MAX_CHECKED_BYTES);
    expect(readForeignReport(sent(told), "node2")).toEqual(told);
  });

  it("passes over what has no room, and goes on with what has", () => {
    const wide = "\u0001".repeat(MAX_TOLD_WORDS_BYTES);
    const about = judge("device", wide, wide);
    const told = toldToAnother([
      about.fail(wide, wide),
      about.fail("other", wide),
      judge("fstab", "f", "e").fail("f", "a"),
      kernel.ok("o"),
    ]);
    expect(told.map(({ check, found }) => `${check} ${found.slice(0, 20)}`).slice(1)).toEqual([
      "fstab f",
      "kernel o",
      "doctor 1 more are left out",
    ]);
    expect(Buffer.byteLength(sent(told))).toBeLessThan(MAX_CHECKED_BYTES);
  });
});

describe("a foreign report", () => {
  const good = { ...kernel.ok("o"), more: 1 };
  const text = (...findings: object[]): string => JSON.stringify({ node: "node2", findings, later: true });

  it("is read, also with more in it than is known", () => {
    expect(readForeignReport(text(good), "node2")).toEqual([kernel.ok("o")]);
    expect(readForeignReport(text({ ...good, check: "later-check" }), "node2")).toHaveLength(1);
  });

  it.each([
    ["no JSON", "coverlay: internal error", "its answer is no JSON"],
    ["lists in lists", "[".repeat(100_000), "its answer is no JSON"],
    ["another value", "[]", "its answer is no report"],
    ["a status that is none", text({ ...good, status: "well" }), "its answer is no report"],
    ["a check with signs", text({ ...good, check: "a\u001b[2J" }), "its answer is no report"],
    ["a word that is missing", text({ ...good, action: undefined }), "its answer is no report"],
    ["a word that is too long", text({ ...good, found: "x".repeat(16 * 1024 + 1) }), "its answer is no report"],
    ["too many findings", text(...Array.from({ length: MAX_TOLD_FINDINGS + 2 }, () => good)), "its answer is no report"],
    ["another node", JSON.stringify({ node: "node3", findings: [] }), "node node3 answers there"],
    ["a machine that is no node", JSON.stringify({ node: null, findings: [] }), "a machine that is no node answers there"],
  ])("with %s is not believed", (_, json, words) => {
    expect(readForeignReport(json, "node2")).toContain(words);
  });

  it("with the longest words is read", () => {
    expect(readForeignReport(text({ ...good, found: "x".repeat(16 * 1024) }), "node2")).toHaveLength(1);
  });
});
