/** F21: data and attributes that were brought before anybody asked for them, of files that then change. */
import { describe, expect, it } from "vitest";
import { until } from "../actor.ts";
import { hazardLab } from "./hazard-lab.ts";

/** How a file changes that has "first" in it, and what is read then; null: there is no such name. */
const CHANGES: readonly (readonly [change: string, read: string | null])[] = [
  [`put(f, b"other")`, "other"],
  [`fd = os.open(f, os.O_WRONLY)\nos.pwrite(fd, b"F", 0)\nos.close(fd)`, "First"],
  [`fd = os.open(f, os.O_WRONLY | os.O_APPEND)\nos.write(fd, b" and more")\nos.close(fd)`, "first and more"],
  [`os.truncate(f, 2)`, "fi"],
  [`os.truncate(f, 6)`, "first\0"],
  [`put(f + ".new", b"new")\nos.rename(f + ".new", f)`, "new"],
  [`os.unlink(f)`, null],
];
const READ = `
result = None
try: result = get(f)
except FileNotFoundError: pass
`;

/** So few that the data of all is brought at the first occasion, in whatever order they are listed. */
const files = 7 + CHANGES.length;

describe("F21: what was brought ahead of its reader", () => {
  const hazard = hazardLab();

  it.each(["listing", "looks"])("is not told after the file was changed, here or on another node: after a %s", async (how) => {
    const [here, elsewhere] = hazard.remotes;
    const reader = hazard.actor(here);
    const nodes = [elsewhere, hazard.owner, here];
    for (const [at, nodeid] of nodes.entries()) {
      const dir = `${how}-${at}`;
      // The look shows that its last reply was taken: else the last file would be registered EX, and a busy node gives that up too late for a listing.
      const make = `os.mkdir(dir)\nfor k in range(files): put("%s/f%02d" % (dir, k), b"first")\nos.path.exists(dir + "/none")`;
      await hazard.actor(elsewhere).run(make, { dir, files });
      await until("all are registered", async () => (await hazard.counters(elsewhere))["unregistered"] === 0);
      const order =
        how === "listing" ? `os.listdir(dir)` : `["f%02d" % k for k in range(files)]\nfor name in names: os.stat("%s/%s" % (dir, name))`;
      const begin = `names = ${order}\nfor name in names[:6]: get("%s/%s" % (dir, name))\nresult = names`;
      const names = await reader.run<string[]>(begin, { dir, files });
      await until("nothing is on its way", async () => {
        const before = await hazard.trips(here);
        return (await hazard.trips(here)) === before;
      });
      const before = await hazard.trips(here);
      expect(await reader.run<string>(`result = get(f)`, { f: `${dir}/${names[6] as string}` })).toBe("first");
      expect((await hazard.trips(here)) - before).toBe(0);
      for (const [which, [change, read]] of CHANGES.entries()) {
        const f = `${dir}/${names[7 + which] as string}`;
        await hazard.actor(nodeid).run(change, { f });
        expect([nodeid, change, await reader.run<string | null>(READ, { f })]).toEqual([nodeid, change, read]);
      }
    }
  });
});
