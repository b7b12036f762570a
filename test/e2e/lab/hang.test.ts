/** Processes that are taken into a group for which a disk hangs, and come back to the group where they were. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type CgroupTree, cgroupTree, TakenGroup } from "../../../overlay/lab/cgroup.ts";
import { HungGroup, noHang } from "../../../overlay/lab/hang.ts";
import { deviceNumber } from "../../../overlay/volume/device.ts";

const own = `coverlay-test-${process.pid}`;
const unified = "/sys/fs/cgroup/unified";
/** Those of this machine: the one in which disks hang, and v2 beside v1, where only places can be tried. */
const trees: CgroupTree[] = [cgroupTree()];
if (trees[0]?.version === 1 && existsSync(`${unified}/cgroup.procs`)) trees.push({ ...cgroupTree(), root: unified, version: 2 });

let program: ChildProcess;
let tree: CgroupTree;
const group = (...names: string[]): string => path.join(tree.root, own, ...names);
const enter = (where: string): void => writeFileSync(path.join(where, "cgroup.procs"), String(program.pid));
const place = (): string => {
  const pattern = tree.version === 2 ? /^0::(.*)$/m : /^\d+:(?:[^:]*,)?blkio(?:,[^:]*)?:(.*)$/m;
  return pattern.exec(readFileSync(`/proc/${program.pid}/cgroup`, "latin1"))?.[1] ?? "";
};

beforeEach(() => {
  program = spawn("sleep", ["600"], { stdio: "ignore" });
});
afterEach(async () => {
  program.kill("SIGKILL");
  await once(program, "exit");
  for (const one of trees) new TakenGroup(one, `${own}-taken`).end();
  for (const { root } of trees)
    for (const name of ["inner", ""]) if (existsSync(path.join(root, own, name))) rmdirSync(path.join(root, own, name));
});

it.for(trees)("a process goes back to the group where it was (v$version)", (one, ctx) => {
  tree = one;
  ctx.skip(!existsSync(path.join(tree.root, "cgroup.procs")), "no cgroups here");
  mkdirSync(group("inner"), { recursive: true });
  const taken = new TakenGroup(tree, `${own}-taken`);
  const pid = program.pid ?? 0;
  const before = [tree.root, group("inner"), group()];
  for (const where of before) {
    enter(where);
    const from = place();
    const to = taken.placeFor(pid);
    taken.take(pid, to ?? "");
    expect(place()).toBe(`/${own}-taken${from === "/" ? "" : from}`);
    // Once more, and for a process that is gone.
    expect([taken.placeFor(pid), taken.placeFor(2 ** 22)]).toEqual([null, null]);
    taken.end();
    expect([place(), existsSync(taken.path)]).toEqual([from, false]);
  }
  // Its group is gone meanwhile.
  enter(group("inner"));
  taken.take(pid, taken.placeFor(pid) ?? "");
  rmdirSync(group("inner"));
  taken.end();
  expect([place(), existsSync(taken.path)]).toEqual(["/", false]);
});

it("a disk hangs for a process of a group of its own, and for none when it is let go", (ctx) => {
  ctx.skip(noHang() !== null, noHang() ?? "");
  tree = cgroupTree();
  const device = readdirSync("/sys/block")
    .map((name) => `/dev/${name}`)
    .find((file) => existsSync(file));
  ctx.skip(device === undefined, "no block device here");
  mkdirSync(group("inner"), { recursive: true });
  enter(group("inner"));
  const hung = new HungGroup(`${own}-hung`);
  const limits = (): boolean[] =>
    ["", own, `${own}/inner`].map((name) => {
      const file = path.join(tree.root, `${own}-hung`, name, tree.version === 1 ? "blkio.throttle.write_bps_device" : "io.max");
      return existsSync(file) && readFileSync(file, "latin1").includes(`${deviceNumber(device ?? "")} `);
    });
  try {
    hung.hang(device ?? "", [program.pid ?? 0]);
    expect([hung.hangs(device ?? ""), place()]).toEqual([true, `/${own}-hung/${own}/inner`]);
    expect(limits()).toEqual([true, false, tree.version === 1]);
    hung.letGo(device ?? "");
    expect([hung.hangs(device ?? ""), limits()]).toEqual([false, [false, false, false]]);
  } finally {
    hung.letGo(device ?? "");
    hung.end();
  }
  expect([place(), existsSync(path.join(tree.root, `${own}-hung`))]).toEqual([`/${own}/inner`, false]);
});
