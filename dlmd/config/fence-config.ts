/**
 * Fence devices in cluster.yaml: what a device and the levels of a node may say, and what no single key shows to be wrong. The words are those
 * of Pacemaker and cman: device, level, agent, action, plug. Pure; whether an agent takes the options is seen where it is (fence-agent/check.ts).
 */
import * as z from "zod";
import type { DevicePlan, FencePlan, FencePlans, UnfencePlan } from "./fence-plan.ts";
import { type ConfigProblem, flag, list, memberName, objectExpected, text, whole } from "./shape.ts";

export const MAX_FENCE_DEVICES = 128;
/** As in Pacemaker. */
export const MAX_FENCE_LEVELS = 9;
export const MAX_LEVEL_DEVICES = 8;
export const MAX_FENCE_OPTIONS = 64;
export const MAX_FENCE_TIMEOUT_MS = 600_000;
export const MAX_FENCE_DELAY_MS = 600_000;
export const MAX_FENCE_RETRIES = 100;
/** For commands of a node that are already in the disk array when its power goes. */
const POWER_SETTLE_MS = 2000;
/** With two_node: so much later is the node of the higher priority fenced. Longer than an agent mostly needs. */
const PRIORITY_DELAY_MS = 15_000;

export type FenceOption = string | number | boolean;

export interface FenceDeviceConfig {
  readonly name: string;
  /** fence_x, which is in /usr/sbin, or an absolute path. */
  readonly agent: string;
  /** `storage`: it takes the path to the disk away; the node may live. */
  readonly kind: "power" | "storage";
  readonly options: Readonly<Record<string, FenceOption>>;
  /** Options whose values are in files on each node, which root alone may read. */
  readonly optionFiles: Readonly<Record<string, string>>;
  readonly action: "off" | "reboot";
  /** Of one run of the agent. */
  readonly timeoutMs: number;
  /** Further tries after the first. */
  readonly retries: number;
  /** Before its first try. */
  readonly delayMs: number;
  /** After its success. */
  readonly settleMs: number;
  /** Its action "on" is run for a node when its dlmd has joined, and when the configuration brings it. */
  readonly unfence: boolean;
}

/** A device as a node uses it. */
export interface FenceTargetConfig {
  readonly device: string;
  /** What the device calls the node; not given: the agent's metadata decides whether the node's name is said. */
  readonly plug?: string | undefined;
  /** Beside those of the device, and before them. */
  readonly options: Readonly<Record<string, FenceOption>>;
}

export interface NodeFenceConfig {
  /** Levels in order; of each, its devices. Not given: the node has no fence device. */
  readonly fence?: readonly (readonly FenceTargetConfig[])[] | undefined;
  /** With two_node, of two nodes that fence each other the one of the higher priority is fenced later. */
  readonly priority?: number | undefined;
}

export interface FencingConfig {
  readonly fenceDevices: readonly FenceDeviceConfig[];
  readonly fencePriorityDelayMs: number;
  readonly nodes: readonly (NodeFenceConfig & { readonly nodeid: number; readonly name: string })[];
  readonly quorum: { readonly two_node: boolean };
}

const optionName = /^[a-zA-Z][a-zA-Z0-9_-]{0,63}$/;
const optionWords = "a string of one line and at most 1024 characters, a number, or true or false";
const optionValue = z.union(
  [
    // A line of the agent's input, and no more.
    // oxlint-disable-next-line no-control-regex
    z.string().regex(/^[^\n\r\0]{0,1024}$/, { error: optionWords }),
    z.number(),
    z.boolean(),
  ],
  { error: optionWords },
);

function entries<T>(value: z.ZodType<T>, what: string): z.ZodType<Record<string, T>> {
  return z
    .record(z.string(), value, { error: `${what}, as keys and values` })
    .refine((all) => Object.keys(all).every((name) => optionName.test(name)), { error: "names of options of letters, digits, '_' or '-'" })
    .refine((all) => Object.keys(all).length <= MAX_FENCE_OPTIONS, { error: `at most ${MAX_FENCE_OPTIONS} options` });
}

