/** With which configuration a node starts: what it kept, a file, and what it refuses (driver/config-keeper.ts). */
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { ViewInfo } from "../../../dlmd/client/api.ts";
import { configRecordOf, encodeConfigMessage } from "../../../dlmd/config/change-codec.ts";
import type { KeptConfig } from "../../../dlmd/config/record.ts";
import { type OperatingError, WireError } from "../../../dlmd/base/error.ts";
import { APPLY_TIMEOUT_MS, ConfigKeeper, readKeptConfig, REWRITE_PAUSE_MS, startingConfig } from "../../../dlmd/driver/config-keeper.ts";
import { refusal } from "../../refusal.ts";

const example = `cluster: lab
version: 1
nodes:
${[1, 2, 3].map((nodeid) => `  - { nodeid: ${nodeid}, name: node${nodeid}, address: 10.0.0.${nodeid} }\n`).join("")}`;
const twoNode = `${example.replace(/ {2}- \{ nodeid: 3.*\n/, "")}quorum: { two_node: true }\n`;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-kept-"));
});
afterEach(() => rmSync(dir, { recursive: true }));

test("two_node without fence devices is refused in a file, and in what an earlier version of dlmd kept", async () => {
  const file = await refusal(() => startingConfig(null, twoNode, "cluster.yaml", 1500));
  expect(file).toMatchObject({ code: "bad-config" });
  expect(file.message).toContain("quorum.two_node: expected false, because no fence device is configured for node1 and node2");
  const keptFile = path.join(dir, "config.json");
  writeFileSync(keptFile, JSON.stringify({ committed: { version: 1, text: twoNode }, pending: null }));
  const kept = await refusal(() => readKeptConfig(keptFile));
  expect(kept.message).toContain("is refused by this version of dlmd");
  expect(kept.message).toContain("no fence device");
  expect(kept.hint).toContain("--new-config");
});

/** A keeper without a cluster around it. */
function keeper(kept: KeptConfig): { keeper: ConfigKeeper; said: unknown[]; changed: (readonly number[])[] } {
  const said: unknown[] = [];
  const changed: (readonly number[])[] = [];
  const note = (fields: object, message: string): void => void said.push({ ...fields, message });
  const options = {
    nodeid: 1,
    kept,
    file: path.join(dir, "config.json"),
    configFile: path.join(dir, "cluster.yaml"),
    minTimeoutMs: 1500,
    log: { debug: note, info: note, warn: note, error: note },
    send: () => {},
    count: () => {},
    changed: (members: readonly number[]) => void changed.push(members),
    fatal: (error: Error) => said.push(error),
  };
  return { keeper: new ConfigKeeper(options), said, changed };
}
const view = (members: number[], quorate: boolean): ViewInfo => ({
  viewId: "1.1.00000000000000aa",
  members,
  incarnations: members.map(String),
  quorate,
  quorumReason: "",
  running: quorate,
});

test("what comes from a file is offered to nobody before a quorate view had it in force; that is kept", async () => {
  const fresh = startingConfig(null, example, "cluster.yaml", 1500);
  const { keeper: node } = keeper(fresh);
  expect(node.offer).toBeNull();
  node.view(view([1], false), null);
  expect(node.offer).toBeNull();
  node.view({ ...view([1, 2], true), viewId: "2.1.00000000000000aa" }, null);
  expect(node.offer).toMatchObject({ version: 1, text: example, agreedBy: [1, 2] });
  await node.close();
  const kept = await readKeptConfig(path.join(dir, "config.json"));
  expect(keeper(kept as KeptConfig).keeper.offer).toMatchObject({ version: 1, agreedBy: [1, 2] });
});

test("what version 0.1.0 kept was agreed on by nobody that is known", async () => {
  const keptFile = path.join(dir, "config.json");
  const record = { version: 1, text: example };
  writeFileSync(keptFile, JSON.stringify({ committed: record, pending: { record: { ...record }, epoch: 3 } }));
  expect(await readKeptConfig(keptFile)).toMatchObject({ agreedBy: [], pending: { epoch: 3, view: "" } });
});

test("a quorate member declines an offer, and says why", () => {
  const { keeper: node, said } = keeper(startingConfig(null, example, "cluster.yaml", 1500));
  node.view(view([1, 2, 3], true), null);
  const text = example.replace("version: 1", "version: 9");
  node.offered({ version: 9, text, agreedBy: [1, 2, 3], trail: [], counting: null });
  expect(node.config.version).toBe(1);
  expect(said).toContainEqual({
    message: "a peer's configuration is not taken",
    reason: "this node is in a quorate view, in which version 1 is in force",
  });
});

