/** What a fence agent says of itself (FenceAgentAPI, action "metadata"): its options, and its actions. Pure. */
import { parseXml, XmlError, type XmlElement } from "./xml.ts";

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

/** How an agent is told which node is meant, the newest way first. */
const plugNames = ["plug", "port", "nodename"] as const;

function child(element: XmlElement, name: string): XmlElement | undefined {
  return element.children.find((one) => one.name === name);
}

function parameterOf({ attributes, children }: XmlElement): AgentParameter {
  const content = children.find(({ name }) => name === "content");
  return {
    name: attributes.get("name") ?? "",
    isRequired: attributes.get("required") === "1",
    isDeprecated: attributes.get("deprecated") === "1",
    obsoletes: attributes.get("obsoletes") ?? null,
    type: content?.attributes.get("type") ?? "",
    hasDefault: content?.attributes.has("default") ?? false,
  };
}

/** Throws XmlError: it is no metadata. */
export function parseMetadata(text: string): AgentMetadata {
  const root = parseXml(text.trim());
  if (root.name !== "resource-agent") throw new XmlError(`<resource-agent> expected, found <${root.name}>`);
  const parameters = (child(root, "parameters")?.children ?? []).filter(({ name }) => name === "parameter").map(parameterOf);
  const actions = (child(root, "actions")?.children ?? []).flatMap(({ name, attributes }) =>
    name === "action" ? [attributes.get("name") ?? ""] : [],
  );
  return {
    name: root.attributes.get("name") ?? "",
    parameters: new Map(parameters.map((parameter) => [parameter.name, parameter])),
    actions: new Set(actions),
  };
}

/** The option that names the node; null: the agent has none. */
export function plugOption({ parameters }: AgentMetadata): string | null {
  return plugNames.find((name) => parameters.has(name)) ?? null;
}
