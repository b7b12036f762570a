/** The lab in the foreground: what to try, and a line per node that stays current until the user ends it. */
import path from "node:path";
import { table } from "../cli/output.ts";
import { type NodeReport, observe } from "./observe.ts";
import { type LabState, labNodes, readLab } from "./state.ts";

/** On a terminal the lines are redrawn; elsewhere a log must not fill up. */
const REDRAW_MS = 1000;
const PLAIN_MS = 30_000;

/** A word as a shell reads it. */
function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** How this program is called from another terminal, whose directory is another one. */
export function selfCommand(argv: readonly string[] = process.argv, searchPath: string = process.env["PATH"] ?? ""): string {
  const script = argv[1] ?? "coverlay";
  const isFound = path.basename(script) === "coverlay" && searchPath.split(":").includes(path.dirname(script));
  return isFound ? "coverlay" : `node ${shellWord(path.resolve(script))}`;
}

/** Three commands to paste. */
export function whatToTry(lab: LabState, self: string, defaultDir: boolean): string {
  const nodes = labNodes(lab);
  const first = nodes[0];
  const second = nodes[1] ?? first;
  const last = nodes.at(-1);
  if (first === undefined || second === undefined || last === undefined) return "";
  const dir = defaultDir ? "" : ` --dir ${shellWord(lab.dir)}`;
  return [
    "Try, in another terminal:",
    `  echo hello >${shellWord(`${first.mount}/hello`)} && cat ${shellWord(`${second.mount}/hello`)}`,
    `  ${self} lab exec ${second.node}${dir} -- ls -l`,
    `  ${self} lab kill ${last.node}${dir}`,
    "Ctrl-C takes everything down.",
  ].join("\n");
}

/** One line per node. `before`: the reports of the last time, for the rate of operations. */
export function liveLines(reports: readonly NodeReport[], before: ReadonlyMap<string, NodeReport>, seconds: number): string {
  const rows = reports.map((report) => {
    const past = before.get(report.node)?.ops ?? null;
    const rate = report.ops === null || past === null || report.ops < past ? "" : ` (${Math.round((report.ops - past) / seconds)}/s)`;
    const marks = [
      report.cut ? "disk cut" : "",
      report.hung ? "disk hangs" : "",
      ...report.stalled.map((program) => `${program} stalled`),
      report.network.group === "" ? "" : "partitioned",
      report.network.lossPercent > 0 ? `${report.network.lossPercent}% loss` : "",
    ];
    return [
      report.node,
      report.state,
      report.role ?? "-",
      `ops ${report.ops ?? "-"}${rate}`,
      `locks ${report.locks ?? "-"}`,
      [report.mount, ...marks.filter((mark) => mark !== "")].join("  "),
    ];
  });
  return table(rows);
}

export interface Screen {
  readonly isTTY: boolean;
  /** Of a terminal: a longer line would wrap, and the redraw miss it. */
  readonly columns: number;
  write(text: string): void;
}

/** Shows the lab until `signal` fires or somebody else takes the lab down. */
export async function showLive(dir: string, screen: Screen, signal: AbortSignal): Promise<void> {
  const everyMs = screen.isTTY ? REDRAW_MS : PLAIN_MS;
  let before = new Map<string, NodeReport>();
  let drawn = 0;
  while (!signal.aborted) {
    const lab = readLab(dir);
    if (lab === null || lab.phase === "down") return;
    const reports = await observe(lab, false);
    const lines = liveLines(reports, before, everyMs / 1000);
    screen.write(screen.isTTY ? redraw(lines, drawn, screen.columns) : `${lines}\n`);
    drawn = reports.length;
    before = new Map(reports.map((report) => [report.node, report]));
    await pause(everyMs, signal);
  }
}

/** The lines over the `drawn` lines of the last time. */
export function redraw(lines: string, drawn: number, columns: number): string {
  const fitting = lines.split("\n").map((line) => `${line.slice(0, columns - 1)}\x1b[K\n`);
  return `${drawn === 0 ? "" : `\x1b[${drawn}A`}${fitting.join("")}`;
}

/** Until `ms` have passed or `signal` has fired. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
    // It may have fired while the lab was looked at.
    if (signal.aborted) end();
  });
}
