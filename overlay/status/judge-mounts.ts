/** What is wrong with the mounts of this node, and with those who wait. Pure. */
import type { Call, MountFacts, NodeFacts, Party, Wait, WaiterFacts } from "./facts.ts";
import { type About, type Problem, problem, shortTime } from "./problem.ts";

/** A lock of an inode is given up within milliseconds, by a busy node within seconds. */
const WAITS_LONG_MS = 10_000;

type Name = (nodeid: number) => string;

export function judgeMount(mount: MountFacts, name: Name): Problem[] {
  const { mountpoint, volume, role, problem: unanswered, pid } = mount;
  const about = { volume, mountpoint };
  if (role === "gone") {
    const found = `the process ${pid} of ${mountpoint} is gone, and every call there fails`;
    return [problem("mount-gone", about, found, `umount ${mountpoint}, and mount it again`)];
  }
  if (unanswered !== null) {
    const action = "its log says what it is doing; a mount that hangs for good is ended with umount -l";
    return [problem("mount-silent", about, `${mountpoint}: ${unanswered}`, action)];
  }
  if (role === "paused") {
    const action = "it goes on by itself when dlmd runs again, and otherwise ends after two minutes: see that dlmd starts";
    return [problem("mount-paused", about, `${mountpoint}: ${mount.why}`, action)];
  }
  const waits = judgeService(mount, about, name);
  const disk = [...judgeDisk(mount, about), ...judgeWatch(mount, about), ...judgePlain(mount, about)];
  const long = waits.length > 0 || disk.some(({ level }) => level === "down") ? null : longCall(mount);
  const { calls } = mount;
  return [
    ...waits,
    ...disk,
    ...(long === null ? [] : [problem("call-wait", about, callWords(long, mountpoint, calls?.count ?? 1), `coverlay why ${long.pid}`)]),
    ...judgeUnknownCalls(mount, about),
  ];
}

function judgeUnknownCalls({ mountpoint, callsProblem }: MountFacts, about: About): Problem[] {
  if (callsProblem === null) return [];
  const found = `${mountpoint} does not say which calls are under way, so one may hang: ${callsProblem}`;
  return [
    problem("calls-unknown", about, found, "its log says what it is doing; a mount of an older version: unmount it, and mount it again"),
  ];
}

/** It is to be there, or nobody would have asked for it. */
export function judgeWaiter({ mountPoint, source, pid, logFile }: WaiterFacts): Problem {
  const found = `${mountPoint} is not mounted: process ${pid} waits in the background to mount ${source}`;
  return problem(
    "mount-waits",
    { mountpoint: mountPoint },
    found,
    `${logFile} says for what it waits; to end it: coverlay umount ${mountPoint}`,
  );
}

/** One reason why the mount does not answer its callers: the first that explains the others. */
function judgeService(mount: MountFacts, about: About, name: Name): Problem[] {
  const { mountpoint, lease, role, ownerChanges, why, ownerWait, ownerNodeid, groupWait, operatorBlocks } = mount;
  if (lease === "lapsed") {
    const action = "dlmd here does not run, hangs, or is cut off from a quorum: start it, or mend the network; coverlay nodes";
    return [problem("lease-lapsed", about, `${mountpoint} serves nothing: the lease of this node has ended`, action)];
  }
  const withoutMs = ownerChanges?.withoutMs ?? null;
  if (role === "waiting" || withoutMs !== null) {
    const since = withoutMs === null ? "" : ` for ${shortTime(withoutMs)}`;
    const found = `${mountpoint} has had no owner${since}, and calls wait: ${why}`;
    return [problem("no-owner", about, found, "the words say for what; coverlay fence show; coverlay volume show DEVICE")];
  }
  if (ownerWait !== null) {
    if (role === "owner") {
      return [problem("disk-silent", about, `${mountpoint}: ${ownerWait}`, DISK_ACTION)];
    }
    const owner = ownerNodeid === null ? "the owner" : name(ownerNodeid);
    const action = `coverlay status on ${owner}, and the network to it; if it does not answer: coverlay fence ${owner} --yes on another node`;
    return [problem("owner-silent", about, `${mountpoint}: ${ownerWait}`, action)];
  }
  if (groupWait === null) return [];
  const action = operatorBlocks
    ? "echo 0 to its knob block, in the run directory"
    : "it goes on by itself when that is done; coverlay status there";
  return [problem("mount-blocked", about, `${mountpoint}: ${groupWait}`, action)];
}

const DISK_ACTION =
  "the path to the disk (dmesg, multipath -ll); another node takes over with coverlay handover, or coverlay fence NODE --yes there";

