/**
 * One node's overlay, without a cluster, against bindfs and the native file system over the same directory, side by side in one run:
 * rounds are interleaved, figures are medians and ratios to bindfs. bindfs has its caches off, because nothing keeps them coherent. The
 * overlay has attributes cached, as locks allow it, and names not cached ("uncached": each is looked up every time) or cached. On a busy
 * machine run it as `chrt -f 5 node ...`: everything started inherits that.
 *
 *     node dist/test/bench/solo.js [DIRECTORY]
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { nativeAddon } from "../../native/index.ts";

const ROUNDS = 5;
const MNT_DETACH = 2;

// Operations per second of: stat of 1000 names, create+close+unlink, 4 KiB reads with O_DIRECT.
const CLIENT = `
import os, sys, time, random, mmap
base = sys.argv[1]; seconds = float(sys.argv[2])
def rate(step):
  n = 0; end = time.perf_counter() + seconds; start = time.perf_counter()
  while time.perf_counter() < end:
    for _ in range(20): step(n); n += 1
  return n / (time.perf_counter() - start)
names = [os.path.join(base, 'stat', '%04d' % i) for i in range(1000)]
def create(n):
  p = os.path.join(base, 'create', 'f%d' % n)
  os.close(os.open(p, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644)); os.unlink(p)
fd = os.open(os.path.join(base, 'data'), os.O_RDONLY | os.O_DIRECT); buf = [mmap.mmap(-1, 4096)]
print(rate(lambda n: os.stat(names[n % 1000])), rate(create), rate(lambda n: os.preadv(fd, buf, 4096 * random.randrange(4096))))
`;

interface Contender {
  readonly name: string;
  readonly directory: string;
  readonly rates: number[][];
}

function ready(child: ChildProcess, word: string): Promise<void> {
  return new Promise((resolve, reject) => {
    child.stdout?.on("data", (chunk: Buffer) => {
      if (chunk.toString().includes(word)) resolve();
    });
    child.on("exit", (status) => reject(new Error(`server ended with ${status}`)));
  });
}

function run(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], timeout: 120_000 });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.on("error", reject);
    child.on("close", (status) => (status === 0 ? resolve(output) : reject(new Error(`${command} ended with ${status}`))));
  });
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

async function main(): Promise<void> {
  const base = mkdtempSync(path.join(process.argv[2] ?? tmpdir(), "coverlay-bench-"));
  const lower = path.join(base, "lower");
  const mounts = ["bindfs", "inline", "pool", "cached"].map((name) => path.join(base, name));
  for (const directory of [lower, ...mounts]) mkdirSync(directory);
  const [bindfsDir = "", inlineDir = "", poolDir = "", cachedDir = ""] = mounts;
  const contenders: Contender[] = [
    { name: "native", directory: lower, rates: [] },
    { name: "bindfs", directory: bindfsDir, rates: [] },
    { name: "uncached, inline", directory: inlineDir, rates: [] },
    { name: "uncached, pool", directory: poolDir, rates: [] },
    { name: "cached, inline", directory: cachedDir, rates: [] },
  ];
  const servers: ChildProcess[] = [];
  try {
    await run("bash", [
      "-c",
      `cd ${lower}; mkdir stat create; for i in $(seq 0 999); do : > stat/$(printf %04d $i); done; head -c 16M /dev/urandom > data`,
    ]);
    servers.push(
      spawn("bindfs", ["-f", "-o", "entry_timeout=0,negative_timeout=0,attr_timeout=0", lower, bindfsDir], { stdio: "inherit" }),
    );
    const extension = path.extname(fileURLToPath(import.meta.url));
    const solo = path.join(path.dirname(fileURLToPath(import.meta.url)), `../e2e/solo/solo-mount${extension}`);
    for (const [directory, validity, calls] of [
      [inlineDir, "none", "inline"],
      [poolDir, "none", "pool"],
      [cachedDir, "valid", "inline"],
    ] as const) {
      const server = spawn(process.execPath, [...process.execArgv, solo, lower, directory, validity, calls], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      servers.push(server);
      await ready(server, "ready");
    }
    await run("bash", ["-c", `for i in $(seq 100); do mountpoint -q ${bindfsDir} && exit 0; sleep 0.1; done; exit 1`]);
    // The first run compiles what the others measure.
    for (const { directory } of contenders) await run("python3", ["-c", CLIENT, directory, "1.5"]);
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const contender of contenders) {
        const output = await run("python3", ["-c", CLIENT, contender.directory, "0.5"]);
        contender.rates.push(output.trim().split(" ").map(Number));
      }
    }
    report(contenders);
  } finally {
    for (const directory of mounts) nativeAddon().umount(directory, MNT_DETACH);
    for (const server of servers) if (server.exitCode === null) server.kill("SIGTERM");
    rmSync(base, { recursive: true, force: true });
  }
}

function report(contenders: readonly Contender[]): void {
  const labels = ["stat", "create+close+unlink", "4 KiB read, direct"];
  const rows = contenders.map(({ name, rates }) => ({
    name,
    medians: labels.map((_, at) => median(rates.map((rate) => rate[at] ?? Number.NaN))),
  }));
  const bindfs = rows.find(({ name }) => name === "bindfs")?.medians ?? [];
  process.stdout.write(`${"".padEnd(20)}${labels.map((label) => label.padStart(28)).join("")}\n`);
  for (const { name, medians } of rows) {
    const cells = medians.map((value, at) => `${value.toFixed(0)}/s  ${(value / (bindfs[at] ?? Number.NaN)).toFixed(2)}x`.padStart(28));
    process.stdout.write(`${name.padEnd(20)}${cells.join("")}\n`);
  }
}

await main();
