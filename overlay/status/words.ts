/** The report for people: what is read in five seconds. Pure. */
import { callWords } from "./judge-calls.ts";
import { waitWords } from "./judge-mounts.ts";
import { shortTime } from "./problem.ts";
import { visible } from "./visible.ts";
import type { Report, ReportMount, ReportVolume } from "./report.ts";

/** Of those that wait, so many are told; --json has more. */
const WAITS_TOLD_MAX = 5;

/** The labels stand in the columns of the lines that follow. */
function labelled(label: string, lines: readonly string[]): string[] {
  return lines.map((line, at) => `${(at === 0 ? label : "").padEnd(8)} ${visible(line, "")}`);
}

export function describeReport(report: Report): string[] {
  const { level, problems, volumes } = report;
  return [
    ...labelled("status", [level, ...problems.flatMap(({ level: its, found, action }) => [`${its}: ${found}`, `do: ${action}`])]),
    ...labelled(
      "volume",
      volumes.map((volume) => volumeWords(volume, report.atMs)),
    ),
    ...labelled("calls", callLines(report)),
    ...labelled("waits", waitLines(report)),
  ];
}

/** One line, for monitoring. */
export function describeLevel({ level, problems, volumes, nodes }: Report): string {
  const [first] = problems;
  if (first === undefined) {
    const members = nodes.filter(({ member }) => member).length;
    const mounts = volumes.reduce((sum, volume) => sum + volume.mounts.length, 0);
    return `${level}: ${members} of ${nodes.length} nodes in the view, ${mounts} ${mounts === 1 ? "mount" : "mounts"} here`;
  }
  const more = problems.length === 1 ? "" : `; ${problems.length - 1} more`;
  return visible(`${level}: ${first.code}: ${first.found}${more}`, "");
}

function volumeWords({ volume, owner, mounts }: ReportVolume, atMs: number): string {
  const owned = `${volume}: ${owner === null ? "no owner is known" : `owner ${owner}`}`;
  if (mounts.length === 0) return `${owned}; not mounted here`;
  return [owned, ...mounts.map((mount) => mountWords(mount, atMs))].join("; ");
}

function mountWords({ mountpoint, role, readOnly, lastOwnerChange, answers, calls, work }: ReportMount, atMs: number): string {
  const here = `here at ${mountpoint}${role === "owner" ? ", as the owner" : ""}${readOnly === true ? ", read-only" : ""}`;
  const state = answers ? "" : ", and it does not answer";
  const under = calls === null || calls.count === 0 ? "" : `, ${calls.count} ${calls.count === 1 ? "call" : "calls"} under way`;
  const doing = work === null ? "" : `, ${work.words} (for ${shortTime(work.tookMs)})`;
  if (lastOwnerChange === null) return `${here}${state}${under}${doing}`;
  const { from, to, pauseMs, atMs: thenMs, reason } = lastOwnerChange;
  const change = `${shortTime(atMs - thenMs)} ago from ${from} to ${to} in ${shortTime(pauseMs)} (${reason})`;
  return `${here}${state}${under}${doing}, last change of owner ${change}`;
}

function callLines({ calls }: Report): string[] {
  const more = calls.length - WAITS_TOLD_MAX;
  return [...calls.slice(0, WAITS_TOLD_MAX).map(callWords), ...(more > 0 ? [`and ${more} more: --json; coverlay why PID`] : [])];
}

function waitLines({ waits, waitsTruncated }: Report): string[] {
  const told = waits.slice(0, WAITS_TOLD_MAX).map(waitWords);
  const more = waitsTruncated
    ? [`and more: coverlay locks --waiting`]
    : [`and ${waits.length - told.length} more: coverlay locks --waiting`];
  return [...told, ...(waits.length > told.length || waitsTruncated ? more : [])];
}
