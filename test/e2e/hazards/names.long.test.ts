/** Hazard F13: the order of locks on directories. */
import { describe, expect, it } from "vitest";
import { hazardLab, scale } from "./hazard-lab.ts";

describe("names", () => {
  const hazard = hazardLab();

  it("F13: three nodes create in one directory, rename between two in opposite directions, and list both with attributes", async () => {
    const setup = hazard.actor(hazard.owner);
    await setup.run(`os.mkdir("left"); os.mkdir("right"); put("left/ball", "x"); put("right/ball2", "x")`);
    const rounds = 40 * scale;
    const work = hazard.all.flatMap((nodeid) => [
      hazard
        .actor(nodeid)
        .run(`for k in range(rounds): put("%s/n%d-%d" % (("left", "right")[k % 2], node, k), str(k))`, { rounds, node: nodeid }),
      hazard.actor(nodeid).run(
        `
for k in range(rounds):
    for one, other in (("left", "right"), ("right", "left")):
        for name in ("ball", "ball2"):
            got = code(os.rename, "%s/%s" % (one, name), "%s/%s" % (other, name))
            assert got in ("ok", "ENOENT"), got
`,
        { rounds },
      ),
      hazard.actor(nodeid).run(
        `
for k in range(rounds):
    for dir in ("left", "right"):
        for entry in list(os.scandir(dir)):
            try: entry.stat()
            except FileNotFoundError: assert entry.name.startswith("ball"), entry.name
`,
        { rounds },
      ),
      hazard.actor(nodeid).run(
        `
for k in range(rounds):
    for dir in ("left", "right"):
        for name in os.listdir(dir)[:5]:
            got = code(os.chmod, dir + "/" + name, 0o600 + k % 8)
            assert got == "ok" or (got == "ENOENT" and name.startswith("ball")), got
`,
        { rounds },
      ),
    ]);
    await Promise.all(work);
    const listings = await Promise.all(
      hazard.all.map((nodeid) =>
        hazard.actor(nodeid).run<string[][]>(`result = [sorted(os.listdir("left")), sorted(os.listdir("right"))]`),
      ),
    );
    expect(new Set(listings.map((listing) => JSON.stringify(listing))).size).toBe(1);
    const names = (listings[0] ?? []).flat();
    expect(names.length).toBe(3 * rounds + 2);
    expect(names.filter((name) => name.startsWith("ball")).sort()).toEqual(["ball", "ball2"]);
  });
});
