/** The figures for Prometheus: the text format's grammar, names and units, and that the examples ask for what there is. */
import {
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { parse } from "yaml";
import { expose, replaceFile } from "../../../overlay/cli/metrics.ts";
import { runCli } from "../../../overlay/cli/root.ts";
import type { NodeFacts } from "../../../overlay/status/facts.ts";
import { type MetricRow, metricRows } from "../../../overlay/status/metric-rows.ts";
import { problemCodes } from "../../../overlay/status/problem.ts";
import { reportOf } from "../../../overlay/status/report.ts";
import { aWait, nodeWith, wellMount, wellNode } from "./node.ts";

const root = path.resolve(import.meta.dirname, "../../..");
const last = { fromNodeid: 3, toNodeid: 2, pauseMs: 1500, atMs: 999_000, reason: "gone" };
const full: NodeFacts = {
  ...nodeWith(
    {},
    {
      ownerChanges: { count: 2, last, withoutMs: null },
      calls: { count: 2, longest: { op: "READ", pid: 1, program: "", waitingMs: 2500 } },
    },
  ),
  waits: [aWait],
};
const rowsOf = (facts: NodeFacts): MetricRow[] => metricRows(facts, reportOf(facts), "0.1.0");
const textOf = (facts: NodeFacts): Promise<string> => expose(rowsOf(facts));

let dir = "";
afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
  if (dir !== "") rmSync(dir, { recursive: true });
  dir = "";
});

/** Prometheus' text format 0.0.4: a family at a time, HELP and TYPE first. Gives the samples; throws at the first line that is not of it. */
function parseExposition(text: string): { readonly name: string; readonly labels: Record<string, string>; readonly value: number }[] {
  const samples: { name: string; labels: Record<string, string>; value: number }[] = [];
  const families = new Set<string>();
  let family = "";
  const [end, ...lines] = text.split("\n").toReversed();
  if (end !== "") throw new Error("the last line has no end");
  for (const line of lines.toReversed()) {
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ((?:[^\\\n]|\\\\|\\n)+)$/.exec(line);
    if (help !== null) {
      family = help[1] ?? "";
      if (families.has(family)) throw new Error(`${family} is told of twice`);
      families.add(family);
      continue;
    }
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge)$/.exec(line);
    if (type !== null && type[1] === family) continue;
    if (line === "") continue;
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/.exec(line);
    if (sample === null || sample[1] !== family) throw new Error(`not a line of the format, in family ${family}: ${line}`);
    const labels: Record<string, string> = {};
    let rest = sample[2] ?? "";
    while (rest !== "") {
      const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)/.exec(rest);
      if (label === null) throw new Error(`not a label: ${rest}`);
      labels[label[1] ?? ""] = (label[2] ?? "").replace(/\\(.)/g, (_, sign: string) => (sign === "n" ? "\n" : sign));
      rest = rest.slice(label[0].length);
    }
    const key = JSON.stringify([
      family,
      Object.keys(labels)
        .toSorted()
        .map((label) => [label, labels[label]]),
    ]);
    if (families.has(key)) throw new Error(`the sample is there twice: ${line}`);
    families.add(key);
    samples.push({ name: family, labels, value: Number(sample[3]) });
  }
  return samples;
}

