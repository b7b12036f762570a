/** Damage on the disk: a damaged inode costs its own name, on every node, and not the names beside it. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { must } from "../../overlay/lab/command.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { until } from "./actor.ts";
import { coverlay, coverlayProgram, startLab, type TestLab } from "./lab.ts";
import { run } from "./volume/disk.ts";

let lab: TestLab;
beforeAll(async () => {
  lab = await startLab({ nodes: 2 });
});
afterAll(async () => {
  await lab?.end();
});

function debugfs(image: string, ...words: string[]): string {
  return run("debugfs", ...words, image);
}

/** Bytes of the inode are overwritten, so that its checksum is wrong. */
function spoilInode(image: string, file: string): void {
  const found = /located at block (\d+), offset 0x([0-9a-f]+)/.exec(debugfs(image, "-R", `imap ${file}`));
  const blockBytes = /Block size: +(\d+)/.exec(run("dumpe2fs", "-h", image))?.[1];
  const at = Number(found?.[1]) * Number(blockBytes) + Number.parseInt(found?.[2] ?? "", 16);
  execFileSync("dd", ["if=/dev/urandom", `of=${image}`, "bs=1", `seek=${at + 8}`, "count=64", "conv=notrunc,fsync", "status=none"]);
}

async function unmount(nodeid: number): Promise<void> {
  const { status, stderr } = await coverlay(["umount", lab.node(nodeid).mount, "--json"]);
  expect(`${status} ${stderr}`).toBe("0 ");
}

async function mount(nodeid: number): Promise<void> {
  const device = (await lab.status()).find((node) => node.nodeid === nodeid)?.device ?? "";
  const { mount: at, runDir } = lab.node(nodeid);
  const net = `--net=/run/netns/${lab.node(nodeid).netns}`;
  // Not by `lab exec`, which stands in the mount point.
  execFileSync("nsenter", [net, "--", process.execPath, coverlayProgram, "mount", device, at, "-o", `runDir=${runDir}`]);
}

/** What `ls` says on that node, and its error for each name. */
async function list(nodeid: number, ...flags: string[]): Promise<string[]> {
  const script = `ls ${flags.join(" ")} ${path.join(lab.node(nodeid).mount, "dir")} 2>&1; true`;
  return (await must("sh", ["-c", script])).trim().split("\n");
}

it("a cleared inode and one with a wrong checksum: all other names are listed, and the two end with their error, on both nodes", async () => {
  const names = ["a", "b", "c", "d", "e", "sub"];
  const dir = path.join(lab.node(1).mount, "dir");
  execFileSync("sh", ["-c", `mkdir -p ${dir}/sub && for name in a b c d e; do echo $name > ${dir}/$name; done && sync ${dir} ${dir}/*`]);
  await unmount(2);
  await unmount(1);
  const image = path.join(lab.dir, "disk.img");
  debugfs(image, "-w", "-R", "clri /dir/b");
  spoilInode(image, "/dir/d");
  execFileSync("sync", [image]);
  await mount(1);
  await mount(2);

  expect(await lab.owner()).toBe(1);
  for (const nodeid of [2, 1]) {
    expect((await list(nodeid, "-U")).toSorted()).toEqual(names);
    const details = (await list(nodeid, "-l")).join("\n");
    for (const [name, error] of [
      ["b", "Structure needs cleaning"],
      ["d", "Bad message"],
    ] as const) {
      expect(details).toContain(`cannot access '${path.join(lab.node(nodeid).mount, "dir", name)}': ${error}`);
    }
    expect(details.match(/^[-d]rw\S* .* (\S+)$/gm)?.map((line) => line.split(" ").at(-1))).toEqual(["a", "c", "e", "sub"]);
    expect(readFileSync(path.join(lab.node(nodeid).mount, "dir/e"), "utf8")).toBe("e\n");
  }
});

it("the kernel then turns the file system read-only: status says so, changes end with EROFS on both nodes, and nothing waits", async () => {
  const owner = lab.node(1);
  let disk: unknown = null;
  await until(
    "the owner says that its file system is damaged",
    async () => {
      disk = (await queryOverlayStatus(owner.runDir))["disk"];
      return /damaged/.test(String(disk));
    },
    () => `disk: ${String(disk)}`,
  );
  for (const nodeid of [1, 2]) {
    const dir = path.join(lab.node(nodeid).mount, "dir");
    expect(() => writeFileSync(path.join(dir, `new${nodeid}`), "")).toThrow(/EROFS/);
    expect(readFileSync(path.join(dir, "a"), "utf8")).toBe("a\n");
  }
  // It is still the owner: the next one would find the same damage.
  expect(await lab.owner()).toBe(1);
});