test("nodes outside the view are connected to anew when another configuration is in force: they are offered it then", async () => {
  const { keeper: node, changed } = keeper(startingConfig(null, example, "cluster.yaml", 1500));
  node.view(view([1, 2], false), null);
  const text = example.replace("version: 1", "version: 2");
  node.offered({ version: 2, text, agreedBy: [1, 2, 3], trail: [], counting: null });
  await vi.waitFor(() => expect(changed).toEqual([[1, 2]]));
  expect(node.config.version).toBe(2);
  await node.close();
});

test("what peers offer again and again is told once in a while, each kind by itself", () => {
  const { keeper: node, said } = keeper(startingConfig(null, example, "cluster.yaml", 1500));
  const now = vi.spyOn(performance, "now").mockReturnValue(0);
  const offers = (): void => {
    node.view(view([1, 2, 3], true), null);
    for (let version = 9; version < 109; version++) {
      const text = example.replace("version: 1", `version: ${version}`);
      for (const offered of [text, `${text}timeoutMs: 10000\n`, "cluster: ["])
        node.offered({ version, text: offered, agreedBy: [1], trail: [], counting: null });
    }
  };
  const told = (): unknown[] => said.splice(0).map((line) => (line as { message: string }).message);
  const all = ["is not taken", "needs a new start of this dlmd", "cannot be used"].map((words) => `a peer's configuration ${words}`);
  offers();
  expect(told()).toEqual(all);
  now.mockReturnValue(9_999);
  offers();
  expect(told()).toEqual([]);
  now.mockReturnValue(10_000);
  offers();
  expect(told()).toEqual(all);
  now.mockRestore();
});

test.each(["%YAML 1.1\n---\n<<: 3\n", "!!merge <<: 3\n"])(
  "an offer that is no YAML because of a merge key (%j) is declined, and the same text in a message is damage of it",
  (merge) => {
    const { keeper: node, said } = keeper(startingConfig(null, example, "cluster.yaml", 1500));
    const text = `${merge}${example.replace("version: 1", "version: 2")}`;
    node.offered({ version: 2, text, agreedBy: [1], trail: [], counting: null });
    expect(said).toEqual([expect.objectContaining({ message: "a peer's configuration cannot be used" })]);
    const message = JSON.stringify({ kind: "propose", epoch: 1, view: "1.1.00000000000000aa", record: { version: 2, text } });
    expect(() => node.receive(2, Buffer.from(message))).toThrow(WireError);
  },
);

test.each(["timeoutMs: 10000", "fencedLockspaces: [app]"])(
  "an offer with another %s is declined: a dlmd keeps its own for its life",
  async (other) => {
    const { keeper: node, said } = keeper(startingConfig(null, example, "cluster.yaml", 1500));
    node.view(view([1], false), null);
    const text = example.replace("version: 1", "version: 2");
    node.offered({ version: 2, text: `${text}${other}\n`, agreedBy: [1, 2], trail: [], counting: null });
    expect(node.config.version).toBe(1);
    expect(said).toContainEqual(expect.objectContaining({ different: other.split(":")[0], version: 2 }));
    node.offered({ version: 2, text, agreedBy: [1, 2], trail: [], counting: null });
    await vi.waitUntil(() => node.config.version === 2);
    await node.close();
  },
);

test("cluster.yaml, which may have passwords in it, keeps its link and its mode when a change comes into force", async () => {
  const [link, file] = ["cluster.yaml", "mine.yaml"].map((name) => path.join(dir, name)) as [string, string];
  writeFileSync(file, example);
  chmodSync(file, 0o600);
  symlinkSync("mine.yaml", link);
  const { keeper: node } = keeper(startingConfig(null, example, link, 1500));
  node.view(view([1], false), null);
  const text = example.replace("version: 1", "version: 2");
  node.offered({ version: 2, text, agreedBy: [1, 2], trail: [], counting: null });
  await vi.waitUntil(() => node.config.version === 2);
  await node.close();
  expect([lstatSync(link).isSymbolicLink(), statSync(file).mode & 0o7777, readFileSync(file, "utf8")]).toEqual([true, 0o600, text]);
});