describe("the text", () => {
  it("is of the format, and says what is known", async () => {
    const samples = parseExposition(await textOf(full));
    const value = (name: string, labels: Record<string, string> = {}): number | undefined =>
      samples.find((one) => one.name === `coverlay_${name}` && JSON.stringify(one.labels) === JSON.stringify(labels))?.value;
    const mount = { volume: "data", mountpoint: "/shared" };
    expect(value("info", { cluster: "demo", node: "node1", version: "0.1.0" })).toBe(1);
    expect([value("level"), value("dlmd_up"), value("quorate"), value("locks_granted")]).toEqual([1, 1, 1, 1]);
    expect(value("problems", { code: "lock-wait", level: "degraded" })).toBe(1);
    expect(samples.filter(({ name }) => name === "coverlay_problems")).toHaveLength(problemCodes.length);
    expect([value("nodes"), value("view_members"), value("node_member", { node: "node3" })]).toEqual([3, 3, 1]);
    expect(value("node_multicast_silence_seconds", { node: "node2" })).toBe(0.04);
    expect(value("volume_owner", { volume: "home", node: "node3" })).toBe(1);
    expect([value("mount_up", mount), value("mount_well", mount), value("mount_is_owner", mount), value("mount_read_only", mount)]).toEqual(
      [1, 1, 0, 0],
    );
    expect([value("mount_owner_changes_total", mount), value("mount_last_owner_change_duration_seconds", mount)]).toEqual([2, 1.5]);
    expect([value("mount_last_owner_change_timestamp_seconds", mount), value("mount_without_owner_seconds", mount)]).toEqual([999, 0]);
    expect([value("mount_calls", mount), value("mount_longest_call_seconds", mount)]).toEqual([2, 2.5]);
    expect([value("mount_requests_total", mount), value("mount_memory_bytes", mount)]).toEqual([12, 6000]);
    expect([value("lock_waits", { kind: "inode" }), value("lock_longest_wait_seconds", { kind: "inode" })]).toEqual([1, 10]);
    expect([value("collection_timestamp_seconds"), value("collection_duration_seconds")]).toEqual([1000, 0.007]);
  });

  it("has the wait of a mount, however many file locks are waited for", async () => {
    const files = Array.from({ length: 50 }, () => ({ ...aWait, kind: "file" as const, waitingMs: 3_600_000 }));
    const samples = parseExposition(await textOf({ ...full, waits: [...files, aWait] }));
    const ofKind = (name: string): [string | undefined, number][] =>
      samples.filter((one) => one.name === `coverlay_${name}`).map(({ labels, value }) => [labels["kind"], value]);
    expect([ofKind("lock_waits"), ofKind("lock_longest_wait_seconds")]).toEqual([
      [
        ["inode", 1],
        ["file", 50],
        ["other", 0],
      ],
      [
        ["inode", 10],
        ["file", 3600],
        ["other", 0],
      ],
    ]);
  });

  it("leaves out what dlmd alone knows, if it cannot be asked, and what a silent mount has not said", async () => {
    const error = { error: "dlmd expected", code: "dlmd-not-running", hint: "Start dlmd" };
    const mounts = [
      { ...wellMount, problem: "silent", ownerChanges: null, ownerNodeid: null, calls: null, lease: null, readOnly: null, figures: {} },
    ];
    const samples = parseExposition(await textOf({ ...wellNode, cluster: null, error, mounts }));
    const names = new Set(samples.map(({ name }) => name.replace("coverlay_", "")));
    expect(samples.find(({ name }) => name === "coverlay_level")?.value).toBe(3);
    expect(samples.find(({ name }) => name === "coverlay_dlmd_up")?.value).toBe(0);
    expect(names).toEqual(
      new Set(
        "info level problems dlmd_up collection_timestamp_seconds collection_duration_seconds volume_mounts mount_up mount_well mount_is_owner".split(
          " ",
        ),
      ),
    );
    expect(samples.find(({ name }) => name === "coverlay_mount_up")?.value).toBe(0);
  });

  it("a hostile name stays in its label", async () => {
    const mountpoint = '/mnt/"} 1\ncoverlay_level 0\n\u001b[2J\\';
    const text = await textOf({ ...full, mounts: [{ ...wellMount, mountpoint }] });
    const samples = parseExposition(text);
    expect(new Set(samples.flatMap(({ labels }) => labels["mountpoint"] ?? []))).toEqual(
      new Set(['/mnt/"} 1\\x0acoverlay_level 0\\x0a\\x1b[2J\\']),
    );
    expect(samples.filter(({ name }) => name === "coverlay_level")).toHaveLength(1);
    // oxlint-disable-next-line no-control-regex
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
  });

  it("has names by the rules: a unit at the end, counters in _total, one set of labels for each, and help", () => {
    const rows = rowsOf(full);
    for (const { name, type, help, samples } of rows) {
      expect(name).toMatch(/^coverlay_[a-z]+(_[a-z]+)*$/);
      expect([name, name.endsWith("_total")]).toEqual([name, type === "counter"]);
      expect(name).not.toMatch(/_(ms|milliseconds|kb|minutes)\b/);
      expect(help.length).toBeGreaterThan(10);
      expect(new Set(samples.map(({ labels }) => Object.keys(labels).join())).size).toBeLessThan(2);
    }
    expect(new Set(rows.map(({ name }) => name)).size).toBe(rows.length);
  });
});

