/**
 * A new cluster: its cluster.yaml, and the commands that follow on each node, in their order. Pure: answers in, texts out. Each command can be
 * typed as it stands, in sh(1) as root.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Finding } from "./finding.ts";
import type { DiskFacts } from "./judge-volume.ts";
import { shellWord } from "./shell-word.ts";

export interface SetupAnswers {
  readonly cluster: string;
  /** In the order of their nodeids, from 1. */
  readonly nodes: readonly { readonly name: string; readonly address: string }[];
  /** "none", or a multicast address. */
  readonly multicast: string;
  readonly multicastPort: number;
  readonly peerPort: number;
  /** Null: no volume yet. */
  readonly volume: { readonly name: string; readonly uuid: string; readonly device: string; readonly mountPoint: string } | null;
}

export interface SetupPlace {
  readonly configFile: string;
  /** In the same folder. */
  readonly keyFile: string;
  /** The node where the files are. */
  readonly self: string;
  /** The unit dlmd.service is installed. */
  readonly hasUnit: boolean;
}

export interface Step {
  /** A node's name. */
  readonly on: string;
  readonly why: string;
  readonly command: string;
}

/** JSON is YAML: a name such as 1e3 or true stays a name. */
const quoted = (text: string): string => JSON.stringify(text);

export function clusterYaml({ cluster, nodes, multicast, multicastPort, peerPort, volume }: SetupAnswers, keyFile: string): string {
  const volumes =
    volume === null
      ? ["volumes: []"]
      : ["volumes:", `  - { name: ${quoted(volume.name)}, uuid: ${volume.uuid}, lower: device, path: ${quoted(volume.device)} }`];
  return [
    "# Made by coverlay setup. The same file on every node; while the cluster runs it is changed with `coverlay config apply`.",
    "# examples/cluster.yaml shows every key, examples/fencing.yaml those of fence devices.",
    `cluster: ${quoted(cluster)}`,
    "version: 1",
    `keyFile: ${quoted(keyFile)}`,
    `multicast: { group: ${multicast}, port: ${multicastPort} }`,
    `peerPort: ${peerPort}`,
    "nodes:",
    ...nodes.map(({ name, address }, at) => `  - { nodeid: ${at + 1}, name: ${quoted(name)}, address: ${quoted(address)} }`),
    ...volumes,
    "",
  ].join("\n");
}

/**
 * What a look at the device of the new volume says: null, it is not marked for this cluster. One that is keeps its names. Where that is not known a
 * new uuid would make a second volume of the first. Throws OperatingError "bit-unread".
 */
export function markOf(
  device: string,
  { facts, findings }: { readonly facts: DiskFacts | null; readonly findings: readonly Finding[] },
  cluster: string,
): { readonly name: string; readonly uuid: string } | null {
  const bit = facts?.bit;
  if (bit === null) return null;
  if (bit !== undefined && !("message" in bit)) return bit.cluster === cluster ? { name: bit.volume, uuid: bit.uuid } : null;
  const looked = [bit, facts?.fileSystem, facts?.identity].find((fact) => fact !== undefined && "message" in fact);
  const [given] = findings;
  const { message, hint } =
    looked !== undefined && "message" in looked
      ? looked
      : { message: given?.found ?? "it was not looked at", hint: given?.action ?? "See dmesg." };
  throw new OperatingError(`whether ${device} is marked for this cluster already cannot be seen: ${message}`, {
    code: "bit-unread",
    hint: `${hint} Without a volume: leave the device out.`,
  });
}

