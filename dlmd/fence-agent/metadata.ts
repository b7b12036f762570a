/** What a fence agent says of itself (FenceAgentAPI, action "metadata"): its options, and its actions. */
import { XMLParser, XMLValidator } from "fast-xml-parser";
import * as z from "zod";

export interface AgentParameter {
  readonly name: string;
  readonly isRequired: boolean;
  readonly isDeprecated: boolean;
  /** Of a deprecated name that this one stands for. */
  readonly obsoletes: string | null;
  readonly type: string;
  readonly hasDefault: boolean;
}

export interface AgentMetadata {
  /** As the agent calls itself. */
  readonly name: string;
  readonly parameters: ReadonlyMap<string, AgentParameter>;
  readonly actions: ReadonlySet<string>;
}

/** It is no metadata. */
export class MetadataError extends Error {}

/** How an agent is told which node is meant, the newest way first. */
const plugNames = ["plug", "port", "nodename"] as const;

/** Attributes begin with "@"; elements that may be there several times are lists. No value is turned into a number. */
const parser = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: "@",
  parseTagValue: false,
  parseAttributeValue: false,
  isArray: (name) => ["parameter", "action", "content", "parameters", "actions"].includes(name),
});

/** An element without attributes and children is a string. */
const element = <T extends z.ZodRawShape>(shape: T) =>
  z.preprocess((value) => (typeof value === "string" ? {} : value), z.looseObject(shape));
const text = z.string().optional();
const parameter = element({
  "@name": z.string(),
  "@required": text,
  "@deprecated": text,
  "@obsoletes": text,
  content: z.array(element({ "@type": text, "@default": text })).default([]),
});
const document = z.object({
  "resource-agent": element({
    "@name": text,
    parameters: z.array(element({ parameter: z.array(parameter).default([]) })).default([]),
    actions: z.array(element({ action: z.array(element({ "@name": z.string() })).default([]) })).default([]),
  }),
});

function parameterOf(found: z.infer<typeof parameter>): AgentParameter {
  const [content] = found.content;
  return {
    name: found["@name"],
    isRequired: found["@required"] === "1",
    isDeprecated: found["@deprecated"] === "1",
    obsoletes: found["@obsoletes"] ?? null,
    type: content?.["@type"] ?? "",
    hasDefault: content?.["@default"] !== undefined,
  };
}

function parse(text: string): unknown {
  // Entities of its own would be expanded.
  if (/<!DOCTYPE/i.test(text)) throw new MetadataError("no document type expected");
  const valid = XMLValidator.validate(text);
  if (valid !== true) throw new MetadataError(`no XML in line ${valid.err.line}: ${valid.err.msg}`);
  try {
    return parser.parse(text);
  } catch (cause) {
    throw new MetadataError(`no XML: ${(cause as Error).message}`, { cause });
  }
}

/** Throws MetadataError. */
export function parseMetadata(text: string): AgentMetadata {
  const { success, data, error } = document.safeParse(parse(text.trim()));
  if (!success) throw new MetadataError(`<resource-agent> with parameters and actions expected: ${z.prettifyError(error)}`);
  const root = data["resource-agent"];
  const parameters = root.parameters.flatMap((list) => list.parameter.map(parameterOf));
  return {
    name: root["@name"] ?? "",
    parameters: new Map(parameters.map((one) => [one.name, one])),
    actions: new Set(root.actions.flatMap((list) => list.action.map((action) => action["@name"]))),
  };
}

/** The option that names the node; null: the agent has none. */
export function plugOption({ parameters }: AgentMetadata): string | null {
  return plugNames.find((name) => parameters.has(name)) ?? null;
}
