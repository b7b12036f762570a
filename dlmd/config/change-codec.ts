/**
 * The messages of a configuration change, and what is kept of it, as bytes. JSON, because their load is a cluster.yaml as a person wrote
 * it; they are few. A configuration that does not decode is damage like any other: the sender had checked it.
 */
import * as z from "zod";
import { OperatingError, WireError } from "../base/error.ts";
import type { ConfigMessage } from "./change-event.ts";
import type { ConfigRecord, KeptConfig } from "./record.ts";
import { maxEpoch } from "../wire/view-id.ts";
import { MAX_TRAIL } from "./trail.ts";
import { MAX_CONFIG_BYTES, MAX_NODES, MAX_VOTES, canonicalConfig, decodeClusterConfig } from "./cluster-config.ts";

/** JSON may write a sign of the text with six. */
const MAX_FINGERPRINT_CHARS = 6 * MAX_CONFIG_BYTES;
/** Nodes of which a node remembers that they had its configuration in force: as many as a view can have, before and after a change. */
export const MAX_AGREED: number = 2 * MAX_NODES;

const whole = z.int().min(0);
const word = z.string().max(128);
const recordShape = z.strictObject({ version: whole, text: z.string().max(MAX_CONFIG_BYTES) });
// Files of version 0.1.0 name no view, and do not say who agreed.
const pendingShape = z.strictObject({ record: recordShape, epoch: whole, view: word.default("") }).nullable();
const agreedShape = z.array(z.int().min(1).max(65_535)).max(MAX_AGREED).default([]);
// Files of version 0.1.0 do not say how the cluster came to what is in force.
const votersShape = z.array(z.strictObject({ nodeid: z.int().min(1).max(65_535), votes: z.int().min(0).max(MAX_VOTES) })).max(MAX_NODES);
const trailShape = z
  .array(z.strictObject({ version: whole, nodes: votersShape, agreedBy: agreedShape }))
  .max(MAX_TRAIL)
  .default([]);
const nodeidsShape = z
  .array(z.int().min(1).max(65_535))
  .min(1)
  .max(MAX_NODES)
  .refine((nodeids) => nodeids.every((nodeid, at) => nodeid > (nodeids[at - 1] ?? 0)), "ascending nodeids expected");
// Files of versions that did not keep who counts with the votes have none.
const countingShape = z
  .strictObject({
    id: z.strictObject({ epoch: whole.max(maxEpoch), proposer: whole.max(65_535), incarnation: z.string().regex(/^[0-9a-f]{16}$/) }),
    electorate: z
      .strictObject({ nodeids: nodeidsShape, former: nodeidsShape.nullable() })
      .refine(({ nodeids, former }) => new Set([...nodeids, ...(former ?? [])]).size <= MAX_NODES, "more nodes than a cluster has")
      .nullable(),
  })
  .nullable()
  .default(null);
const inView = { epoch: whole, view: word };
const messageShape = z.discriminatedUnion("kind", [
  z.strictObject({
    ...inView,
    kind: z.literal("report"),
    committed: recordShape,
    trail: trailShape,
    pending: pendingShape,
    counting: countingShape,
  }),
  z.strictObject({ ...inView, kind: z.literal("propose"), record: recordShape }),
  z.strictObject({ ...inView, kind: z.literal("stored"), version: whole, fingerprint: z.string().max(MAX_FINGERPRINT_CHARS) }),
  z.strictObject({ ...inView, kind: z.literal("commit"), record: recordShape, trail: trailShape, counting: countingShape }),
  z.strictObject({ ...inView, kind: z.literal("request"), requestId: whole, record: recordShape }),
  z.strictObject({ ...inView, kind: z.literal("refuse"), requestId: whole, reason: z.string().max(4096) }),
]);
const keptShape = z.strictObject({
  committed: recordShape,
  agreedBy: agreedShape,
  trail: trailShape,
  pending: pendingShape,
  counting: countingShape,
});

/** Least time-out that is accepted from a peer: what it may be was checked where it was applied. */
const ANY_TIMEOUT_MS = 1;

/** Of a configuration's text. Throws OperatingError "bad-config". */
export function configRecordOf(text: string, source: string, minTimeoutMs: number = ANY_TIMEOUT_MS): ConfigRecord {
  const config = decodeClusterConfig(text, source, minTimeoutMs);
  const nodes = config.nodes.map(({ nodeid, votes }) => ({ nodeid, votes }));
  return { version: config.version, fingerprint: canonicalConfig(config), text, nodes };
}

/** A record travels as its text; the rest follows from it. */
function bare(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  if ("text" in value && "fingerprint" in value && "version" in value) return { version: value.version, text: value.text };
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, bare(each)]));
}

function recordFrom({ version, text }: z.infer<typeof recordShape>): ConfigRecord {
  const record = configRecordOf(text, "a configuration of a peer");
  if (record.version !== version) throw new WireError(`configuration said to be version ${version} is version ${record.version}`);
  return record;
}

function pendingFrom(pending: z.infer<typeof pendingShape>): KeptConfig["pending"] {
  return pending === null ? null : { ...pending, record: recordFrom(pending.record) };
}

/** The first of its issues, and where. */
function issueWords({ issues: [first] }: z.ZodError): string {
  return first === undefined ? "" : `${first.path.length === 0 ? "" : `${first.path.join(".")}: `}${first.message}`;
}

function parse<T>(bytes: string, shape: z.ZodType<T>): T {
  try {
    return shape.parse(JSON.parse(bytes));
  } catch (error) {
    // Zod's own message is a text of JSON in many lines.
    const why = error instanceof z.ZodError ? issueWords(error) : (error as Error).message.split("\n", 1)[0];
    throw new WireError(`message of a configuration change: ${why}`);
  }
}

export function encodeConfigMessage(message: ConfigMessage): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(bare(message)));
}

/** Throws WireError. */
export function decodeConfigMessage(body: Uint8Array): ConfigMessage {
  const message = parse(new TextDecoder().decode(body), messageShape);
  try {
    switch (message.kind) {
      case "report":
        return { ...message, committed: recordFrom(message.committed), pending: pendingFrom(message.pending) };
      case "propose":
      case "commit":
        return { ...message, record: recordFrom(message.record) };
      case "request":
        return { ...message, record: recordFrom(message.record) };
      default:
        return message;
    }
  } catch (error) {
    if (error instanceof OperatingError) throw new WireError(error.message);
    throw error;
  }
}

export function encodeKeptConfig(kept: KeptConfig): string {
  return `${JSON.stringify(bare(kept))}\n`;
}

/** Throws WireError or OperatingError. */
export function decodeKeptConfig(text: string): KeptConfig {
  const { committed, pending, ...rest } = parse(text, keptShape);
  return { ...rest, committed: recordFrom(committed), pending: pendingFrom(pending) };
}