describe("the file", () => {
  it("is replaced as a whole, and nothing else is left", () => {
    dir = mkdtempSync(path.join(tmpdir(), "coverlay-metrics-"));
    const file = path.join(dir, "coverlay.prom");
    writeFileSync(file, "before\n");
    const { ino } = statSync(file);
    replaceFile(file, "after\n");
    expect([readFileSync(file, "utf8"), readdirSync(dir), statSync(file).mode & 0o777]).toEqual(["after\n", ["coverlay.prom"], 0o644]);
    expect(statSync(file).ino).not.toBe(ino);
    expect(() => replaceFile(path.join(dir, "not/there.prom"), "x")).toThrow(/could not be written to/);
  });

  it("is never written through what another user has put in its way", () => {
    dir = mkdtempSync(path.join(tmpdir(), "coverlay-metrics-"));
    const file = path.join(dir, "coverlay.prom");
    const victim = path.join(dir, "victim");
    writeFileSync(victim, "of root\n");
    const made = `${file}.${process.pid}.new`;
    symlinkSync(victim, made);
    replaceFile(file, "after\n");
    expect([readFileSync(victim, "utf8"), readFileSync(file, "utf8"), lstatSync(file).isFile()]).toEqual(["of root\n", "after\n", true]);
    // What a run left that was killed.
    linkSync(victim, made);
    replaceFile(file, "again\n");
    expect([readFileSync(victim, "utf8"), readFileSync(file, "utf8"), readdirSync(dir)]).toEqual([
      "of root\n",
      "again\n",
      ["coverlay.prom", "victim"],
    ]);
    mkdirSync(made);
    expect(() => replaceFile(file, "x")).toThrow(
      expect.objectContaining({ code: "not-written", message: expect.stringContaining(made) as string }),
    );
    expect(readdirSync(dir)).toEqual(["coverlay.prom", path.basename(made), "victim"]);
  });

  it("is written by the command, whatever it says; without --output it goes to stdout", async () => {
    dir = mkdtempSync(path.join(tmpdir(), "coverlay-metrics-"));
    const file = path.join(dir, "coverlay.prom");
    let stdout = "";
    vi.spyOn(process.stdout, "write").mockImplementation((text) => ((stdout += String(text)), true));
    await runCli(["metrics", "--run-dir", dir, "--output", file]);
    expect([process.exitCode, stdout]).toEqual([0, ""]);
    const samples = parseExposition(readFileSync(file, "utf8"));
    expect(samples.find(({ name }) => name === "coverlay_dlmd_up")?.value).toBe(0);
    await runCli(["metrics", "--run-dir", dir]);
    expect(parseExposition(stdout).map(({ name }) => name)).toEqual(samples.map(({ name }) => name));
  });
});

/** The metrics that an expression of PromQL names, with the labels that it asks for; it knows the few functions that the examples use. */
function askedFor(expression: string): { readonly name: string; readonly labels: readonly string[] }[] {
  return [...expression.matchAll(/\b(coverlay_[a-z_]+)\b(?:\{([^}]*)\})?/g)].map(([, name = "", selector = ""]) => ({
    name,
    labels: [...selector.matchAll(/([a-z_]+)\s*(?:=~|!=|!~|=)/g)].map(([, label]) => label ?? ""),
  }));
}

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string };
}
interface Panel {
  readonly title: string;
  readonly targets: readonly { readonly expr: string; readonly legendFormat: string }[];
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
}