const deviceShape = {
  name: text(memberName, "a name of 1 to 63 letters, digits, '.', '_' or '-'"),
  agent: text(/^(fence_[a-z0-9_]{1,58}|\/.{1,1023})$/, "an agent such as fence_ipmilan, or the absolute path of one"),
  kind: z.enum(["power", "storage"], { error: "power or storage" }).default("power"),
  options: entries(optionValue, "options of the agent").default({}),
  optionFiles: entries(text(/^\/.{1,1023}$/, "the absolute path of a file"), "files of options").default({}),
  action: z.enum(["off", "reboot"], { error: "off or reboot" }).default("off"),
  timeoutMs: whole(100, MAX_FENCE_TIMEOUT_MS, " milliseconds").default(60_000),
  retries: whole(0, MAX_FENCE_RETRIES).default(1),
  delayMs: whole(0, MAX_FENCE_DELAY_MS, " milliseconds").default(0),
  /** Not given: by its kind. */
  settleMs: whole(0, MAX_FENCE_DELAY_MS, " milliseconds").optional(),
  unfence: flag(),
};

const targetShape = z.strictObject(
  {
    device: text(memberName, "the name of a fence device"),
    plug: text(/^[^\n\r]{1,255}$/, "what the device calls this node: 1 to 255 characters of one line").optional(),
    options: entries(optionValue, "options of the agent").default({}),
  },
  { error: objectExpected },
);
const target: z.ZodType<FenceTargetConfig> = z.preprocess((value) => (typeof value === "string" ? { device: value } : value), targetShape);

export const nodeFenceShape: {
  readonly fence: z.ZodType<NodeFenceConfig["fence"]>;
  readonly priority: z.ZodType<number | undefined>;
} = {
  fence: list(list(target, 1, MAX_LEVEL_DEVICES, "devices of a level"), 1, MAX_FENCE_LEVELS, "levels").optional(),
  priority: whole(0, 1000).optional(),
};
export const fencePriorityDelayShape: z.ZodType<number> = whole(0, MAX_FENCE_DELAY_MS, " milliseconds").default(PRIORITY_DELAY_MS);

export const fenceDeviceKeys: readonly string[] = Object.keys(deviceShape);
export const fenceTargetKeys: readonly string[] = Object.keys(targetShape.shape);

export const fenceDevice: z.ZodType<FenceDeviceConfig> = z
  .strictObject(deviceShape, { error: objectExpected })
  .transform((device) => ({ ...device, settleMs: device.settleMs ?? (device.kind === "power" ? POWER_SETTLE_MS : 0) }));

function deviceProblems({ kind, action, unfence, options, optionFiles }: FenceDeviceConfig, path: string): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const wrong = (key: string, expected: string, found: string): void => void problems.push({ path: `${path}.${key}`, expected, found });
  if (unfence && kind !== "storage") wrong("unfence", "true for kind: storage alone", "it with kind: power");
  if (action === "reboot" && kind === "storage") wrong("action", "off with kind: storage", "reboot");
  for (const key of ["action", "plug", "port", "nodename"]) {
    const where = key === "action" ? "the device's key action" : "plug, where a node's fence names the device";
    if (key in options || key in optionFiles) wrong(`options.${key}`, where, "it among the options");
  }
  for (const key of Object.keys(optionFiles)) if (key in options) wrong(`optionFiles.${key}`, "each option once", "it in options as well");
  return problems;
}

function levelProblems(
  levels: readonly (readonly FenceTargetConfig[])[],
  at: string,
  devices: readonly FenceDeviceConfig[],
): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const used = new Set<string>();
  levels.forEach((level, levelAt) => {
    level.forEach(({ device: name, options }, deviceAt) => {
      const path = `${at}.fence[${levelAt}][${deviceAt}]`;
      const device = devices.find((one) => one.name === name);
      const known = devices.map((one) => one.name).join(", ");
      if (device === undefined) {
        const expected = known === "" ? "a device of fenceDevices, which names none" : `one of the fenceDevices ${known}`;
        problems.push({ path: `${path}.device`, expected, found: name });
      } else if (used.has(name)) problems.push({ path: `${path}.device`, expected: "each device once for a node", found: `${name} again` });
      else if (device.action === "reboot" && level.length > 1) {
        const expected =
          "action: off for each of several devices of a level: one after the other, a reboot of each never takes the power away";
        problems.push({ path: `${path}.device`, expected, found: `${name}, whose action is reboot` });
      }
      for (const key of ["action", "plug", "port", "nodename"]) {
        if (key in options) problems.push({ path: `${path}.options.${key}`, expected: "plug beside device, and no action", found: key });
      }
      used.add(name);
    });
  });
  return problems;
}

