#!/usr/bin/env node
/**
 * dlmd, the lock manager daemon of a node: composition root. Stays in the foreground; prints `ready` on stdout when its
 * local socket listens.
 */
import { rmSync, writeFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import { type Arguments, DEFAULT_RUN_DIR, DEFAULT_STATE_DIR, parseArguments } from "./arguments.ts";
import { OperatingError } from "./base/error.ts";
import { EXIT } from "./base/exit-status.ts";
import type { Log } from "./base/log.ts";
import { createMetrics } from "./base/metric.ts";
import { raisePriority } from "./base/priority.ts";
import { adminSocketPath } from "./client/admin.ts";
import { decodeClusterConfig } from "./config/cluster-config.ts";
import { type ConfigKeeper, readKeptConfig, startingConfig } from "./driver/config-keeper.ts";
import { type AdminServer, startAdminServer } from "./server/admin-server.ts";
import { unkept } from "./driver/atomic-file.ts";
import { checkProcess } from "./driver/check-process.ts";
import { bootClock } from "./driver/clock.ts";
import { clusterKeyPath, minTimeoutMs, readClusterConfig, readKeyring } from "./driver/cluster-files.ts";
import { type Driver, startDriver } from "./driver/driver.ts";
import { ADDRESS_LIMIT_MS, ownNode } from "./driver/own-node.ts";
import { createPinoLog } from "./base/pino-log.ts";
import { watchFile } from "./driver/file-watch.ts";
import type { Keyring } from "./tls/keyring.ts";
import { makeOwnDirectory } from "./driver/own-directory.ts";
import { createNode } from "./node.ts";
import { type PeerProcesses, peerProcesses } from "./server/peer-process.ts";
import { parseMetricsAddress, serveMetrics } from "./server/metrics-page.ts";
import { Leaving } from "./server/leaving.ts";
import { startAnew } from "./server/start-anew.ts";
import { type ServiceManager, serviceManager, viewWords } from "./server/service-manager.ts";

/** A heartbeat that is late for want of the processor looks like a dead node. */
const PRIORITY = -15;

function openLog({ logLevel, jsonLog }: Arguments): Log {
  try {
    return createPinoLog(logLevel, jsonLog ?? null);
  } catch (error) {
    throw new OperatingError(`the log ${jsonLog ?? ""} cannot be written: ${(error as Error).message}`, {
      code: "no-log",
      hint: "Name a file in a folder that exists with --json-log.",
      cause: error,
    });
  }
}

const adminShape = z.discriminatedUnion("what", [
  z.strictObject({ what: z.literal("config-show") }),
  z.strictObject({ what: z.literal("fence-ack"), nodeid: z.int().min(1), by: z.string().max(256) }),
  z.strictObject({ what: z.literal("fence-node"), nodeid: z.int().min(1), by: z.string().max(256) }),
  z.strictObject({ what: z.literal("quorum-reset"), by: z.string().max(256) }),
  z.strictObject({ what: z.literal("config-apply"), text: z.string(), source: z.string() }),
  z.strictObject({ what: z.literal("may-restart") }),
  z.strictObject({ what: z.literal("restart"), by: z.string().max(256) }),
]);

interface AdminActions {
  readonly config: ConfigKeeper;
  readonly acknowledgeFence: (nodeid: number, by: string) => unknown;
  readonly orderFence: (nodeid: number, by: string) => unknown;
  readonly countAll: (by: string) => unknown;
  readonly mayRestart: () => unknown;
  readonly restart: (by: string) => unknown;
}

async function answerAdmin(
  { config: keeper, acknowledgeFence, orderFence, countAll, mayRestart, restart }: AdminActions,
  asked: unknown,
): Promise<unknown> {
  const parsed = adminShape.safeParse(asked);
  if (!parsed.success) {
    throw new OperatingError(
      "a question that this dlmd knows expected: config-show, config-apply, fence-node, fence-ack, quorum-reset or restart",
      {
        code: "bad-question",
        hint: "Is coverlay of another version? Restart dlmd after an upgrade.",
      },
    );
  }
  const question = parsed.data;
  if (question.what === "fence-node") return orderFence(question.nodeid, question.by);
  if (question.what === "may-restart") return mayRestart();
  if (question.what === "restart") return restart(question.by);
  if (question.what === "quorum-reset") return countAll(question.by);
  if (question.what === "fence-ack") return acknowledgeFence(question.nodeid, question.by);
  if (question.what === "config-apply") return { version: await keeper.apply(question.text, question.source) };
  const { committed, pending } = keeper.kept;
  const open = pending === null ? null : { version: pending.record.version, text: pending.record.text };
  return { version: committed.version, text: committed.text, pending: open };
}

/**
 * The key file is read again when it changes and at SIGHUP. Keys that cannot be used are told, and the ones in use stay.
 */
async function followKeys(keyFile: string, first: Keyring, driver: Driver, log: Log): Promise<void> {
  let keys = first;
  const idsOf = (keyring: Keyring): string => keyring.all.map(({ id }) => id).join(" ");
  const read = (): void => {
    let now: Keyring;
    try {
      now = readKeyring(keyFile);
    } catch (error) {
      if (!(error instanceof OperatingError)) throw error;
      log.error({ error: error.message, hint: error.hint, keys: idsOf(keys) }, "the key file cannot be used: the keys stay as they were");
      return;
    }
    if (idsOf(now) === idsOf(keys)) return;
    log.info({ keys: idsOf(now), before: idsOf(keys), spokenWith: now.first.id }, "cluster keys changed");
    keys = now;
    driver.setKeyring(now);
  };
  process.on("SIGHUP", read);
  await watchFile(keyFile, read, log);
  // It may have changed since it was read first.
  read();
}

interface LeavingShell {
  readonly driver: Driver;
  readonly admin: () => AdminServer | null;
  readonly log: Log;
  readonly pidFile: string;
  readonly manager: ServiceManager;
}

/** SIGTERM and SIGINT leave the cluster; a second one does not wait for it. */
function leaveOnSignal({ driver, admin, log, pidFile, manager }: LeavingShell): Leaving {
  const leaving = new Leaving({
    log,
    async leave() {
      const programs = driver.programsAtWork();
      if (programs.length > 0)
        log.warn({ programs, hint: "Next time unmount first: coverlay umount DIRECTORY" }, "programs lose their locks");
      await admin()?.close();
      await driver.leave();
    },
    end() {
      rmSync(pidFile, { force: true });
      log.info({}, "left");
      process.exit(EXIT.OK);
    },
    startAnew() {
      log.info({}, "left; the installed program starts in this process");
      giveUp(log, startAnew(manager.environment));
    },
    failed: (error) => giveUp(log, error),
    endAtOnce: () => process.exit(EXIT.FAILURE),
  });
  const stop = (signal: NodeJS.Signals): void => {
    manager.stopping();
    leaving.signal(signal);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  return leaving;
}

function giveUp(log: Log, error: Error): never {
  if (error instanceof OperatingError) {
    const { message, hint, exitStatus } = error;
    log.error({ error: message, hint }, "dlmd ends");
    process.exit(exitStatus === EXIT.FAILURE ? EXIT.FATAL : exitStatus);
  }
  log.error({ error: error.message, stack: error.stack }, "dlmd gives up: it no longer knows what this node holds");
  process.exit(EXIT.FATAL);
}

interface Shell {
  readonly runDir: string;
  readonly processes: PeerProcesses;
  readonly manager: ServiceManager;
  readonly log: Log;
}

function requireQuorumElsewhere(driver: Driver): void {
  if (driver.othersAreQuorate) return;
  throw new OperatingError(
    "the other nodes have no quorum without this one: their mounts would stand still, and the owner would give its disk up",
    {
      code: "no-quorum-elsewhere",
      hint: "Wait until more nodes are there: coverlay nodes. Restart one node at a time.",
    },
  );
}

async function serveAdministrators(driver: Driver, { runDir, processes, manager, log }: Shell): Promise<void> {
  const pidFile = path.join(runDir, "dlmd.pid");
  try {
    writeFileSync(pidFile, `${process.pid}\n`);
  } catch (error) {
    throw unkept("the pid", pidFile, error);
  }
  const { config: keeper } = driver;
  await keeper.keep();
  const actions: AdminActions = {
    config: keeper,
    acknowledgeFence: (nodeid, by) => driver.acknowledgeFence(nodeid, by),
    orderFence: (nodeid, by) => driver.orderFence(nodeid, by),
    countAll: (by) => driver.countAll(by),
    mayRestart: () => {
      leaving.requireStaying();
      requireQuorumElsewhere(driver);
      return {};
    },
    restart: (by) => {
      leaving.requireStaying();
      requireQuorumElsewhere(driver);
      const programs = driver.programsAtWork();
      if (programs.length > 0) {
        const hint = "End these programs, or have mounts paused: coverlay restart --dlmd";
        throw new OperatingError(`programs would lose their locks: ${programs.join(", ")}`, { code: "programs-at-work", hint });
      }
      leaving.restart(by);
      return { pid: process.pid };
    },
  };
  let admin: AdminServer | null = null;
  const leaving = leaveOnSignal({ driver, admin: () => admin, log, pidFile, manager });
  admin = await startAdminServer({
    socketPath: adminSocketPath(runDir),
    log,
    processes,
    answer: (question) => answerAdmin(actions, question),
  });
}

async function main(): Promise<void> {
  const args = await parseArguments(process.argv.slice(2));
  const leastMs = minTimeoutMs(process.env);
  const { text } = readClusterConfig(args.config, leastMs);
  const runDir = path.resolve(args.runDir);
  makeOwnDirectory("run directory", runDir, "--run-dir");
  const stateDir = path.resolve(args.stateDir ?? (runDir === DEFAULT_RUN_DIR ? DEFAULT_STATE_DIR : runDir));
  if (stateDir !== runDir) makeOwnDirectory("state directory", stateDir, "--state-dir");
  const keptFile = path.join(stateDir, "config.json");
  // With --new-config nothing that was kept counts, so it need not be readable either.
  const before = args.newConfig ? null : await readKeptConfig(keptFile);
  const kept = startingConfig(before, text, args.config, leastMs);
  const config = decodeClusterConfig(kept.committed.text, keptFile, leastMs);
  const keyFile = clusterKeyPath(args.config, config);
  const keyring = readKeyring(keyFile);
  const metricsAddress = args.metrics === "none" ? null : parseMetricsAddress(args.metrics ?? path.join(runDir, "metrics.sock"));
  const log = openLog(args);
  const metrics = createMetrics();
  raisePriority(PRIORITY, log);
  const manager = serviceManager(process.env, config.timeoutMs, log);
  manager.stepDone();
  const self = await ownNode(config, args.node, manager.isThere ? ADDRESS_LIMIT_MS : 0, {
    addresses: () => Object.values(networkInterfaces()).flatMap((each) => each?.map(({ address }) => address) ?? []),
    sleep: (ms) => sleep(ms),
    nowMs: () => performance.now(),
    waits(why) {
      log.warn({ limitMs: ADDRESS_LIMIT_MS }, why);
      manager.status(why);
      manager.waits(ADDRESS_LIMIT_MS);
    },
  });
  manager.stepDone();
  process.on("uncaughtException", (error) => giveUp(log, error));
  // `ready` alone goes there: to nobody who reads it any more, or to a full disk.
  process.stdout.on("error", ({ message }) =>
    log.warn({ error: message }, "`ready` cannot be written to standard output; this node goes on"),
  );
  const processes = peerProcesses();
  const driver = await startDriver({
    kept,
    keptFile,
    configFile: path.resolve(args.config),
    minTimeoutMs: leastMs,
    self,
    keyring,
    runDir,
    stateDir,
    createNode,
    nowMs: bootClock(),
    log,
    metrics,
    processes,
    runCheck: checkProcess({ config: path.resolve(args.config), node: self.name, runDir, log }),
    onView: (view) => {
      const { viewId, members, quorate, running, quorumReason } = view;
      log.info({ viewId, members, quorate, running, quorumReason }, "view");
      manager.status(viewWords(view));
    },
    onStep: () => manager.stepDone(),
    fatal: (error) => giveUp(log, error),
  });
  manager.stepDone();
  try {
    if (metricsAddress !== null) await serveMetrics(metricsAddress, { metrics, query: (what) => driver.query(what) }, log);
    manager.stepDone();
    await serveAdministrators(driver, { runDir, processes, manager, log });
    manager.stepDone();
    await followKeys(keyFile, keyring, driver, log);
    manager.stepDone();
    const configChanged = (): void => void driver.config.fileChanged();
    process.on("SIGHUP", configChanged);
    await watchFile(args.config, configChanged, log);
  } catch (error) {
    await driver.leave("dlmd could not start");
    throw error;
  }
  process.stdout.write("ready\n");
  manager.ready();
}

main().catch((error: unknown) => {
  if (!(error instanceof OperatingError)) throw error;
  process.stderr.write(`dlmd: ${error.message}\n`);
  if (error.hint !== undefined) process.stderr.write(`  ${error.hint}\n`);
  // Sockets that were opened before it failed must not keep it alive.
  process.exit(error.exitStatus);
});