function judgeDisk({ diskFault, disk, mountpoint, role, ownerWait }: MountFacts, about: About): Problem[] {
  const found = `${mountpoint}: ${disk ?? "its disk has failed"}`;
  if (diskFault === null) return [];
  if (diskFault === "silent") return role === "owner" && ownerWait !== null ? [] : [problem("disk-silent", about, found, DISK_ACTION)];
  if (diskFault === "read-only") {
    return [
      problem("disk-read-only", about, found, "changes fail on all nodes; unmount the volume on all of them, and run fsck on its device"),
    ];
  }
  if (diskFault === "withdrawn") {
    const action = "the path to the disk on this node (dmesg); this is said until the node has the volume again, or is mounted anew";
    return [problem("disk-withdrawn", about, found, action)];
  }
  return [problem("disk-unread", about, found, "the path to the disk on this node (dmesg)")];
}

function judgeWatch({ unwatched, mountpoint }: MountFacts, about: About): Problem[] {
  if (unwatched === null) return [];
  const action = "until then programs of this node change files through the mount alone, and not in the directory itself";
  return [problem("changes-unseen", about, `${mountpoint}: ${unwatched}`, action)];
}

/** The kernel lets it have the owner's file system a second time, and MMP does not see that: it is no other machine. */
function judgePlain({ mountpoint, device, plainlyAt }: MountFacts, about: About): Problem[] {
  const [place] = plainlyAt;
  if (place === undefined) return [];
  const found = `${mountpoint}: ${device} is mounted plainly at ${plainlyAt.join(", ")}: other nodes do not see changes there, and none of them can take it over`;
  return [problem("mounted-plainly", about, found, `umount ${place}, and use ${mountpoint} alone`)];
}

function longCall({ calls }: MountFacts): Call | null {
  const longest = calls?.longest ?? null;
  return longest !== null && longest.waitingMs >= WAITS_LONG_MS ? longest : null;
}

function callWords({ op, pid, program, waitingMs }: Call, mountpoint: string, count: number): string {
  const more = count > 1 ? `; ${count} calls are under way` : "";
  return `${mountpoint}: a ${op} of ${processWords(pid, program)} has waited for ${shortTime(waitingMs)}${more}`;
}

function processWords(pid: number, program: string): string {
  return program === "" ? `process ${pid}` : `${program} (process ${pid})`;
}

export function partyWords({ node, pid, program }: Party): string {
  return `${processWords(pid, program)} on ${node}`;
}

/** One line: who waits for whom, and for how long. One that is ahead in line has nothing yet. */
export function waitWords({ what, path, waiter, holders, ahead, waitingMs, volume, lockspace }: Wait): string {
  const where = volume === null ? lockspace : `volume ${volume}`;
  const whom = holders.length === 0 ? "" : `, which ${holders.map(partyWords).join(" and ")} ${holders.length === 1 ? "has" : "have"}`;
  const before = ahead === null ? "" : `${holders.length === 0 ? "" : ","} and the request of ${partyWords(ahead)} is ahead of it in line`;
  return `${partyWords(waiter)} has waited ${shortTime(waitingMs)} for ${what} of ${where}${path == null ? "" : ` (${path})`}${whom}${before}`;
}

/** A wait that is not seen may be one of a mount. */
export function judgeUnseenWaits({ unasked, waitsTruncated }: Pick<NodeFacts, "unasked" | "waitsTruncated">): Problem[] {
  const silent = unasked.map(({ node, reason }) =>
    problem(
      "waits-unknown",
      { node },
      `${node} did not say who waits for locks there: ${reason}`,
      `coverlay status on ${node}, and the log of dlmd`,
    ),
  );
  if (!waitsTruncated) return silent;
  const found = "there are more locks than dlmd looks at, or more waits than fit into an answer: not all are known";
  return [...silent, problem("waits-unknown", {}, found, "coverlay locks --waiting 10000; coverlay why PID of a program that hangs")];
}

/** Of a mount alone: programs may keep their own locks for as long as they like. One for each volume, its longest. */
export function judgeWaits(waits: readonly Wait[]): Problem[] {
  const long = waits.filter(({ kind, waitingMs }) => kind === "inode" && waitingMs >= WAITS_LONG_MS);
  const volumes = [...new Set(long.map(({ lockspace }) => lockspace))];
  return volumes.flatMap((lockspace) => {
    const rows = long.filter((row) => row.lockspace === lockspace).toSorted((a, b) => b.waitingMs - a.waitingMs);
    const [first] = rows;
    if (first === undefined) return [];
    const more = rows.length > 1 ? `; ${rows.length} such waits` : "";
    const about = first.volume === null ? {} : { volume: first.volume };
    return [problem("lock-wait", about, `${waitWords(first)}${more}`, `coverlay why ${lockspace} ${first.resource}`)];
  });
}
