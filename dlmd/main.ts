#!/usr/bin/env node
/**
 * dlmd, the lock manager daemon of a node: composition root. Stays in the foreground; prints `ready` on stdout when its
 * local socket listens.
 */
import { rmSync, writeFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import path from "node:path";
import yargs from "yargs";
import * as z from "zod";
import { hideBin } from "yargs/helpers";
import { OperatingError } from "./base/error.ts";
import type { Log } from "./base/log.ts";
import { createMetrics } from "./base/metric.ts";
import { raisePriority } from "./base/priority.ts";
import { adminSocketPath } from "./client/admin.ts";
import { type ClusterConfig, decodeClusterConfig } from "./config/cluster-config.ts";
import type { NodeConfig } from "./config/votes.ts";
import { type ConfigKeeper, readKeptConfig, startingConfig } from "./driver/config-keeper.ts";
import { type AdminServer, startAdminServer } from "./server/admin-server.ts";
import { nearestWord } from "./base/nearest.ts";
import { unkept } from "./driver/atomic-file.ts";
import { createBootClock } from "./driver/clock.ts";
import { clusterKeyPath, minTimeoutMs, readClusterConfig, readKeyring } from "./driver/cluster-files.ts";
import { type Driver, startDriver } from "./driver/driver.ts";
import { type LogLevel, createPinoLog, logLevels } from "./base/pino-log.ts";
import { watchFile } from "./driver/file-watch.ts";
import type { Keyring } from "./tls/keyring.ts";
import { makeOwnDirectory } from "./driver/own-directory.ts";
import { createNode } from "./node.ts";
import { type PeerProcesses, peerProcesses } from "./server/peer-process.ts";
import { parseMetricsAddress, serveMetrics } from "./server/metrics-page.ts";

/** A heartbeat that is late for want of the processor looks like a dead node. */
const PRIORITY = -15;
/** The exit status of a node that no longer knows what it holds (EX_SOFTWARE). */
const EXIT_FATAL = 70;
const EXIT_REFUSED = 1;
const DEFAULT_RUN_DIR = "/run/coverlay";
/** Not under /run, which a restart of the machine empties. */
const DEFAULT_STATE_DIR = "/var/lib/coverlay";

interface Arguments {
  readonly config: string;
  readonly node: string | undefined;
  readonly runDir: string;
  readonly stateDir: string | undefined;
  readonly newConfig: boolean;
  readonly logLevel: LogLevel;
  readonly jsonLog: string | undefined;
  readonly metrics: string | undefined;
}

async function parseArguments(): Promise<Arguments> {
  return yargs(hideBin(process.argv))
    .scriptName("dlmd")
    .usage(
      "$0 --config FILE [options]\n\nThe lock manager daemon of a node. Runs in the foreground, and prints `ready` when programs may connect.",
    )
    .option("config", { type: "string", default: "/etc/coverlay/cluster.yaml", describe: "the cluster's configuration", requiresArg: true })
    .option("node", {
      type: "string",
      describe: "which node of the configuration this is [the one whose address this machine has]",
      requiresArg: true,
    })
    .option("run-dir", {
      type: "string",
      default: DEFAULT_RUN_DIR,
      describe: "where the sockets, the pid and the state are: made with mode 0700, refused if others may enter it",
      requiresArg: true,
    })
    .option("state-dir", {
      type: "string",
      describe: `where what must outlive a restart of the machine is [${DEFAULT_STATE_DIR}; with another --run-dir, that]`,
      requiresArg: true,
    })
    .option("new-config", {
      type: "boolean",
      default: false,
      describe:
        "the configuration file is new: take it instead of what was agreed on. Only with dlmd stopped on every node, or where the others refuse this node's file: its log says so",
    })
    .option("log-level", { choices: logLevels, default: "info" as const, describe: "what to log to stderr" })
    .option("json-log", { type: "string", describe: "log to this file too, as JSON lines", requiresArg: true })
    .option("metrics", {
      type: "string",
      describe:
        "where Prometheus reads GET /metrics: a socket's path (no other file is replaced), a loopback ADDRESS:PORT, or none [RUN-DIR/metrics.sock]",
      requiresArg: true,
    })
    .example("$0", "this machine's node of /etc/coverlay/cluster.yaml")
    .example("$0 --config cluster.yaml --node node1 --run-dir /tmp/node1", "one of several nodes on one machine")
    .example("$0 --metrics 127.0.0.1:9177", "figures for Prometheus on a port of this machine")
    .example("$0 --log-level debug --json-log /var/log/dlmd.json", "more to read")
    .epilogue(
      "SIGTERM and SIGINT leave the cluster cleanly. Exit status: 0 after that, 1 if it could not start, 70 if it gave up, 74 if a disk cannot keep what this node must know.",
    )
    .parserConfiguration({ "duplicate-arguments-array": false })
    .strict()
    .version(false)
    .wrap(110)
    .parseAsync();
}

function namedNode(config: ClusterConfig, name: string): NodeConfig {
  const node = config.nodes.find((each) => each.name === name);
  if (node !== undefined) return node;
  const names = config.nodes.map((each) => each.name);
  const nearest = nearestWord(name, names);
  throw new OperatingError(`node ${name} is not in the configuration, which has ${names.join(", ")}`, {
    code: "unknown-node",
    hint: nearest === null ? "Name one of those with --node." : `Did you mean --node ${nearest}?`,
  });
}

/** Which node this is: the named one, else the one whose address an interface of this machine has. */
function findSelf(config: ClusterConfig, name: string | undefined): NodeConfig {
  if (name !== undefined) return namedNode(config, name);
  const here = new Set(Object.values(networkInterfaces()).flatMap((each) => each?.map(({ address }) => address) ?? []));
  const found = config.nodes.filter((each) => here.has(each.address));
  const [node] = found;
  if (node !== undefined && found.length === 1) return node;
  const what = found.length === 0 ? "no node" : `several nodes (${found.map((each) => each.name).join(", ")})`;
  throw new OperatingError(`${what} of the configuration has an address of this machine (${[...here].join(", ")})`, {
    code: "unknown-node",
    hint: "Say which node this is with --node, or correct the addresses.",
  });
}

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
]);

