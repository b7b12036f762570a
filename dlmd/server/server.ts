/**
 * The local socket: programs of this node connect here. Bytes to requests, events to bytes; what they mean is the
 * core's. A client that sends damaged frames is told why and closed, nothing else is disturbed. A client is never
 * disconnected for being slow: it is not read until it has caught up (hazard C6).
 */
import { mkdirSync } from "node:fs";
import { type Socket, createServer } from "node:net";
import path from "node:path";
import { logNotTaken } from "../base/listening.ts";
import { assert } from "../base/assert.ts";
import { WireError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metric.ts";
import { isFirstThreadDead } from "../base/process.ts";
import type { MulticastAnswer } from "../query/answer.ts";
import type { ClusterInfo, OverlayKey, ClientEvent, ClientRequest, ClientIdentity } from "../wire/program.ts";
import { MAX_SPARED } from "./kernel-wait.ts";
import { LocalClient } from "./local-client.ts";
import { listenOnOwnSocket } from "./own-socket.ts";
import { objectionTo, type PeerProcesses, type ProcessHandle } from "./peer-process.ts";

/** Connections at one time; more are refused. */
export const MAX_CLIENTS = 4096;

export interface ServerOptions {
  readonly socketPath: string;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly processes: PeerProcesses;
  /** What a client is told of the cluster, now. */
  readonly info: () => Omit<ClusterInfo, "clientId">;
  /** For answers to "status"; null: the cluster uses none. */
  readonly multicast: () => MulticastAnswer | null;
  readonly connected: (clientId: number, identity: ClientIdentity) => void;
  readonly requests: (clientId: number, requests: readonly ClientRequest[]) => void;
  /** It leaves so much unread. */
  readonly slow: (clientId: number, unreadBytes: number) => void;
  /** `endedHere`: its connection was closed by this side. */
  readonly gone: (clientId: number, endedHere: boolean) => void;
  /** It was to be killed and was not: it waits in the kernel, as for a disk that hangs, or did so until just now. */
  readonly spared: (clientId: number) => void;
}

export interface LocalServer {
  /** Events for that client, in order; none if it is gone. */
  send(clientId: number, events: readonly ClientEvent[]): void;
  /** Writes what was gathered for that client. */
  flush(): void;
  setPaused(clientId: number, paused: boolean): void;
  /** Kills its process: it hangs. `gone` follows when that has ended; or `spared`, if it waits in the kernel. */
  kill(clientId: number, reason: string): void;
  /** ClusterInfo.overlayKeys are these from now on. */
  tellOverlayKeys(keys: readonly OverlayKey[]): void;
  /** Closes every connection that has had its welcome, with that reason. The others have nothing yet: they wait for the next life, as new ones do. */
  dropClients(reason: string): void;
  /** No new connections; closes every one; removes the socket. */
  close(reason: string): Promise<void>;
}

/** A program whose process is known, and what becomes of it. */
interface Guest {
  readonly client: LocalClient;
  readonly pid: number;
  /** Of the user, and its key; "": it declared none. */
  readonly owner: string;
  /** What it has is to be kept for an heir: it speaks for its process. Another process may hold one open that does not. */
  keeps: boolean;
  readonly process: ProcessHandle | null;
  /** It is being killed: resolves with false if nobody waits for its end any more. */
  killed: Promise<boolean> | null;
  /** Whether it waits in the kernel is being looked at. */
  looking: boolean;
  /** How often it was spared and nothing was heard of it. */
  spared: number;
}

/** Listens on the local socket. Rejects with OperatingError ("already-running", "cannot-listen"). */
export async function startServer(options: ServerOptions): Promise<LocalServer> {
  const { log, metrics } = options;
  const clients = new Map<number, LocalClient>();
  const guests = new Map<number, Guest>();
  const dirty = new Set<LocalClient>();
  let nextClientId = 1;

  /** Its locks may go: it has closed its connection, and if it was killed it has ended. */
  const leave = async (clientId: number, reason: string, endedHere: boolean): Promise<void> => {
    const guest = guests.get(clientId);
    if (guest?.killed != null && !(await guest.killed)) return;
    guest?.process?.close();
    guests.delete(clientId);
    log.info({ clientId, reason }, "client gone");
    options.gone(clientId, endedHere);
  };

  /** It has gone if that is no guest any more. */
  const spare = async (clientId: number, guest: Guest, reason: string): Promise<boolean> => {
    guest.looking = true;
    const wait = (await guest.process?.kernelWait()) ?? "none";
    guest.looking = false;
    if (guests.get(clientId) !== guest) return true;
    if (wait === "none") return false;
    if (++guest.spared > MAX_SPARED) {
      log.error({ clientId, reason, spared: MAX_SPARED }, "a program that hangs was spared too often and has said nothing");
      return false;
    }
    const found = wait === "held" ? "that hangs waits in the kernel, as for a disk" : "that hung has waited in the kernel, and goes on";
    log.warn({ clientId, reason }, `a program ${found}: it is not killed, and has its time anew`);
    options.spared(clientId);
    return true;
  };

  const kill = async (clientId: number, reason: string): Promise<void> => {
    const guest = guests.get(clientId);
    if (guest === undefined || guest.killed !== null || guest.looking) return;
    if (await spare(clientId, guest, reason)) return;
    if (guest.process === null) {
      log.error({ clientId, reason }, "a program that hangs cannot be killed, since its process is not to be seen: its locks stay held");
      return;
    }
    log.error({ clientId, reason }, "program is killed");
    metrics.count("clients_killed");
    guest.killed = guest.process.kill().catch((error: unknown) => {
      log.error({ clientId, error: (error as Error).message }, "a program that hangs cannot be killed: its locks stay held");
      // It may be believed again, and hang again.
      guest.killed = null;
      return true;
    });
    // If it could not be killed it may go on; if it ended, somebody else may have its connection.
    if ((await guest.killed) && guest.process.ended) guest.client.close(reason);
  };

  /**
   * An heir asks. A process of its owner may be dead and its connection open: a thread of it waits in the kernel, perhaps for the heir, and then it ends. It says
   * nothing any more.
   */
  const endDead = ({ owner }: Guest): void => {
    for (const { client, pid, keeps, owner: other } of guests.values())
      if (keeps && owner !== "" && other === owner && isFirstThreadDead(pid)) client.broken("its first thread has ended");
  };
  const noteHeirs = (guest: Guest, request: ClientRequest): void => {
    if (request.kind === "keep-locks") guest.keeps = request.limitMs > 0;
    if (request.kind === "inherit") endDead(guest);
  };

  const accept = (socket: Socket): void => {
    const clientId = nextClientId++;
    const credentials = options.processes.credentialsOf(socket);
    const client = new LocalClient(socket, clientId, {
      counters: () => metrics.snapshot(),
      multicast: options.multicast,
      hello({ pid: saidPid, program, owner, bastLimitMs }) {
        const pid = credentials.pid === 0 ? saidPid : credentials.pid;
        log.info({ clientId, pid, uid: credentials.uid, program }, "client connected");
        const of = owner === "" ? "" : `${credentials.uid} ${owner}`;
        const process = options.processes.open(socket);
        guests.set(clientId, { client, pid, owner: of, keeps: false, process, killed: null, looking: false, spared: 0 });
        options.connected(clientId, { uid: credentials.uid, pid, owner, program, bastLimitMs });
      },
      requests(requests) {
        const guest = guests.get(clientId);
        if (guest !== undefined) guest.spared = 0;
        if (guest !== undefined) for (const request of requests) noteHeirs(guest, request);
        options.requests(clientId, requests);
      },
      slow(unreadBytes) {
        log.warn({ clientId, unreadBytes }, "client does not read");
        // Not within the flush in which it is noticed.
        queueMicrotask(() => options.slow(clientId, unreadBytes));
      },
      refused(reason) {
        metrics.count("client_frames_damaged");
        log.warn({ clientId, reason }, "client refused");
      },
      gone(reason, greeted, endedHere) {
        if (!clients.delete(clientId)) return;
        dirty.delete(client);
        if (greeted) void leave(clientId, reason, endedHere);
      },
    });
    clients.set(clientId, client);
    metrics.count("clients_connected");
    const wrong = objectionTo(credentials);
    if (wrong !== null) return client.refuse(new WireError(wrong));
    if (clients.size > MAX_CLIENTS) client.refuse(new WireError(`too many clients: at most ${MAX_CLIENTS} at one time`));
  };

  const server = createServer(accept);
  mkdirSync(path.dirname(options.socketPath), { recursive: true, mode: 0o700 });
  const failed = logNotTaken(log, "a program's connection");
  await listenOnOwnSocket(server, { path: options.socketPath, other: "another dlmd", code: "cannot-listen", option: "--run-dir", failed });

  return {
    send(clientId, events) {
      const client = clients.get(clientId);
      if (client === undefined) return;
      client.send(events, options.info);
      dirty.add(client);
    },
    flush() {
      for (const client of dirty) client.flush();
      dirty.clear();
    },
    tellOverlayKeys(keys) {
      for (const client of clients.values()) {
        client.tellOverlayKeys(keys);
        client.flush();
      }
    },
    kill: (clientId, reason) => void kill(clientId, reason),
    setPaused: (clientId, paused) => clients.get(clientId)?.setPaused("core", paused),
    dropClients(reason) {
      for (const client of clients.values()) if (client.welcomed) client.close(reason);
    },
    async close(reason) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const client of clients.values()) client.close(reason);
      await closed;
      for (const { process: handle } of guests.values()) handle?.close();
      assert(clients.size === 0, "a client came while the socket was closing");
    },
  };
}
