/**
 * A real load over three mounts of one volume: git, npm, tar and SQLite, each begun on one node and checked on another.
 */
import { execFile } from "node:child_process";
import { mkdtemp, mkdir, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startLab, type TestLab } from "./lab.ts";

const run = promisify(execFile);
const FILES = Number(process.env["COVERLAY_LOAD_FILES"] ?? 2500);
/** Committed after the others were packed: files of their own in every clone. */
const LOOSE = Math.floor(FILES / 10);
/** Of 10,000 files, removed on a node that did not make them: each lock comes from the one that did. */
const REMOVED_ELSEWHERE = Number(process.env["COVERLAY_LOAD_REMOVED_ELSEWHERE"] ?? 1000);
const TRANSACTIONS = Number(process.env["COVERLAY_LOAD_TRANSACTIONS"] ?? 30);
const projectRoot = path.resolve(import.meta.dirname, "../..");

const gitEnvironment = {
  ...process.env,
  GIT_AUTHOR_NAME: "t",
  GIT_AUTHOR_EMAIL: "t@example.org",
  GIT_COMMITTER_NAME: "t",
  GIT_COMMITTER_EMAIL: "t@example.org",
  GIT_CONFIG_GLOBAL: "/dev/null",
};

async function git(cwd: string, ...args: string[]): Promise<string> {
  const { stdout } = await run("git", ["-c", "safe.directory=*", "-c", "init.defaultBranch=main", ...args], {
    cwd,
    env: gitEnvironment,
    maxBuffer: 64 << 20,
  });
  return stdout;
}