/** Delays of the first device of each level do not say which of two nodes shoots first, if the sums agree. */
function firstDelayMs({ levels, delayMs }: FencePlan): number {
  return delayMs + (levels[0]?.[0]?.delayMs ?? 0);
}

function twoNodeProblems(config: FencingConfig): ConfigProblem[] {
  const plans = fencePlansOf(config);
  const [one, other] = config.nodes.map(({ nodeid }) => plans.get(nodeid));
  if (!config.quorum.two_node || one === undefined || other === undefined || firstDelayMs(one) !== firstDelayMs(other)) return [];
  const expected = `devices of ${one.name} and ${other.name} whose delayMs differ, or nodes of different priority: else both shoot at once, and both are off`;
  return [{ path: "quorum.two_node", expected, found: `the same delay of ${firstDelayMs(one)} ms for both` }];
}

/** What no single key shows to be wrong. */
export function fencingProblems(config: FencingConfig): ConfigProblem[] {
  const problems = [
    ...config.fenceDevices.flatMap((device, at) => deviceProblems(device, `fenceDevices[${at}]`)),
    ...config.nodes.flatMap(({ fence }, at) => levelProblems(fence ?? [], `nodes[${at}]`, config.fenceDevices)),
  ];
  return problems.length > 0 ? problems : twoNodeProblems(config);
}

function devicePlan(config: FencingConfig, { device }: FenceTargetConfig): DevicePlan[] {
  const found = config.fenceDevices.find(({ name }) => name === device);
  if (found === undefined) return [];
  const { agent, delayMs, retries, settleMs } = found;
  return [{ device, agent: agent.slice(agent.lastIndexOf("/") + 1), delayMs, retries, settleMs }];
}

/** By name, equal for what means the same. */
function sorted(options: Readonly<Record<string, unknown>>): readonly unknown[] {
  return Object.entries(options).sort(([a], [b]) => (a < b ? -1 : 1));
}

function unfencePlan(config: FencingConfig, target: FenceTargetConfig): UnfencePlan[] {
  const found = config.fenceDevices.find(({ name }) => name === target.device);
  if (found?.unfence !== true) return [];
  const { name, agent, options, optionFiles } = found;
  const means = JSON.stringify([name, agent, sorted(options), sorted(optionFiles), target.plug ?? null, sorted(target.options)]);
  return [{ device: name, means }];
}

/** How the core fences each node that has a device. */
export function fencePlansOf(config: FencingConfig): FencePlans {
  const lowest = Math.min(...config.nodes.map(({ priority }) => priority ?? 0));
  return new Map(
    config.nodes.flatMap(({ nodeid, name, fence, priority }): [number, FencePlan][] => {
      if (fence === undefined) return [];
      const isPreferred = config.quorum.two_node && (priority ?? 0) > lowest;
      const levels = fence.map((level) => level.flatMap((one) => devicePlan(config, one)));
      const unfence = fence.flat().flatMap((one) => unfencePlan(config, one));
      return [[nodeid, { name, levels, delayMs: isPreferred ? config.fencePriorityDelayMs : 0, unfence }]];
    }),
  );
}

/** As text, equal for what means the same; null: nothing is said of fences, as in files of versions before. */
export function canonicalFencing({ fenceDevices, fencePriorityDelayMs, nodes }: Omit<FencingConfig, "quorum">): unknown {
  const levels = nodes.map(({ nodeid, fence, priority }) => [
    nodeid,
    priority ?? 0,
    (fence ?? []).map((level) => level.map(({ device, plug, options }) => [device, plug ?? null, sorted(options)])),
  ]);
  if (fenceDevices.length === 0 && fencePriorityDelayMs === PRIORITY_DELAY_MS && nodes.every(({ priority }) => (priority ?? 0) === 0))
    return null;
  const devices = fenceDevices.map(({ options, optionFiles, ...device }) => [
    fenceDeviceKeys.flatMap((key) => (key in device ? [device[key as keyof typeof device]] : [])),
    sorted(options),
    sorted(optionFiles),
  ]);
  return [devices, fencePriorityDelayMs, levels];
}
