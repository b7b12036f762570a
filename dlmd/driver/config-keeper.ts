/**
 * The configuration of a node between its disk, its peers and its core: runs config/change.ts. What is in force is kept in config.json
 * of the state's folder, and put into cluster.yaml for people; that file alone never changes what counts. Edited with the next version, it is
 * proposed to the cluster.
 */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { assertNever } from "../base/assert.ts";
import { OperatingError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import { createLimitedWarn, type LimitedWarn } from "../base/log-limiter.ts";
import { changeObjection, fixedDifference } from "../config/allowed-change.ts";
import { configRecordOf, decodeConfigMessage, decodeKeptConfig, encodeConfigMessage, encodeKeptConfig } from "../config/change-codec.ts";
import type { ConfigEffect, ConfigEvent } from "../config/change-event.ts";
import { ConfigChange } from "../config/change.ts";
import { type ConfigRecord, isAgreed, type KeptConfig } from "../config/record.ts";
import { type ClusterConfig, decodeClusterConfig } from "../config/cluster-config.ts";
import { fencePlansOf } from "../config/fence-config.ts";
import type { NodeConfig } from "../config/votes.ts";
import type { ViewInfo } from "../wire/program.ts";
import type { Counting } from "../wire/view-id.ts";
import type { NodeConfiguration } from "../engine/boot.ts";
import { tryWriting, unkept, writeAtomic, writeInPlace } from "./atomic-file.ts";
import type { ConfigOffer } from "./handshake.ts";

/** A request that the cluster did not decide in that time is left to it; the asker hears that. */
export const APPLY_TIMEOUT_MS = 30_000;
/** A disk that could not keep a configuration is tried again after that; the change waits meanwhile, as for a slow disk. */
export const REWRITE_PAUSE_MS = 2000;

/** The same refusal of what peers offer, or of a disk, is not logged more often, and less often while it goes on (base/log-limiter.ts). */
const LOG_INTERVAL_MS = 10_000;

export interface ConfigKeeperOptions {
  readonly nodeid: number;
  readonly kept: KeptConfig;
  /** Where it is kept. */
  readonly file: string;
  /** cluster.yaml. */
  readonly configFile: string;
  readonly minTimeoutMs: number;
  readonly log: Log;
  readonly send: (nodeid: number, body: Uint8Array) => void;
  readonly count: (configuration: NodeConfiguration) => void;
  /** Another configuration is in force here. Nodes that are not in the view with these hear of it when they connect. */
  readonly changed: (members: readonly number[]) => void;
  readonly fatal: (error: Error) => void;
}

function decode(record: ConfigRecord): ClusterConfig {
  return decodeClusterConfig(record.text, "the configuration kept", 1);
}

/** By what a node counts that keeps that. */
export function countedBy(
  record: ConfigRecord,
  former: ConfigRecord | null,
): Required<Pick<NodeConfiguration, "quorum">> & NodeConfiguration {
  const config = decode(record);
  const { version, nodes, quorum } = config;
  const { two_node: twoNode, wait_for_all: waitForAll, auto_tie_breaker: autoTieBreaker } = quorum;
  const lastManStandingMs = quorum.last_man_standing ? quorum.last_man_standing_window_ms : null;
  const before = former === null ? {} : { former: decode(former).nodes };
  const fencePlans = fencePlansOf(config);
  return { version, nodes, quorum: { twoNode, waitForAll, autoTieBreaker, lastManStandingMs }, fencePlans, ...before };
}

/** What a node keeps, or null on one that has never run. Throws OperatingError for what cannot be read. */
export async function readKeptConfig(file: string): Promise<KeptConfig | null> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw unkept("the configuration", file, error);
  }
  try {
    return decodeKeptConfig(text);
  } catch (error) {
    if (error instanceof OperatingError && error.code === "bad-config") {
      throw new OperatingError(`the configuration kept in ${file} is refused by this version of dlmd: ${error.message}`, {
        code: "bad-config",
        hint: "Stop dlmd on every node, correct cluster.yaml on each, and start each with --new-config.",
        cause: error,
      });
    }
    throw new OperatingError(`the configuration kept in ${file} is damaged: ${(error as Error).message}`, {
      code: "bad-state",
      hint: "It is written as a whole: look for a failing disk. With dlmd stopped on every node it may be removed.",
      cause: error,
    });
  }
}

