/**
 * What a fence agent of ours is given, as the FenceAgentAPI of ClusterLabs has it: options as `key=value` lines on stdin, or on the command line,
 * and how it describes one of them in its metadata. Pure.
 */

/** `words`: the command line; where there is none, `input` counts. `short`: what the words are called as options. A string: what is wrong. */
export function agentOptions(
  words: readonly string[],
  input: string,
  short: Readonly<Record<string, string>>,
): ReadonlyMap<string, string> | string {
  return words.length > 0 ? fromWords(words, short) : fromLines(input);
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

function fromWords(words: readonly string[], short: Readonly<Record<string, string>>): Map<string, string> | string {
  const given = new Map<string, string>();
  for (let at = 0; at < words.length; at++) {
    const [name = "", joined] = (words[at] ?? "").split(/=(.*)/s);
    const key = short[name];
    if (key === undefined) return `the options ${Object.keys(short).join(", ")} are expected, found ${words[at]}`;
    const value = joined ?? words[++at];
    if (value === undefined) return `${name} needs a value`;
    given.set(key, value);
  }
  return given;
}

/** The first of these names that was given; "": none was. */
export function firstGiven(given: ReadonlyMap<string, string>, names: readonly string[]): string {
  return names.map((name) => given.get(name)).find((value) => value !== undefined) ?? "";
}

export interface ParameterWords {
  readonly name: string;
  readonly required: boolean;
  readonly option: string;
  readonly words: string;
  readonly byDefault?: string;
}

/** A parameter of the metadata. */
export function parameterXml({ name, required, option, words, byDefault }: ParameterWords): string {
  const given = byDefault === undefined ? "" : ` default="${byDefault}"`;
  return `  <parameter name="${name}" unique="0" required="${required ? 1 : 0}">
    <getopt mixed="${option}" />
    <content type="string"${given} />
    <shortdesc lang="en">${words}</shortdesc>
  </parameter>`;
}
