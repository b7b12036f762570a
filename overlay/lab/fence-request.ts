/**
 * What the lab's fence agent is asked, and what it says of itself, as the FenceAgentAPI of ClusterLabs has it: options as `key=value` lines on
 * stdin, or on the command line, and metadata in XML. Pure.
 */
import { agentOptions, firstGiven, type ParameterWords, parameterXml } from "../../dlmd/base/fence-agent-api.ts";

export const FENCE_ACTIONS = ["off", "on", "status", "monitor", "list", "metadata"] as const;
export type FenceAction = (typeof FENCE_ACTIONS)[number];

export interface FenceRequest {
  readonly action: FenceAction;
  /** Name of the node; "": none was given. */
  readonly plug: string;
  /** Directory of the lab; "": none was given. */
  readonly dir: string;
}

export type ParsedRequest =
  | { readonly kind: "request"; readonly request: FenceRequest; readonly ignored: readonly string[] }
  /** In words: what was expected and found. */
  | { readonly kind: "wrong"; readonly why: string };

/** Names of one option, the first one counts most. `nodename` is given by some callers beside it. */
const OPTIONS = { action: ["action", "option"], plug: ["plug", "port", "nodename"], dir: ["dir"] } as const;
const KNOWN: ReadonlySet<string> = new Set(Object.values(OPTIONS).flat());

const SHORT: Readonly<Record<string, string>> = { "-o": "action", "-n": "plug", "--action": "action", "--plug": "plug", "--dir": "dir" };

/** `words`: the command line; where there is none, `input` counts. */
export function parseFenceRequest(words: readonly string[], input: string): ParsedRequest {
  const given = agentOptions(words, input, SHORT);
  if (typeof given === "string") return { kind: "wrong", why: given };
  const action = firstGiven(given, OPTIONS.action);
  const known = FENCE_ACTIONS.find((one) => one === action);
  if (known === undefined) {
    return { kind: "wrong", why: `an action is expected (${FENCE_ACTIONS.join(", ")}), found ${action === "" ? "none" : action}` };
  }
  const request = { action: known, plug: firstGiven(given, OPTIONS.plug), dir: firstGiven(given, OPTIONS.dir) };
  const missing =
    known === "metadata" ? [] : [...(request.dir === "" ? ["dir"] : []), ...(needsPlug(known) && request.plug === "" ? ["plug"] : [])];
  if (missing.length > 0) return { kind: "wrong", why: `the action ${known} needs the option ${missing.join(" and ")}` };
  return { kind: "request", request, ignored: [...given.keys()].filter((key) => !KNOWN.has(key)) };
}

function needsPlug(action: FenceAction): boolean {
  return action === "off" || action === "on" || action === "status";
}

const parameters: readonly ParameterWords[] = [
  { name: "action", required: true, option: "-o, --action=[action]", words: "Fencing action" },
  { name: "plug", required: false, option: "-n, --plug=[node]", words: "Name of the node" },
  { name: "port", required: false, option: "-n, --plug=[node]", words: "Name of the node" },
  { name: "dir", required: true, option: "--dir=[directory]", words: "Directory of the lab" },
];

export const FENCE_METADATA: string = `<?xml version="1.0" ?>
<resource-agent name="fence_lab" shortdesc="Fence agent of a coverlay lab">
<longdesc>Cuts a node of a coverlay lab off its disk, then switches it off.</longdesc>
<vendor-url></vendor-url>
<parameters>
${parameters.map(parameterXml).join("\n")}
</parameters>
<actions>
${FENCE_ACTIONS.map((name) => `  <action name="${name}"${name === "on" ? ' automatic="0"' : ""} />`).join("\n")}
</actions>
</resource-agent>
`;
