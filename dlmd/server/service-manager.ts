/**
 * The words of sd_notify(3) to the service manager that started this process: READY, STATUS, STOPPING and the watchdog. Without
 * NOTIFY_SOCKET nothing is said. packaging/README.md, "dlmd.service".
 */
import { E } from "../base/errno.ts";
import type { Log } from "../base/log.ts";
import { nativeAddon } from "../../native/index.ts";
import type { ViewInfo } from "../client/api.ts";

/** systemd takes no longer datagram; a status is cut much earlier, for it is one line of a terminal. */
const MAX_STATUS_BYTES = 512;
/** sd_watchdog_enabled(3) wants two signs of life in the time that is allowed. With four a turn of the loop that takes long, or two, end nothing. */
const WATCHDOG_SHARE = 0.25;
/** The manager's socket is full, as while it boots a machine, or memory is short: what is to be said waits so long. Without READY it would end this process. */
export const TELL_AGAIN_MS = 100;
const PASSING: ReadonlySet<number> = new Set([E.EAGAIN, E.ENOBUFS, E.ENOMEM]);
/** What each step of a start may take, and what is left of it after a wait: as much as TimeoutStartSec. */
const START_REST_MS = 90_000;
/** A dlmd that stands still for four time-outs is left out by the others (hazard H13): it is ended long after that, and started again. */
const STILL_TIMEOUTS_MIN = 10;

export interface ServiceManager {
  /** False: this process was started by hand. */
  readonly isThere: boolean;
  /** What this process was told, for a program that takes its place. */
  readonly environment: Readonly<Record<string, string>>;
  /** It waits, for so long at most: the start may take longer than the manager allows (EXTEND_TIMEOUT_USEC). */
  waits(limitMs: number): void;
  /** A step of the start is done: a slow machine may take as long for the next one. Nothing is said by time, so a start that hangs is ended. */
  stepDone(): void;
  /** Programs may connect. From then on the event loop shows that it turns, where the manager wants that. */
  ready(): void;
  status(words: string): void;
  /** It leaves; that may take longer than the watchdog's time, and the event loop goes on showing that it turns. */
  stopping(): void;
  close(): void;
}

export interface ServiceManagerPort {
  /** To the manager's socket: >= 0, or a negative errno. */
  readonly send: (path: string, message: Buffer) => number;
  readonly pid: number;
  readonly log: Pick<Log, "warn" | "info">;
}

/** `env` loses what is meant for this process alone: its children are not the service. `timeoutMs`: that of the cluster. */
export function createServiceManager(env: NodeJS.ProcessEnv, timeoutMs: number, { send, pid, log }: ServiceManagerPort): ServiceManager {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: usec, WATCHDOG_PID: watched } = env;
  const environment: Record<string, string> = {};
  for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) {
    if (env[name] !== undefined) environment[name] = env[name];
    delete env[name];
  }
  if (socket === undefined || socket === "")
    return { isThere: false, environment, waits() {}, stepDone() {}, ready() {}, status() {}, stopping() {}, close() {} };
  const { tell, close } = teller((message) => send(socket, message), socket, log);
  const mine = watched === undefined || Number(watched) === pid;
  const givenMs = mine && usec !== undefined && /^[1-9]\d*$/.test(usec) ? Number(usec) / 1000 : null;
  const watchdogMs = givenMs === null ? null : Math.max(givenMs, STILL_TIMEOUTS_MIN * timeoutMs);
  let timer: NodeJS.Timeout | null = null;
  let last = "";
  let starting = true;
  return {
    isThere: true,
    environment,
    stepDone() {
      // In systemd it would lengthen another time later: that of RuntimeMaxSec, or of the stop.
      if (starting) tell(`EXTEND_TIMEOUT_USEC=${START_REST_MS * 1000}`);
    },
    waits: (limitMs) => tell(`EXTEND_TIMEOUT_USEC=${(limitMs + START_REST_MS) * 1000}`),
    ready() {
      starting = false;
      tell("READY=1", ...(watchdogMs !== null && watchdogMs !== givenMs ? [`WATCHDOG_USEC=${watchdogMs * 1000}`] : []));
      if (watchdogMs === null || timer !== null) return;
      log.info({ watchdogMs }, "the service manager ends this process if it stands still for that long");
      timer = setInterval(() => tell("WATCHDOG=1"), watchdogMs * WATCHDOG_SHARE);
      timer.unref();
    },
    status(words) {
      const line = Buffer.from(words.replaceAll(/\s+/g, " "))
        .subarray(0, MAX_STATUS_BYTES)
        .toString()
        .replace(/\uFFFD$/, "");
      if (line !== last) tell(`STATUS=${line}`);
      last = line;
    },
    stopping() {
      starting = false;
      tell("STOPPING=1", "STATUS=leaving the cluster");
    },
    close() {
      if (timer !== null) clearInterval(timer);
      timer = null;
      close();
    },
  };
}

interface Teller {
  readonly tell: (...lines: readonly string[]) => void;
  readonly close: () => void;
}

/** In the order in which it was said. Of what waits for room, a later word of one kind stands for the earlier one: READY, STATUS, WATCHDOG ... */
function teller(send: (message: Buffer) => number, socket: string, log: ServiceManagerPort["log"]): Teller {
  let waiting: string[] = [];
  let again: NodeJS.Timeout | null = null;
  let failed = 0;
  const kind = (message: string): string => message.split("=", 1)[0] ?? "";
  const sendWaiting = (): void => {
    again = null;
    while (waiting[0] !== undefined) {
      const code = send(Buffer.from(waiting[0]));
      if (code < 0 && code !== failed) log.warn({ socket, errno: -code }, "the service manager could not be told");
      failed = Math.min(code, 0);
      if (PASSING.has(-code)) {
        again = setTimeout(sendWaiting, TELL_AGAIN_MS).unref();
        return;
      }
      waiting.shift();
    }
  };
  return {
    tell(...lines) {
      const message = lines.join("\n");
      waiting = [...waiting.filter((other) => kind(other) !== kind(message)), message];
      if (again === null) sendWaiting();
    },
    close() {
      if (again !== null) clearTimeout(again);
      again = null;
    },
  };
}

export function serviceManager(env: NodeJS.ProcessEnv, timeoutMs: number, log: Log): ServiceManager {
  return createServiceManager(env, timeoutMs, {
    send: (path, message) => nativeAddon().sendDatagram(path, message),
    pid: process.pid,
    log,
  });
}

/** For `systemctl status`. */
export function viewWords({ members, quorate, running, quorumReason }: ViewInfo): string {
  const nodes = members.length === 0 ? "no node" : `node${members.length === 1 ? "" : "s"} ${members.join(", ")}`;
  if (!quorate) return `no quorum (${quorumReason}); sees ${nodes}`;
  return `${nodes}; ${running ? "locks are granted" : "locks are being recovered"}`;
}