interface AdminActions {
  readonly config: ConfigKeeper;
  readonly acknowledgeFence: (nodeid: number, by: string) => unknown;
  readonly orderFence: (nodeid: number, by: string) => unknown;
  readonly countAll: (by: string) => unknown;
}

async function answerAdmin({ config: keeper, acknowledgeFence, orderFence, countAll }: AdminActions, asked: unknown): Promise<unknown> {
  const parsed = adminShape.safeParse(asked);
  if (!parsed.success) {
    throw new OperatingError("a question that this dlmd knows expected: config-show, config-apply, fence-node, fence-ack or quorum-reset", {
      code: "bad-question",
      hint: "Is coverlay of another version? Restart dlmd after an upgrade.",
    });
  }
  const question = parsed.data;
  if (question.what === "fence-node") return orderFence(question.nodeid, question.by);
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

/** SIGTERM and SIGINT leave the cluster; a second one does not wait for it. */
function leaveOnSignal(driver: Driver, admin: AdminServer, log: Log, pidFile: string): void {
  let leaving = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (leaving) process.exit(EXIT_REFUSED);
    leaving = true;
    log.info({ signal }, "leaving the cluster");
    const left = admin.close().then(() => driver.leave());
    left.then(
      () => {
        rmSync(pidFile, { force: true });
        log.info({}, "left");
        process.exit(0);
      },
      (error: unknown) => giveUp(log, error as Error),
    );
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

function giveUp(log: Log, error: Error): never {
  if (error instanceof OperatingError) {
    const { message, hint, exitStatus } = error;
    log.error({ error: message, hint }, "dlmd ends");
    process.exit(exitStatus === EXIT_REFUSED ? EXIT_FATAL : exitStatus);
  }
  log.error({ error: error.message, stack: error.stack }, "dlmd gives up: it no longer knows what this node holds");
  process.exit(EXIT_FATAL);
}

async function serveAdministrators(driver: Driver, runDir: string, processes: PeerProcesses, log: Log): Promise<void> {
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
  };
  const admin = await startAdminServer({
    socketPath: adminSocketPath(runDir),
    log,
    processes,
    answer: (question) => answerAdmin(actions, question),
  });
  leaveOnSignal(driver, admin, log, pidFile);
}

async function main(): Promise<void> {
  const args = await parseArguments();
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
  const self = findSelf(config, args.node);
  const metricsAddress = args.metrics === "none" ? null : parseMetricsAddress(args.metrics ?? path.join(runDir, "metrics.sock"));
  const log = openLog(args);
  const metrics = createMetrics();
  raisePriority(PRIORITY, log);
  process.on("uncaughtException", (error) => giveUp(log, error));
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
    nowMs: createBootClock(),
    log,
    metrics,
    processes,
    onView: ({ viewId, members, quorate, running, quorumReason }) => log.info({ viewId, members, quorate, running, quorumReason }, "view"),
    fatal: (error) => giveUp(log, error),
  });
  try {
    if (metricsAddress !== null) await serveMetrics(metricsAddress, { metrics, query: (what) => driver.query(what) }, log);
    await serveAdministrators(driver, runDir, processes, log);
    await followKeys(keyFile, keyring, driver, log);
    await watchFile(args.config, () => void driver.config.fileChanged(), log);
  } catch (error) {
    await driver.leave("dlmd could not start");
    throw error;
  }
  process.stdout.write("ready\n");
}

main().catch((error: unknown) => {
  if (!(error instanceof OperatingError)) throw error;
  process.stderr.write(`dlmd: ${error.message}\n`);
  if (error.hint !== undefined) process.stderr.write(`  ${error.hint}\n`);
  // Sockets that were opened before it failed must not keep it alive.
  process.exit(error.exitStatus);
});