describe("a real load over three nodes", () => {
  let lab: TestLab;
  let outside = "";
  beforeAll(async () => {
    outside = await mkdtemp(path.join(tmpdir(), "coverlay-load-"));
    lab = await startLab({ nodes: 3, size: "2G" });
  });
  afterAll(async () => {
    await lab?.end();
    await rm(outside, { recursive: true, force: true });
  });

  it("git: cloned on node1, checked and committed to on node2, pulled on node3", async () => {
    const origin = path.join(outside, "origin");
    await mkdir(origin);
    await git(origin, "init", "-q");
    for (let k = 0; k < FILES; k += 1) {
      const dir = path.join(origin, `d${k % 50}`, `e${k % 7}`);
      if (k < 350) await mkdir(dir, { recursive: true });
      await writeFile(path.join(dir, `f${k}.txt`), `file ${k}\n`.repeat((k % 60) + 1));
      if (k !== FILES - LOOSE) continue;
      await git(origin, "add", ".");
      await git(origin, "commit", "-q", "-m", "most");
      await git(origin, "gc", "-q");
    }
    await git(origin, "add", ".");
    await git(origin, "commit", "-q", "-m", "all");

    const [m1, m2, m3] = [lab.node(1).mount, lab.node(2).mount, lab.node(3).mount];
    await git(m1, "clone", "-q", origin, "work");
    expect(await git(path.join(m2, "work"), "status", "--porcelain")).toBe("");
    expect(await git(path.join(m2, "work"), "log", "--oneline")).toContain("all");
    await git(path.join(m2, "work"), "fsck", "--full", "--strict");
    await git(m3, "clone", "-q", path.join(m3, "work"), "copy");

    await writeFile(path.join(m2, "work", "d1", "added.txt"), "added on node2\n");
    await git(path.join(m2, "work"), "add", ".");
    await git(path.join(m2, "work"), "commit", "-q", "-m", "from node2");
    await git(path.join(m3, "copy"), "pull", "-q");
    expect(await readFile(path.join(m3, "copy", "d1", "added.txt"), "utf8")).toBe("added on node2\n");
    expect(await readFile(path.join(m1, "copy", "d1", "added.txt"), "utf8")).toBe("added on node2\n");
    expect(await git(path.join(m1, "work"), "status", "--porcelain")).toBe("");
    expect(await git(path.join(m1, "copy"), "status", "--porcelain")).toBe("");
  });

  it("npm: this project installed on node2, used on node1", { timeout: 900_000 }, async () => {
    const target = path.join(lab.node(2).mount, "project");
    // One pack: thousands of loose objects of its history would be copied one by one, which is the test before.
    await git(projectRoot, "clone", "-q", "--depth", "1", `file://${projectRoot}`, target);
    await run("npm", ["ci", "--prefer-offline", "--no-audit", "--no-fund"], { cwd: target, maxBuffer: 64 << 20 });
    const { stdout } = await run("node", [path.join(lab.node(1).mount, "project", "dist/overlay/main.js"), "--version"]);
    expect(stdout.trim()).toBe("0.1.0");
  });

  it("10,000 files in one directory: made on node1, listed on node2 and node3, removed on node3 and node1, gone on node2", async () => {
    const dir = path.join(lab.node(1).mount, "many");
    await mkdir(dir);
    await run("python3", [
      "-c",
      "import os,sys\nos.chdir(sys.argv[1])\nfor k in range(10000): os.close(os.open(f'file-{k}',os.O_CREAT|os.O_EXCL|os.O_WRONLY))",
      dir,
    ]);
    const wanted = Array.from({ length: 10_000 }, (_, k) => `file-${k}`).sort();
    for (const node of [2, 3]) expect((await readdir(path.join(lab.node(node).mount, "many"))).sort()).toEqual(wanted);
    for (let k = 0; k < 10_000; k += 997) expect((await stat(path.join(lab.node(2).mount, "many", `file-${k}`))).size).toBe(0);
    for (const name of wanted.slice(0, REMOVED_ELSEWHERE)) await rm(path.join(lab.node(3).mount, "many", name));
    expect((await readdir(dir)).sort()).toEqual(wanted.slice(REMOVED_ELSEWHERE));
    await rm(dir, { recursive: true });
    await expect(stat(path.join(lab.node(2).mount, "many"))).rejects.toThrow(/ENOENT/);
  });

  it("tar: unpacked on node3, its sums checked on node1", async () => {
    const source = path.join(outside, "tar");
    await mkdir(source);
    for (let k = 0; k < 1000; k += 1) await writeFile(path.join(source, `part-${k}`), Buffer.alloc((k * 37) % 9000, k));
    await run("sh", ["-c", "sha256sum * > ../SUMS && mv ../SUMS . && tar cf ../all.tar ."], { cwd: source });
    const target = path.join(lab.node(3).mount, "unpacked");
    await mkdir(target);
    await run("tar", ["xf", path.join(outside, "all.tar"), "-C", target]);
    const { stdout } = await run("sha256sum", ["-c", "--quiet", "SUMS"], { cwd: path.join(lab.node(1).mount, "unpacked") });
    expect(stdout).toBe("");
  });

  it("SQLite with a rollback journal, written in turn from all nodes", async () => {
    const sql = async (node: number, text: string): Promise<string> => {
      const { stdout } = await run("sqlite3", ["-bail", path.join(lab.node(node).mount, "data.db"), text]);
      return stdout.trim();
    };
    await sql(1, "PRAGMA journal_mode=DELETE; CREATE TABLE t (id INTEGER PRIMARY KEY, node INTEGER, body TEXT);");
    for (let k = 0; k < TRANSACTIONS; k += 1) {
      const node = (k % 3) + 1;
      expect(await sql(node, "SELECT count(*) FROM t;")).toBe(String(k));
      await sql(node, `BEGIN; INSERT INTO t (node, body) VALUES (${node}, hex(randomblob(500))); COMMIT;`);
    }
    for (const node of [1, 2, 3]) {
      expect(await sql(node, "PRAGMA integrity_check;")).toBe("ok");
      expect(await sql(node, "SELECT count(*) || '/' || sum(node) FROM t;")).toBe(`${TRANSACTIONS}/${(TRANSACTIONS / 3) * 6}`);
    }
  });
});