/**
 * What a node starts with: what it kept. `kept` null: it never ran, or a person says that the file is new (--new-config). A file that
 * was edited here alone must not be able to make a quorum of its own (hazard C8).
 */
export function startingConfig(kept: KeptConfig | null, text: string, source: string, minTimeoutMs: number): KeptConfig {
  const found = configRecordOf(text, source, minTimeoutMs);
  if (kept === null) return { committed: found, agreedBy: [], trail: [], pending: null, counting: null };
  const { committed } = kept;
  const [before, now] = [decode(committed), decode(found)];
  const refuse = (message: string, hint: string): OperatingError => new OperatingError(message, { code: "config-version", hint });
  if (before.cluster !== now.cluster) {
    throw refuse(
      `this node's state is of cluster ${before.cluster}, but ${source} is of cluster ${now.cluster}`,
      "Name another --run-dir, or, if this machine changed its cluster, start once with --new-config.",
    );
  }
  if (found.version > committed.version && found.fingerprint !== kept.pending?.record.fingerprint) {
    throw refuse(
      `${source} has version ${found.version}, but the cluster agreed on version ${committed.version}`,
      "Put the old file back (`coverlay config show` on another node) and use `coverlay config apply`; or, if dlmd was stopped on every node, start each with --new-config.",
    );
  }
  if (found.version === committed.version && found.fingerprint !== committed.fingerprint) {
    throw refuse(
      `${source} is not the version ${found.version} that the cluster agreed on`,
      "Changes need the next version and `coverlay config apply`. `coverlay config show` on another node prints the right file.",
    );
  }
  return kept;
}

interface Waiting {
  readonly resolve: (version: number) => void;
  readonly reject: (error: Error) => void;
}

export class ConfigKeeper {
  readonly #options: ConfigKeeperOptions;
  readonly #core: ConfigChange;
  readonly #warn: LimitedWarn;
  readonly #error: LimitedWarn;
  readonly #waiting = new Map<number, Waiting>();
  #config: ClusterConfig;
  #hash: Uint8Array;
  #requests = 0;
  /** Of the present view. */
  #members: readonly number[] = [];
  #writing: Promise<void> = Promise.resolve();
  /** cluster.yaml, for people. */
  #showing: Promise<void> = Promise.resolve();
  /** At cluster.yaml: the one under way or to come, and the one that has not begun. */
  #look: Promise<void> = Promise.resolve();
  #nextLook: Promise<void> | null = null;
  #isClosed = false;
  #endWaiting: () => void = () => {};
  readonly #closed: Promise<void> = new Promise((resolve) => (this.#endWaiting = resolve));

  constructor(options: ConfigKeeperOptions) {
    this.#options = options;
    const nowMs = (): number => performance.now();
    this.#warn = createLimitedWarn(options.log, LOG_INTERVAL_MS, nowMs);
    this.#error = createLimitedWarn(options.log, LOG_INTERVAL_MS, nowMs, "error");
    const { committed } = options.kept;
    this.#core = new ConfigChange(options.nodeid, options.kept, (from, to, members) => changeObjection(decode(from), decode(to), members));
    this.#config = decode(committed);
    this.#hash = hashOf(committed);
  }

