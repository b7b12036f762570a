/** The live page in a real browser: a wait, a load and a death are seen, names stay text, and the page outlives its dlmd. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { endActors, startActor, until } from "./actor.ts";
import { noBrowser, startBrowser } from "./browser.ts";
import { coverlay, coverlayProgram, startLab, type TestLab } from "./lab.ts";

/** For what the page is to show; a cluster needs seconds for a view. */
const SEEN_TIMEOUT_MS = 60_000;

let lab: TestLab;
let browser: Browser | null = null;
const children: ChildProcess[] = [];
const directories: string[] = [];
beforeAll(async () => {
  if (noBrowser !== null) return;
  lab = await startLab({ nodes: 3 });
  browser = await startBrowser();
});
afterAll(async () => {
  endActors();
  await browser?.close();
  for (const child of children) child.kill("SIGKILL");
  for (const directory of directories) rmSync(directory, { recursive: true });
  await lab?.end();
});

interface Served {
  readonly url: string;
  readonly child: ChildProcess;
  readonly exit: Promise<unknown[]>;
}

async function serve(...words: string[]): Promise<Served> {
  const child = spawn(process.execPath, [coverlayProgram, ...words, "--port", "0", "--json"], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  const exit = once(child, "exit");
  for await (const line of createInterface(child.stdout)) return { url: (JSON.parse(line) as { url: string }).url, child, exit };
  throw new Error(`coverlay ${words.join(" ")} has ended without an address`);
}

/** With what goes wrong in it. */
async function open(url: string): Promise<{ readonly page: Page; readonly wrong: string[] }> {
  if (browser === null) throw new Error("there is no browser");
  const page = await browser.newPage({ viewport: { width: 1400, height: 940 } });
  page.setDefaultTimeout(SEEN_TIMEOUT_MS);
  const wrong: string[] = [];
  page.on("pageerror", ({ message }) => wrong.push(message));
  page.on("console", (message) => void (message.type() === "error" && wrong.push(message.text())));
  page.on("request", (request) => void (new URL(request.url()).hostname === "127.0.0.1" || wrong.push(`asks ${request.url()}`)));
  await page.goto(url);
  return { page, wrong };
}

const LOCK = `
f = os.open("table.db", os.O_RDWR | os.O_CREAT)
fcntl.lockf(f, fcntl.LOCK_EX)`;

it("shows a lab: who waits for whom, operations per second, a node's death; and ends with it", async ({ skip }) => {
  skip(noBrowser !== null, noBrowser ?? "");
  const served = await serve("lab", "ui", "--dir", lab.dir);
  const { page, wrong } = await open(served.url);
  expect(page.url()).not.toContain("token");
  await page.locator("#level", { hasText: "well" }).waitFor();
  expect(await page.locator("#picture .card .name").allTextContents()).toEqual(["node1", "node2", "node3"]);
  expect(await page.locator("#picture .card .state").allTextContents()).toEqual(["member", "member", "member"]);
  expect(await page.locator("#picture .arrow").count()).toBe(0);
  await page.getByText("No program waits for a lock.").waitFor();

  const [one, two, three] = [1, 2, 2].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount }));
  if (one === undefined || two === undefined || three === undefined) throw new Error("three actors expected");
  // A name that would be an element, if it went in as HTML.
  await one.run(`${LOCK}\nlibc.prctl(15, b"<i id=evil>", 0, 0, 0)`);
  const waited = two.run(LOCK, {}, 240_000);
  const arrow = page.locator("#picture .arrow:not(.going)");
  await arrow.waitFor({ state: "attached" });
  const waits = page.locator("#waits li");
  await waits.filter({ hasText: new RegExp(`process ${two.pid}\\) on node2 has waited .*process ${one.pid}\\) on node1 has`) }).waitFor();
  const card = (node: string) => page.locator(`#picture .card[data-node=${node}]`);
  await card("node1")
    .locator(".row", { hasText: `<i id=evil> ${one.pid}` })
    .waitFor();
  expect(await page.locator("#evil").count()).toBe(0);
  expect(await card("node1").locator(".row .role").allTextContents()).toEqual(["holds"]);
  expect(await card("node2").locator(".row .role").allTextContents()).toEqual(["waits"]);
  const time = async (): Promise<number> => Number.parseFloat((await arrow.locator("text").textContent()) ?? "");
  const before = await time();
  await until("its time goes on", async () => (await time()) > before + 1);

  const outside = mkdtempSync(path.join(os.tmpdir(), "coverlay-ui-"));
  directories.push(outside);
  const stop = path.join(outside, "stop");
  const load = three.run(
    `
n = 0
while not os.path.exists(stop):
    n += 1
    put("load%d" % (n % 20), "x" * 100)
    get("load%d" % (n % 7 + 1)) if n > 20 else None
    time.sleep(0.01)`,
    { stop },
    180_000,
  );
  const mount = (node: string) => page.locator(`#mounts li[data-node=${node}]`);
  const rate = async (): Promise<number> => Number((await mount("node2").locator(".ops b").textContent())?.replaceAll(",", ""));
  await until("operations per second are seen", async () => (await rate()) > 20);
  await until("trips per operation are seen", async () =>
    /^\d+\.\d\d round trips per op$/.test((await mount("node2").locator(".facts span").first().textContent()) ?? ""),
  );
  await until(
    "the line has points",
    async () => ((await mount("node2").locator(".line path").last().getAttribute("d")) ?? "").split("L").length > 8,
  );

  await lab.kill(3);
  await card("node3").and(page.locator("[data-mood=bad]")).waitFor({ state: "attached" });
  await page.locator("#history li", { hasText: "node3 went" }).waitFor();
  await page.locator("#problems li[data-code=node-away]", { hasText: "node3 is away" }).waitFor();
  await page.locator("#level", { hasText: /degraded|down/ }).waitFor();
  const shot = await page.screenshot({ fullPage: false });
  expect(shot.length).toBeGreaterThan(20_000);
  const file = process.env["COVERLAY_UI_SCREENSHOT"];
  if (file !== undefined) writeFileSync(file, shot);

  one.signal("SIGKILL");
  await waited;
  await arrow.waitFor({ state: "detached" });
  writeFileSync(stop, "");
  await load;
  expect(wrong).toEqual([]);

  await lab.start(3);
  await page.locator("#history li").first().filter({ hasText: "node3 came" }).waitFor();
  await page.close();
  await coverlay(["lab", "down", "--dir", lab.dir]);
  expect(await served.exit).toEqual([null, "SIGKILL"]);
});

