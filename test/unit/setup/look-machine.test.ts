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

it("drop-ins are read over their unit, by their names; the first folder counts", () => {
  const put = (name: string, what: string): void => {
    const file = path.join(root, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, `[Mount]\nWhat=/dev/${what}\n`);
  };
  put("usr/lib/systemd/system/a-b.mount", "unit");
  put("usr/lib/systemd/system/a-b.mount.d/20.conf", "hidden");
  put("etc/systemd/system/a-b.mount.d/20.conf", "last");
  put("etc/systemd/system/a-.mount.d/10.conf", "earlier");
  put("usr/lib/systemd/system/c-d.mount", "unit");
  put("run/systemd/system/c-.mount.d/x.conf", "of-prefix");
  put("usr/lib/systemd/system/e.mount", "unit");
  put("etc/systemd/system/e.mount.d/note", "no-drop-in");
  // Its unit is made from fstab.
  put("etc/systemd/system/f.mount.d/x.conf", "of-fstab");
  put("etc/systemd/system/g.mount.d/x.conf", "masked");
  symlinkSync("/dev/null", path.join(root, "etc/systemd/system/g.mount"));
  const { lines, unread } = mountLines(root, fstab());
  const found = new Map(lines.map(({ where, source, isAutomatic }) => [path.relative(root, where), [source, isAutomatic]]));
  expect(found).toEqual(
    new Map([
      ["etc/systemd/system/a-b.mount.d/20.conf", ["/dev/last", false]],
      ["etc/systemd/system/f.mount.d/x.conf", ["/dev/of-fstab", true]],
      ["run/systemd/system/c-.mount.d/x.conf", ["/dev/of-prefix", false]],
      ["usr/lib/systemd/system/e.mount", ["/dev/unit", false]],
    ]),
  );
  expect(unread).toEqual([]);
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
