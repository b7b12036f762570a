/** Lines of fstab and of mount units are read from a root of the test's own. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { folderFacts, mountLines } from "../../../overlay/setup/look-machine.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(path.join(os.tmpdir(), "coverlay-root-"));
});
afterEach(() => rmSync(root, { recursive: true }));

const fstab = (): string => path.join(root, "etc/fstab");

it("an fstab that is not there has no lines; one that was named, or cannot be read, is told", () => {
  expect(mountLines(root, fstab())).toEqual({ lines: [], unread: [] });
  expect(mountLines(root, path.join(root, "other"))).toEqual({ lines: [], unread: [`${path.join(root, "other")}: ENOENT`] });
  mkdirSync(fstab(), { recursive: true });
  expect(mountLines(root, fstab())).toEqual({ lines: [], unread: [`${fstab()}: EISDIR`] });
});

it("a unit whose automount is wanted is mounted by itself", () => {
  const units = path.join(root, "etc/systemd/system");
  mkdirSync(path.join(units, "local-fs.target.wants"), { recursive: true });
  for (const name of ["a", "b"]) writeFileSync(path.join(units, `${name}.mount`), `[Mount]\nWhat=/dev/sdb\nWhere=/${name}\n`);
  symlinkSync("../a.automount", path.join(units, "local-fs.target.wants/a.automount"));
  const { lines } = mountLines(root, fstab());
  expect(lines.map(({ mountPoint, isAutomatic }) => [mountPoint, isAutomatic])).toEqual([
    ["/a", true],
    ["/b", false],
  ]);
});

it("the folders above a file are those of its name, and those to which a link leads", () => {
  const folders = ["here", "there/real"].map((name) => path.join(root, name));
  for (const folder of folders) mkdirSync(folder, { recursive: true });
  const [here = "", real = ""] = folders;
  writeFileSync(path.join(real, "cluster.yaml"), "");
  symlinkSync(path.join(real, "cluster.yaml"), path.join(here, "link"));
  const found = folderFacts(path.join(here, "link")).map((fact) => fact.path);
  expect(found).toEqual(expect.arrayContaining([here, root, "/", real, path.dirname(real)]));
  expect(new Set(found).size).toBe(found.length);
});
