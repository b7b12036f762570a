/** All nodes lose their power, and the owner's does not start again: a mount that waits fences it by itself, and says for what it waits until then. */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { run, type RunResult } from "../../overlay/lab/command.ts";
import { START_LIMIT_MS } from "../../overlay/volume/fence-proof.ts";
import { coverlayProgram, startLab, type TestLab } from "./lab.ts";

const TIMEOUT_MS = START_LIMIT_MS + 120_000;

let lab: TestLab;
beforeAll(async () => {
  lab = await startLab({ nodes: 3, lower: "ext4" });
});
afterAll(() => lab?.end());

const at = (nodeid: number, name: string): string => path.join(lab.node(nodeid).mount, name);

const command = (nodeid: number, words: readonly string[]): Promise<RunResult> =>
  run("nsenter", [`--net=/run/netns/${lab.node(nodeid).netns}`, process.execPath, coverlayProgram, ...words], {
    env: { ...process.env, COVERLAY_RUN_DIR: lab.node(nodeid).runDir },
    timeoutMs: TIMEOUT_MS,
  });

it("the owner that never starts is fenced when the quorum was there for START_LIMIT_MS; no one has to come", {
  timeout: 2 * TIMEOUT_MS,
}, async () => {
  const owner = await lab.owner();
  writeFileSync(at(owner, "before"), "synced", { flush: true });
  const others = [1, 2, 3].filter((nodeid) => nodeid !== owner);
  // At one moment: nobody is left who could fence another.
  await lab.lab("kill", "node1,node2,node3");
  const refused = await lab.start(...others).then(
    () => "",
    (error: Error) => error.message,
  );
  expect(refused).toContain("may be starting: a first mount fences it in");

  const first = others[0] as number;
  const device = (await lab.status()).find(({ nodeid }) => nodeid === first)?.device ?? "";
  const { runDir, mount } = lab.node(first);
  const done = await command(first, ["mount", device, mount, "-o", `wait,runDir=${runDir}`]);
  expect(done).toMatchObject({ status: 0 });
  expect(done.stderr).toContain(`node${owner} was not heard since the lock manager of this node was started, and may be starting`);
  expect(readFileSync(at(first, "before"), "utf8")).toBe("synced");
  const history = await command(first, ["fence", "history", "--json"]);
  expect(JSON.parse(history.stdout)).toMatchObject([{ nodeid: owner, outcome: "fenced" }]);
});