it("of one node: says that dlmd is gone and goes on when it is back; a signal ends it, and the page says so", async ({ skip }) => {
  skip(noBrowser !== null, noBrowser ?? "");
  const other = await startLab({ nodes: 1, lower: "directory" });
  try {
    const { runDir, mount } = other.node(1);
    const served = await serve("ui", "--run-dir", runDir);
    const { page } = await open(served.url);
    await page.locator("#level", { hasText: "well" }).waitFor();
    await page.locator("#history li", { hasText: "node1" }).first().waitFor();
    expect(await page.locator("#mounts .path").textContent()).toContain(mount);

    await other.kill(1, "dlmd");
    await page.locator("#level", { hasText: "unknown" }).waitFor();
    await page.locator("#problems li[data-code=dlmd-silent]", { hasText: "do: " }).waitFor();
    await page.getByText("no dlmd can be asked").waitFor();
    await other.start(1);
    await page.locator("#level", { hasText: /^(?!unknown)/ }).waitFor();
    await page.locator("#picture .card", { hasText: "member" }).waitFor({ state: "attached" });

    const inUse = await coverlay(["ui", "--run-dir", runDir, "--port", new URL(served.url).port]);
    expect([inUse.status, inUse.stdout]).toEqual([1, ""]);
    expect(inUse.stderr).toMatch(/^coverlay: port \d+ of 127\.0\.0\.1 is in use\n.*--port 0/);

    served.child.kill("SIGTERM");
    expect(await served.exit).toEqual([0, null]);
    await page.locator("#live[data-live=no]", { hasText: "coverlay ui does not answer; what is shown is" }).waitFor();
  } finally {
    await other.end();
  }
});