  /** In force. */
  get config(): ClusterConfig {
    return this.#config;
  }
  get kept(): KeptConfig {
    return this.#core.kept;
  }
  /** What a node with an older one is offered; null: the cluster never agreed on ours. */
  get offer(): ConfigOffer | null {
    const { committed, agreedBy, trail, counting } = this.#core.kept;
    return agreedBy.length === 0 ? null : { version: committed.version, text: committed.text, agreedBy, trail, counting };
  }
  get hash(): Uint8Array {
    return this.#hash;
  }
  /** By what votes are counted when a life begins. */
  get counted(): NodeConfiguration {
    const { committed, pending, counting } = this.#core.kept;
    return {
      agreed: isAgreed(this.#core.kept),
      ...(pending === null ? countedBy(committed, null) : countedBy(pending.record, committed)),
      counting,
    };
  }
  /** Who may be talked to. */
  get nodes(): readonly NodeConfig[] {
    const { nodes, former } = this.counted;
    const known = new Set(nodes.map(({ nodeid }) => nodeid));
    return [...nodes, ...(former ?? []).filter(({ nodeid }) => !known.has(nodeid))];
  }

  /** `counting`: who counts from it on; null: it is not quorate. */
  view({ viewId, members, quorate }: ViewInfo, counting: Counting | null): void {
    const epoch = Number.parseInt(viewId, 10);
    this.#members = members;
    // A life begins in no view. It is not bound by the last view of the life before, from which it may have been evicted.
    this.#step(epoch > 0 ? { kind: "view", view: { epoch, id: viewId, members, quorate, counting } } : { kind: "no-view" });
  }

  settled(viewId: string, version: number): void {
    this.#step({ kind: "settled", view: viewId, version });
  }

  /** A person says that those who count and are away are gone for good. */
  countAll(): void {
    this.#step({ kind: "count-all" });
  }

  /** Throws WireError. */
  receive(from: number, body: Uint8Array): void {
    this.#step({ kind: "message", from, message: decodeConfigMessage(body) });
  }

  /** Another connection to that peer was made. */
  connected(nodeid: number): void {
    this.#step({ kind: "connected", nodeid });
  }

  /** A peer has a later configuration in force. */
  offered(offer: ConfigOffer): void {
    try {
      const record = configRecordOf(offer.text, "a configuration of a peer");
      const config = decode(record);
      if (config.cluster !== this.#config.cluster) return;
      const different = fixedDifference(this.#config, config);
      if (different === null)
        return this.#step({ kind: "offered", record, agreedBy: offer.agreedBy, trail: offer.trail, counting: offer.counting });
      const hint = "Stop this dlmd, put the cluster.yaml of the others here, and start it with --new-config.";
      this.#error(
        `different ${different}`,
        { version: record.version, different, hint },
        "a peer's configuration needs a new start of this dlmd",
      );
    } catch (error) {
      if (!(error instanceof OperatingError)) throw error;
      this.#error("unusable", { error: error.message }, "a peer's configuration cannot be used");
    }
  }

  /** Proposes it to the cluster. Resolves with its version when it is in force here; rejects with OperatingError. */
  async apply(text: string, source: string): Promise<number> {
    const record = configRecordOf(text, source, this.#options.minTimeoutMs);
    await this.#checkRoom(record);
    const requestId = ++this.#requests;
    const decided = new Promise<number>((resolve, reject) => this.#waiting.set(requestId, { resolve, reject }));
    const late = setTimeout(() => {
      const message = `the cluster did not decide about version ${record.version} within ${APPLY_TIMEOUT_MS / 1000} s`;
      const hint = "It may still do so: `coverlay config show` tells. A node may be unable to keep it: see the logs of all.";
      this.#waiting.get(requestId)?.reject(new OperatingError(message, { code: "config-undecided", hint }));
    }, APPLY_TIMEOUT_MS);
    try {
      this.#step({ kind: "apply", requestId, record });
      return await decided;
    } finally {
      clearTimeout(late);
      this.#waiting.delete(requestId);
    }
  }

  /** cluster.yaml changed: by this class, or by a person. One look at a time: of one change both the watch and SIGHUP may tell. */
  fileChanged(): Promise<void> {
    this.#nextLook ??= this.#look.then(() => {
      this.#nextLook = null;
      return this.#lookAtFile();
    });
    this.#look = this.#nextLook;
    return this.#look;
  }

  async #lookAtFile(): Promise<void> {
    const { configFile, log, minTimeoutMs } = this.#options;
    const { committed, pending } = this.#core.kept;
    try {
      const text = await readFile(configFile, "utf8");
      const found = configRecordOf(text, configFile, minTimeoutMs);
      if ([committed.fingerprint, pending?.record.fingerprint].includes(found.fingerprint)) return;
      if (found.version <= committed.version) {
        log.warn(
          { version: found.version, inForce: committed.version },
          "cluster.yaml was changed, but its version was not raised: nothing is done",
        );
        return;
      }
      log.info({ version: found.version }, "cluster.yaml was changed: proposed to the cluster");
      await this.apply(text, configFile);
    } catch (error) {
      const { message, hint } = error as OperatingError;
      log.error({ error: message, hint }, "cluster.yaml was changed, and cannot be used");
    }
  }

  /** Keeps what this node started with: now that it could start. */
  async keep(): Promise<void> {
    const earlier = this.#writing;
    const write = async (): Promise<void> => {
      await earlier;
      // What came meanwhile was written by `earlier` or will be: both are what is kept now.
      const { file } = this.#options;
      try {
        await writeAtomic(file, encodeKeptConfig(this.#core.kept), 0o600);
      } catch (error) {
        throw unkept("the configuration", file, error);
      }
    };
    this.#writing = write();
    await this.#writing;
  }

  /** Throws OperatingError if that disk does not take what this node starts with. */
  async tryKeeping(): Promise<void> {
    const { file } = this.#options;
    try {
      await tryWriting(file, encodeKeptConfig(this.#core.kept), 0o600);
    } catch (error) {
      throw unkept("the configuration", file, error);
    }
  }

  #step(event: ConfigEvent): void {
    for (const effect of this.#core.step(event)) this.#perform(effect);
  }

  #perform(effect: ConfigEffect): void {
    const { send, count, log } = this.#options;
    switch (effect.kind) {
      case "send":
        return send(effect.to, encodeConfigMessage(effect.message));
      case "persist":
        return this.#persist(effect.serial, effect.kept);
      case "count":
        return count({ ...countedBy(effect.record, effect.former), counting: effect.counting, agreed: isAgreed(this.#core.kept) });
      case "inForce":
        return this.#inForce(effect.record);
      case "declined":
        // A peer chooses the numbers in it.
        return this.#warn(effect.reason.replace(/\d+/g, "N"), { reason: effect.reason }, "a peer's configuration is not taken");
      case "applied":
        return this.#waiting.get(effect.requestId)?.resolve(effect.record.version);
      case "refused":
        log.warn({ reason: effect.reason }, "configuration refused");
        return this.#waiting.get(effect.requestId)?.reject(
          new OperatingError(`the configuration was refused: ${effect.reason}`, {
            code: "config-refused",
            hint: "`coverlay config show` prints what is in force; change that, and raise its version by one.",
          }),
        );
      default:
        assertNever(effect, "effect");
    }
  }

  #persist(serial: number, kept: KeptConfig): void {
    const earlier = this.#writing;
    const write = async (): Promise<void> => {
      await earlier;
      if (await this.#writeUntilKept(encodeKeptConfig(kept))) this.#step({ kind: "persisted", serial });
    };
    this.#writing = write().catch((error: unknown) => this.#options.fatal(error as Error));
  }

  /** A full disk holds a change up, and nothing else: what was kept before counts. False: dlmd ends. */
  async #writeUntilKept(text: string): Promise<boolean> {
    const { file } = this.#options;
    for (;;) {
      try {
        await writeAtomic(file, text, 0o600);
        return true;
      } catch (error) {
        this.#error("unkept", { file, error: (error as Error).message }, "the configuration cannot be kept: a change of it waits for that");
      }
      await Promise.race([sleep(REWRITE_PAUSE_MS, undefined, { ref: false }), this.#closed]);
      if (this.#isClosed) return false;
    }
  }

  /** Nothing is proposed that this node could not keep itself. */
  async #checkRoom(record: ConfigRecord): Promise<void> {
    const { file } = this.#options;
    const pending = { record, epoch: 0, view: "" };
    try {
      await tryWriting(file, encodeKeptConfig({ ...this.#core.kept, pending }), 0o600);
    } catch (cause) {
      throw new OperatingError(`this node could not keep version ${record.version} in ${file}: ${(cause as Error).message}`, {
        code: "config-unkept",
        hint: "Nothing was changed. See that there is room on that disk (df), and apply it again.",
        cause,
      });
    }
  }

  #inForce(record: ConfigRecord): void {
    const { nodeid, log, configFile, fatal } = this.#options;
    this.#config = decode(record);
    this.#hash = hashOf(record);
    log.info({ version: record.version, nodes: record.nodes.map((node) => node.nodeid) }, "configuration in force");
    if (!record.nodes.some((node) => node.nodeid === nodeid)) {
      const hint = "It was removed while it was away. To have it back, put it into the next version (coverlay config apply).";
      fatal(new OperatingError(`node ${nodeid} is not in version ${record.version} of the configuration`, { code: "node-removed", hint }));
      return;
    }
    this.#options.changed(this.#members);
    // For people and for the next start; what counts is kept already.
    const earlier = this.#showing;
    this.#showing = earlier
      .then(() => writeInPlace(configFile, record.text))
      .catch((error: unknown) => log.error({ file: configFile, error: (error as Error).message }, "cluster.yaml could not be written"));
  }

  /** What is being written is on disk. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#endWaiting();
    await this.#writing;
    await this.#showing;
  }
}

function hashOf(record: ConfigRecord): Uint8Array {
  return createHash("sha256").update(record.fingerprint).digest();
}