test("a change of cluster.yaml of which the watch and SIGHUP tell is proposed once, and all of that is told once", async () => {
  const alone = example.replace(/ {2}- \{ nodeid: [23].*\n/g, "");
  const { keeper: node, said } = keeper(startingConfig(null, alone, "cluster.yaml", 1500));
  node.view(view([1], true), null);
  const text = alone.replace("version: 1", "version: 2");
  writeFileSync(path.join(dir, "cluster.yaml"), text);
  node.settled("1.1.00000000000000aa", 1);
  const first = node.fileChanged();
  // It has begun to read.
  await Promise.resolve();
  await Promise.all([first, node.fileChanged(), node.fileChanged()]);
  expect(said.map((line) => (line as { message: string }).message)).toEqual([
    "cluster.yaml was changed: proposed to the cluster",
    "configuration in force",
  ]);
  await node.close();
});

test("a disk that keeps nothing ends no dlmd: apply is refused, and a proposal of another node waits for the disk", async () => {
  const fresh = startingConfig(null, example, "cluster.yaml", 1500);
  const { keeper: node, said } = keeper(fresh);
  node.view(view([1, 2, 3], true), null);
  await node.keep();
  rmSync(dir, { recursive: true });
  const second = example.replace("version: 1", "version: 2");
  await expect(node.apply(second, "new.yaml")).rejects.toMatchObject({
    code: "config-unkept",
    hint: expect.stringContaining("df") as string,
  });
  expect(node.kept.pending).toBeNull();
  // As the coordinator, which it is not here, would: node 1 is the lowest member.
  const record = configRecordOf(second, "new.yaml");
  node.receive(1, encodeConfigMessage({ epoch: 1, view: "1.1.00000000000000aa", kind: "propose", record }));
  const refused = (): unknown[] => said.filter((line) => JSON.stringify(line).includes("cannot be kept"));
  await vi.waitUntil(() => refused().length > 0);
  mkdirSync(dir);
  await vi.waitUntil(() => readdirSync(dir).includes("config.json"), { timeout: 10 * REWRITE_PAUSE_MS });
  expect(await readKeptConfig(path.join(dir, "config.json"))).toMatchObject({ pending: { record: { version: 2 } } });
  expect(said.filter((line) => line instanceof Error)).toEqual([]);
  await node.close();
});

test("a kept file that cannot be read, or is damaged, is told in one line with what helps", async () => {
  const file = path.join(dir, "config.json");
  mkdirSync(file);
  expect(await refusal(() => readKeptConfig(file))).toMatchObject({
    code: "unkept",
    message: expect.stringMatching(/^the configuration cannot be kept in .*config\.json: EISDIR/) as string,
    exitStatus: 74,
  });
  rmSync(file, { recursive: true });
  for (const [text, found] of [
    ["null", "Invalid input: expected object, received null"],
    ['{"committed":{"version":"1","text":""},"pending":null}', "committed.version: Invalid input: expected number, received string"],
    ["{", "Expected property name"],
  ] as const) {
    writeFileSync(file, text);
    const { code, message } = await refusal(() => readKeptConfig(file));
    expect([code, message.split("\n").length, message]).toEqual(["bad-state", 1, expect.stringContaining(found)]);
  }
});

test("a keeper that closes does not wait for a disk that keeps nothing", async () => {
  const { keeper: node, said } = keeper(startingConfig(null, example, "cluster.yaml", 1500));
  rmSync(dir, { recursive: true });
  node.view(view([1, 2, 3], true), null);
  await vi.waitUntil(() => JSON.stringify(said).includes("cannot be kept"));
  await node.close();
  expect(existsSync(dir)).toBe(false);
  mkdirSync(dir);
});

test("apply that the cluster does not decide about ends after half a minute, and says so", async () => {
  const { keeper: node } = keeper(startingConfig(null, example, "cluster.yaml", 1500));
  // A member of three: the others never answer.
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  node.view(view([1, 2, 3], true), null);
  const applied = node.apply(example.replace("version: 1", "version: 2"), "new.yaml").then(
    () => "applied",
    (error: OperatingError) => `${error.code}: ${error.message}`,
  );
  while (vi.getTimerCount() === 0) await new Promise((resolve) => setImmediate(resolve));
  await vi.advanceTimersByTimeAsync(APPLY_TIMEOUT_MS - 1);
  expect(await Promise.race([applied, Promise.resolve("waits")])).toBe("waits");
  await vi.advanceTimersByTimeAsync(1);
  expect(await applied).toBe("config-undecided: the cluster did not decide about version 2 within 30 s");
  vi.useRealTimers();
  await node.close();
});