const command = (...words: readonly string[]): string => words.map(shellWord).join(" ");
const folderOf = (file: string): string => file.slice(0, Math.max(1, file.lastIndexOf("/")));
/** fstab(5): white space and backslashes are written as octal numbers, each of a byte. So white space of Unicode stays as it is: it parts no words. */
const fstabField = (text: string): string =>
  text.replace(/[ \t\n\v\f\r\\#]/g, (sign) => `\\${sign.charCodeAt(0).toString(8).padStart(3, "0")}`);

/** The one that dlmd reads without --config, and that its unit asks for. */
const USUAL_CONFIG = "/etc/coverlay/cluster.yaml";

/**
 * What mount(8) and systemd are told: the mount waits for the others, and the start of the machine does not wait for it. With the unit it asks for that, so
 * that it comes back when systemd has started a dlmd again that crashed.
 */
const fstabOptions = (hasService: boolean): string =>
  `rw,_netdev,wait,nofail,${hasService ? "x-systemd.requires=dlmd.service," : ""}x-systemd.mount-timeout=0`;

/** Typed twice it is there once; and a last line without an end stays a line of its own. */
function intoFstab(line: string): string {
  const word = shellWord(line);
  return `grep -qxF -e ${word} /etc/fstab || printf '\\n%s\\n' ${word} >>/etc/fstab`;
}

export function fstabLine({ device, mountPoint }: NonNullable<SetupAnswers["volume"]>, hasService: boolean): string {
  return `${fstabField(device)} ${fstabField(mountPoint)} clustered ${fstabOptions(hasService)} 0 0`;
}

/** From the node that has the files. */
export function sharedSteps({ cluster, nodes, volume }: SetupAnswers, { configFile, keyFile, self }: SetupPlace): Step[] {
  const steps: Step[] = [];
  if (volume !== null) {
    const { device, name, uuid } = volume;
    const words = ["coverlay", "volume", "enable", device, `--cluster=${cluster}`, `--name=${name}`, "--uuid", uuid];
    steps.push({ on: self, why: "marks the volume, once, while it is mounted nowhere", command: command(...words) });
  }
  for (const { name, address } of nodes.filter((node) => node.name !== self)) {
    const why = `the configuration and the key, for ${name}`;
    const folder = folderOf(configFile);
    steps.push({ on: self, why, command: command("ssh", `root@${address}`, "mkdir", "-p", shellWord(folder)) });
    steps.push({ on: self, why, command: command("scp", "-p", configFile, keyFile, `root@${address}:${folder}/`) });
  }
  return steps;
}

/** On a node that has the files: up to the mounted volume. */
export function nodeSteps(on: string, volume: SetupAnswers["volume"], { configFile, hasUnit }: SetupPlace): Step[] {
  const isUsual = configFile === USUAL_CONFIG;
  const look = command("coverlay", "doctor", "--before", ...(isUsual ? [] : ["--config", configFile]));
  const start =
    hasUnit && isUsual
      ? "systemctl enable --now dlmd"
      : `setsid ${command("dlmd", "--config", configFile)} >>/var/log/dlmd.log 2>&1 </dev/null &`;
  const why =
    hasUnit && !isUsual ? `the lock manager; dlmd.service reads ${USUAL_CONFIG} alone, so start it at each start` : "the lock manager";
  const steps: Step[] = [
    { on, why: "whether all is well so far: configuration, key, network, disk", command: look },
    { on, why, command: start },
  ];
  if (volume === null) return steps;
  const { mountPoint } = volume;
  return [
    ...steps,
    { on, why: "mount -t clustered, once", command: "coverlay install-mount-helper" },
    { on, why: "where it is mounted", command: command("mkdir", "-p", mountPoint) },
    { on, why: "at each start of the machine", command: intoFstab(fstabLine(volume, hasUnit && isUsual)) },
    { on, why: "now; it waits until more than half of the nodes are there", command: command("mount", mountPoint) },
  ];
}

/** Node by node the looks come first, then what starts: a look tells a port that nobody has from one that is dropped. */
export function allSteps(answers: SetupAnswers, place: SetupPlace): Step[] {
  const each = answers.nodes.map(({ name }) => nodeSteps(name, answers.volume, place));
  const at = (from: number, to: number): Step[] => each.flatMap((steps) => steps.slice(from, to));
  return [...sharedSteps(answers, place), ...at(0, 1), ...at(1, 2), ...at(2, Number.POSITIVE_INFINITY)];
}

/** What a person has to know about such a cluster. */
export function notes({ nodes, volume }: SetupAnswers): string[] {
  const lines = ["The key is as good as root on every node: copy it over ssh alone, and give it to no other machine."];
  if (nodes.length === 1) lines.push("One node: add others with coverlay config apply.");
  if (nodes.length === 2) {
    lines.push(
      "Two nodes: if one is gone, the other waits. Add a third node, which needs no disk, or fence devices and two_node (examples/fencing.yaml).",
    );
  }
  if (volume !== null) {
    lines.push("No fence devices: after the owner of the volume dies the others wait for a person (coverlay fence --help).");
  }
  return lines;
}

export function describeSteps(steps: readonly Step[]): string {
  let on = "";
  let why = "";
  return steps
    .flatMap((step) => {
      const head = step.on === on ? [] : ["", `On ${step.on}:`];
      const comment = step.on === on && step.why === why ? [] : [`  # ${step.why}`];
      on = step.on;
      why = step.why;
      return [...head, ...comment, `  ${step.command}`];
    })
    .join("\n");
}
