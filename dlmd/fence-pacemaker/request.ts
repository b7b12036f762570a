/** What fence_pacemaker is asked, and what it says of itself (FenceAgentAPI). Pure. */
import { agentOptions, firstGiven, type ParameterWords, parameterXml } from "../base/fence-agent-api.ts";

/**
 * Without `status`: Pacemaker knows what it has done, not whether a machine is on. So a caller that wants to look itself, as dlmd does after
 * an `off`, is not told what nobody has seen.
 */
export const PACEMAKER_ACTIONS = ["off", "on", "reboot", "monitor", "metadata", "validate-all"] as const;
export type PacemakerAction = (typeof PACEMAKER_ACTIONS)[number];

/** Shorter than the time-out that cluster.yaml gives an agent where it says none: its words must come before it is killed. */
export const DEFAULT_TIMEOUT_S = 50;
/** As for any agent in cluster.yaml. */
export const MAX_TIMEOUT_S = 600;
const DEFAULT_PROGRAM = "/usr/sbin/stonith_admin";

export interface PacemakerRequest {
  readonly action: PacemakerAction;
  /** As Pacemaker calls the node; "": none was given. */
  readonly plug: string;
  /** What Pacemaker is given for all devices of the node together. */
  readonly timeoutS: number;
  /** Path of stonith_admin. */
  readonly program: string;
}

export type ParsedRequest =
  | { readonly kind: "request"; readonly request: PacemakerRequest; readonly ignored: readonly string[] }
  | { readonly kind: "wrong"; readonly why: string };

const OPTIONS = {
  action: ["action", "option"],
  plug: ["plug", "port", "nodename"],
  timeout: ["timeout"],
  program: ["stonith_admin"],
} as const;
const KNOWN: ReadonlySet<string> = new Set(Object.values(OPTIONS).flat());
const SHORT = {
  "-o": "action",
  "-n": "plug",
  "--action": "action",
  "--plug": "plug",
  "--timeout": "timeout",
  "--stonith-admin": "stonith_admin",
} as const;

/** `words`: the command line; where there is none, `input` counts. */
export function parsePacemakerRequest(words: readonly string[], input: string): ParsedRequest {
  const given = agentOptions(words, input, SHORT);
  if (typeof given === "string") return { kind: "wrong", why: given };
  const wrong = (why: string): ParsedRequest => ({ kind: "wrong", why });
  const asked = firstGiven(given, OPTIONS.action);
  if (asked === "status") return wrong("Pacemaker does not know whether a node is on: there is no action status");
  const action = PACEMAKER_ACTIONS.find((one) => one === asked);
  if (action === undefined) return wrong(`an action is expected (${PACEMAKER_ACTIONS.join(", ")}), found ${asked === "" ? "none" : asked}`);
  const plug = firstGiven(given, OPTIONS.plug);
  if (needsPlug(action) && plug === "") return wrong(`the action ${action} needs the option plug, the node's name in Pacemaker`);
  // It is given to stonith_admin as an argument of its own.
  if (plug.startsWith("-")) return wrong(`a node's name is expected as plug, found ${plug}`);
  const time = firstGiven(given, OPTIONS.timeout);
  const timeoutS = time === "" ? DEFAULT_TIMEOUT_S : Number(time);
  if (!Number.isInteger(timeoutS) || timeoutS < 1 || timeoutS > MAX_TIMEOUT_S)
    return wrong(`1 to ${MAX_TIMEOUT_S} seconds are expected as timeout, found ${time}`);
  const program = firstGiven(given, OPTIONS.program) || DEFAULT_PROGRAM;
  if (!program.startsWith("/")) return wrong(`an absolute path is expected as stonith_admin, found ${program}`);
  return { kind: "request", request: { action, plug, timeoutS, program }, ignored: [...given.keys()].filter((key) => !KNOWN.has(key)) };
}

function needsPlug(action: PacemakerAction): action is "off" | "on" | "reboot" {
  return action === "off" || action === "on" || action === "reboot";
}

const parameters: readonly ParameterWords[] = [
  { name: "action", required: true, option: "-o, --action=[action]", words: "Fencing action", byDefault: "off" },
  { name: "plug", required: false, option: "-n, --plug=[node]", words: "Name of the node in Pacemaker" },
  { name: "port", required: false, option: "-n, --plug=[node]", words: "Name of the node in Pacemaker" },
  {
    name: "timeout",
    required: false,
    option: "--timeout=[seconds]",
    words: "What Pacemaker is given for all devices of the node together",
    byDefault: `${DEFAULT_TIMEOUT_S}`,
  },
  {
    name: "stonith_admin",
    required: false,
    option: "--stonith-admin=[path]",
    words: "Path of stonith_admin",
    byDefault: DEFAULT_PROGRAM,
  },
];

export const PACEMAKER_METADATA: string = `<?xml version="1.0" ?>
<resource-agent name="fence_pacemaker" shortdesc="Fence agent that asks Pacemaker">
<longdesc>Asks the Pacemaker of this node to fence another one, and succeeds when Pacemaker's history says that a device has done so.</longdesc>
<vendor-url></vendor-url>
<parameters>
${parameters.map(parameterXml).join("\n")}
</parameters>
<actions>
${PACEMAKER_ACTIONS.map((name) => `  <action name="${name}"${name === "on" ? ' automatic="0"' : ""} />`).join("\n")}
</actions>
</resource-agent>
`;
