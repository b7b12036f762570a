/**
 * What the lab's fence agent is asked, and what it says of itself, as the FenceAgentAPI of ClusterLabs has it: options as `key=value` lines on
 * stdin, or on the command line, and metadata in XML. Pure.
 */

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
  const given = words.length > 0 ? fromWords(words) : fromLines(input);
  if (typeof given === "string") return { kind: "wrong", why: given };
  const first = (names: readonly string[]): string => names.map((name) => given.get(name)).find((value) => value !== undefined) ?? "";
  const action = first(OPTIONS.action);
  const known = FENCE_ACTIONS.find((one) => one === action);
  if (known === undefined) {
    return { kind: "wrong", why: `an action is expected (${FENCE_ACTIONS.join(", ")}), found ${action === "" ? "none" : action}` };
  }
  const request = { action: known, plug: first(OPTIONS.plug), dir: first(OPTIONS.dir) };
  const missing =
    known === "metadata" ? [] : [...(request.dir === "" ? ["dir"] : []), ...(needsPlug(known) && request.plug === "" ? ["plug"] : [])];
  if (missing.length > 0) return { kind: "wrong", why: `the action ${known} needs the option ${missing.join(" and ")}` };
  return { kind: "request", request, ignored: [...given.keys()].filter((key) => !KNOWN.has(key)) };
}

function needsPlug(action: FenceAction): boolean {
  return action === "off" || action === "on" || action === "status";
}

function fromLines(input: string): Map<string, string> | string {
  const given = new Map<string, string>();
  for (const line of input.split("\n").map((one) => one.trim())) {
    if (line === "" || line.startsWith("#")) continue;
    const at = line.indexOf("=");
    if (at < 1) return `lines of the form key=value are expected, found ${JSON.stringify(line.slice(0, 40))}`;
    given.set(line.slice(0, at).trim(), line.slice(at + 1).trim());
  }
  return given;
}

function fromWords(words: readonly string[]): Map<string, string> | string {
  const given = new Map<string, string>();
  for (let at = 0; at < words.length; at++) {
    const [name = "", joined] = (words[at] ?? "").split(/=(.*)/s);
    const key = SHORT[name];
    if (key === undefined) return `options -o ACTION, -n NODE and --dir DIR are expected, found ${words[at]}`;
    const value = joined ?? words[++at];
    if (value === undefined) return `${name} needs a value`;
    given.set(key, value);
  }
  return given;
}

const parameter = (
  name: string,
  required: boolean,
  option: string,
  words: string,
): string => `  <parameter name="${name}" unique="0" required="${required ? 1 : 0}">
    <getopt mixed="${option}" />
    <content type="string" />
    <shortdesc lang="en">${words}</shortdesc>
  </parameter>`;

export const FENCE_METADATA: string = `<?xml version="1.0" ?>
<resource-agent name="fence_lab" shortdesc="Fence agent of a coverlay lab">
<longdesc>Cuts a node of a coverlay lab off its disk, then switches it off.</longdesc>
<vendor-url></vendor-url>
<parameters>
${parameter("action", true, "-o, --action=[action]", "Fencing action")}
${parameter("plug", false, "-n, --plug=[node]", "Name of the node")}
${parameter("port", false, "-n, --plug=[node]", "Name of the node")}
${parameter("dir", true, "--dir=[directory]", "Directory of the lab")}
</parameters>
<actions>
${FENCE_ACTIONS.map((name) => `  <action name="${name}"${name === "on" ? ' automatic="0"' : ""} />`).join("\n")}
</actions>
</resource-agent>
`;
