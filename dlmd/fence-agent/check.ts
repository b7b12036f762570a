/**
 * Whether the fence devices of a configuration can be used on this node: each agent is there and says its metadata, knows the options that it is
 * given, has those that it requires, and the actions that will be asked for. Found here, not at the first death.
 */
import { OperatingError } from "../base/error.ts";
import type { ClusterConfig } from "../config/cluster-config.ts";
import { nearestWord } from "../base/nearest.ts";
import type { FenceDeviceConfig, FenceTargetConfig } from "../config/fence-config.ts";
import { readOptionFile } from "./fence-device.ts";
import { type AgentMetadata, plugOption } from "./metadata.ts";
import type { MetadataShelf } from "./metadata-shelf.ts";
import { isSbd, lookAtSbd } from "./sbd.ts";

export interface FencingMistake {
  readonly device: string;
  /** The node for which it is used so; "": for any. */
  readonly node: string;
  readonly expected: string;
  readonly found: string;
}

/** Given by us, whatever the agent says of it. */
const ownOptions = new Set(["action", "plug", "port", "nodename"]);

function optionMistakes(metadata: AgentMetadata, given: readonly string[]): { expected: string; found: string }[] {
  const { parameters } = metadata;
  const unknown = given
    .filter((name) => !parameters.has(name))
    .map((name) => {
      const nearest = nearestWord(name, [...parameters.keys()]);
      const hint = nearest === null ? `one of ${[...parameters.keys()].join(", ")}` : `a known option (did you mean ${nearest}?)`;
      return { expected: hint, found: `the unknown option ${name}` };
    });
  // A value may be given by the old name of an option, or by its new one.
  const isGiven = (name: string): boolean =>
    given.includes(name) || given.some((one) => parameters.get(one)?.obsoletes === name || parameters.get(name)?.obsoletes === one);
  const missing = [...parameters.values()]
    .filter(({ name, isRequired, isDeprecated, hasDefault }) => isRequired && !isDeprecated && !hasDefault && !ownOptions.has(name))
    .filter(({ name }) => !isGiven(name))
    .map(({ name }) => ({ expected: `the option ${name}, which it requires`, found: "none" }));
  return [...unknown, ...missing];
}

function actionMistakes({ actions }: AgentMetadata, { action, unfence }: FenceDeviceConfig): { expected: string; found: string }[] {
  const wanted = [action, ...(unfence ? ["on"] : [])];
  return wanted
    .filter((one) => !actions.has(one))
    .map((one) => ({ expected: `an agent with the action ${one}`, found: `one with ${[...actions].join(", ") || "none"}` }));
}

function unusable(error: unknown, expected: string): { expected: string; found: string } {
  if (!(error instanceof OperatingError)) throw error;
  return { expected, found: `${error.message} (${error.hint})` };
}

async function deviceMistakes(
  device: FenceDeviceConfig,
  uses: readonly { readonly node: string; readonly target: FenceTargetConfig }[],
  shelf: MetadataShelf,
): Promise<FencingMistake[]> {
  const { name, agent, options, optionFiles } = device;
  const of = (node: string, found: readonly { expected: string; found: string }[]): FencingMistake[] =>
    found.map((one) => ({ device: name, node, ...one }));
  let metadata: AgentMetadata;
  try {
    ({ metadata } = await shelf.read(agent, new AbortController().signal));
  } catch (error) {
    return of("", [unusable(error, `the agent ${agent}`)]);
  }
  const files: { expected: string; found: string }[] = [];
  for (const [option, file] of Object.entries(optionFiles)) {
    await readOptionFile(option, file).catch((error: unknown) => files.push(unusable(error, `a file for the option ${option}`)));
  }
  const given = [...Object.keys(options), ...Object.keys(optionFiles)];
  const plug = plugOption(metadata);
  const sbd: FencingMistake[] = [];
  for (const { node, target } of isSbd(agent) ? uses : []) {
    const look = lookAtSbd(device, { ...options, ...target.options }, new AbortController().signal);
    sbd.push(...of(node, await look.catch((error: unknown) => [unusable(error, "the program sbd")])));
  }
  return [
    ...sbd,
    ...of("", [...files, ...actionMistakes(metadata, device)]),
    ...uses.flatMap(({ node, target }) => [
      ...of(node, optionMistakes(metadata, [...given, ...Object.keys(target.options)])),
      ...of(node, target.plug !== undefined && plug === null ? [{ expected: "no plug: this agent knows none", found: target.plug }] : []),
    ]),
  ];
}

/** Every mistake at once; none: all can be used here. */
export async function fencingMistakes(config: ClusterConfig, shelf: MetadataShelf): Promise<FencingMistake[]> {
  const found: FencingMistake[] = [];
  for (const device of config.fenceDevices) {
    const uses = config.nodes.flatMap(({ name: node, fence }) =>
      (fence ?? []).flat().flatMap((target) => (target.device === device.name ? [{ node, target }] : [])),
    );
    found.push(...(await deviceMistakes(device, uses, shelf)));
  }
  return found;
}