describe("the examples", () => {
  const rows = rowsOf(full);
  const labelsOf = (name: string): readonly string[] => Object.keys(rows.find((row) => row.name === name)?.samples[0]?.labels ?? {});
  /** Labels that Prometheus adds. */
  const added = ["instance", "job"];
  const rules = (
    parse(readFileSync(path.join(root, "examples/prometheus/coverlay.rules.yml"), "utf8")) as { groups: { rules: Rule[] }[] }
  ).groups.flatMap((group) => group.rules);
  const dashboard = JSON.parse(readFileSync(path.join(root, "examples/grafana/coverlay.json"), "utf8")) as {
    panels: Panel[];
    templating: { list: { query: unknown }[] };
    annotations: { list: { expr: string }[] };
  };
  const expressions = [
    ...rules.map(({ expr }) => expr),
    ...dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)),
    ...dashboard.annotations.list.map(({ expr }) => expr),
    JSON.stringify(dashboard.templating),
  ];

  it("ask for metrics and labels that there are", () => {
    expect(expressions.length).toBeGreaterThan(25);
    for (const expression of expressions) {
      const asked = askedFor(expression);
      expect([expression, asked.length > 0]).toEqual([expression, true]);
      for (const { name, labels } of asked) {
        expect([name, rows.some((row) => row.name === name && row.samples.length > 0)]).toEqual([name, true]);
        expect([name, labels.filter((label) => ![...labelsOf(name), ...added].includes(label))]).toEqual([name, []]);
      }
    }
    const codes = expressions.flatMap((expression) => [...expression.matchAll(/code="([^"]+)"/g)].map(([, code]) => code));
    expect(codes.length).toBeGreaterThan(0);
    expect(codes.filter((code) => !(problemCodes as readonly (string | undefined)[]).includes(code))).toEqual([]);
  });

  it("show labels that the metrics have", () => {
    const texts = [
      ...rules.map(({ expr, annotations }) => [expr, `${annotations.summary} ${annotations.description}`, /\$labels\.([a-z_]+)/g] as const),
      ...dashboard.panels.flatMap(({ targets }) =>
        targets.map(({ expr, legendFormat }) => [expr, legendFormat, /\{\{([a-z_]+)\}\}/g] as const),
      ),
    ];
    for (const [expr, text, pattern] of texts) {
      const known = new Set([...askedFor(expr).flatMap(({ name }) => labelsOf(name)), ...added]);
      expect([expr, [...text.matchAll(pattern)].map(([, label]) => label).filter((label) => !known.has(label ?? ""))]).toEqual([expr, []]);
    }
  });

  it("each alert has a severity, and says what to do; each panel has its place", () => {
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
    for (const { alert, labels, annotations } of rules) {
      expect([alert, labels.severity]).toEqual([alert, expect.stringMatching(/^(info|warning|critical)$/)]);
      expect([alert, annotations.summary, annotations.description]).toEqual([
        alert,
        expect.stringContaining("$labels.instance"),
        expect.stringMatching(/\.$/),
      ]);
    }
    const cells = dashboard.panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, at) => `${x + (at % w)},${y + Math.floor(at / w)}`),
    );
    expect(new Set(cells).size).toBe(cells.length);
    expect(dashboard.panels.every(({ gridPos: { x, w } }) => x + w <= 24)).toBe(true);
  });

  it("the unit runs the command as it is", () => {
    const unit = readFileSync(path.join(root, "examples/prometheus/coverlay-metrics.service"), "utf8");
    expect(unit).toMatch(/^ExecStart=coverlay metrics --output \/\S+\.prom$/m);
  });
});
