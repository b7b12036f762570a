/** fence_pacemaker and a real Pacemaker: what is fenced, what is not, and a person who says that it was. */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { run, type RunResult } from "../../../overlay/lab/command.ts";
import { dist } from "../../built.ts";
import { until } from "../actor.ts";
import { noPacemaker, Pacemaker } from "../../pacemaker.ts";

const agent = path.join(dist, "dlmd/fence-pacemaker/main.js");
const missing = noPacemaker();
let pacemaker: Pacemaker;

/** A device of fence_dummy, which is a file that says "on" or "off". */
async function device(name: string, node: string, ...more: string[]): Promise<string> {
  const file = path.join(pacemaker.folder, name);
  writeFileSync(file, "on");
  const options = [`status_file=${file}`, `pcmk_host_list=${node}`, "pcmk_host_check=static-list", ...more].flatMap((one) => ["-o", one]);
  const registered = await pacemaker.run(["stonith_admin", "--register", name, "--agent", "fence_dummy", ...options]);
  expect(registered).toMatchObject({ status: 0 });
  return file;
}

/** As dlmd runs it. */
const ask = (...options: string[]): Promise<RunResult> =>
  pacemaker.run([process.execPath, agent], { input: [...options, ""].join("\n"), timeoutMs: 60_000 });

beforeAll(async () => {
  if (missing !== null) return;
  pacemaker = new Pacemaker();
  await pacemaker.ready();
});
afterAll(() => pacemaker?.end());

test("off, on and reboot are carried out by Pacemaker's devices", async ({ skip }) => {
  skip(missing !== null, missing ?? "");
  const file = await device("power2", "node2");
  expect(await ask("action=off", "plug=node2")).toMatchObject({ status: 0, stdout: "Success: Powered OFF\n" });
  expect(readFileSync(file, "utf8")).toBe("off");
  expect(await ask("action=on", "plug=node2")).toMatchObject({ status: 0, stdout: "Success: Powered ON\n" });
  expect(readFileSync(file, "utf8")).toBe("on");
  expect(await ask("action=reboot", "plug=node2")).toMatchObject({ status: 0, stdout: "Success: Rebooted\n" });
});

test("a node without a device there, or an action that fails, is no success", async ({ skip }) => {
  skip(missing !== null, missing ?? "");
  const none = await ask("action=off", "plug=node9");
  expect([none.status, none.stderr]).toEqual([
    1,
    expect.stringContaining("stonith_admin --fence ended with status 105: Couldn't fence node9"),
  ]);
  await device("broken", "node4", "type=fail");
  expect(await ask("action=off", "plug=node4", "timeout=3")).toMatchObject({ status: 1, stdout: "" });
});

test("a person confirms the fence while it runs: stonith_admin ends with 0, and the agent does not", async ({ skip }) => {
  skip(missing !== null, missing ?? "");
  // Its device takes longer than all that happens here.
  const file = await device("slow", "node3", "random_sleep_range=1000000");
  const asked = ask("action=off", "plug=node3");
  const history = async (): Promise<string> =>
    (await pacemaker.run(["stonith_admin", "--history", "node3", "--verbose", "--output-as", "xml"])).stdout;
  await until("it is under way", async () => (await history()).includes('status="pending"'));
  expect(await pacemaker.run(["stonith_admin", "--confirm", "node3"])).toMatchObject({ status: 0 });
  expect(await asked).toMatchObject({ status: 1, stdout: "" });
  expect((await asked).stderr).toContain("its history says pending of this request; a person has confirmed one");
  expect(readFileSync(file, "utf8")).toBe("on");
});

test("monitor, validate-all and metadata; without a Pacemaker on this node monitor fails in words", async ({ skip }) => {
  skip(missing !== null, missing ?? "");
  for (const action of ["monitor", "validate-all", "metadata"]) expect(await ask(`action=${action}`)).toMatchObject({ status: 0 });
  const absent = await ask("action=monitor", "stonith_admin=/nowhere/stonith_admin");
  expect([absent.status, absent.stderr]).toEqual([1, expect.stringContaining("could not be started: spawn /nowhere/stonith_admin ENOENT")]);
  const alone = await run("unshare", ["--net", process.execPath, agent], { input: "action=monitor\n" });
  expect([alone.status, alone.stderr]).toEqual([1, expect.stringContaining("Could not connect to fencer")]);
});
