/** What another program changes in a directory that is a volume, past the mount: every node sees it a moment later (hazard R21). */
import { chmodSync, linkSync, mkdirSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { must } from "../../overlay/lab/command.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { type Actor, endActors, startActor, until } from "./actor.ts";
import { startLab, type TestLab } from "./lab.ts";

const ALL = [1, 2, 3] as const;
/** A tree may go between a look and a read: its files are gone then, too. */
const READ = `
def read(name):
    try: return get(name)
    except FileNotFoundError: return None
`;
const OWNER = 1;

describe("a change in a lower directory, past the mount", () => {
  let lab: TestLab;
  let actors: readonly Actor[] = [];
  const lower = (name: string): string => `${lab.dir}/lower/${name}`;
  const counter = async (nodeid: number, name: string): Promise<number> =>
    ((await queryOverlayStatus(lab.node(nodeid).runDir))["counters"] as Record<string, number>)[name] ?? Number.NaN;

  beforeAll(async () => {
    lab = await startLab({ nodes: ALL.length, lower: "directory", size: "64M" });
  });
  afterEach(() => {
    endActors();
    actors = [];
  });
  afterAll(async () => {
    await lab.end();
  });

  /** A program on each node runs it. */
  async function everywhere<T>(source: string): Promise<readonly T[]> {
    if (actors.length === 0) {
      actors = ALL.map((nodeid) => startActor({ cwd: lab.node(nodeid).mount }));
      await Promise.all(actors.map((actor) => actor.run(READ)));
    }
    return await Promise.all(actors.map((actor) => actor.run<T>(source)));
  }

  /** All nodes give that in the end, and have not before. */
  async function turned(look: string, before: unknown, change: () => void, after: unknown): Promise<boolean> {
    const source = `result = ${look}`;
    expect(await everywhere(source)).toEqual(ALL.map(() => before));
    // It is cached: asked again, it costs nothing.
    expect(await everywhere(source)).toEqual(ALL.map(() => before));
    change();
    let seen: readonly unknown[] = [];
    await until(
      `all nodes see ${JSON.stringify(after)}`,
      async () => {
        seen = await everywhere(source);
        return seen.every((one) => JSON.stringify(one) === JSON.stringify(after));
      },
      () => JSON.stringify(seen),
    );
    return true;
  }

  it("contents, size and attributes, also of what is open", async () => {
    writeFileSync(lower("file"), "before");
    await until("it is there", async () => (await everywhere<boolean>(`result = os.path.exists("file")`)).every(Boolean));
    await everywhere(`fd = os.open("file", os.O_RDONLY)`);
    const look = `[get("file"), os.pread(fd, 100, 0).decode(), os.fstat(fd).st_size, oct(os.stat("file").st_mode & 0o777)]`;
    expect(
      await turned(look, ["before", "before", 6, "0o644"], () => writeFileSync(lower("file"), "afterwards"), [
        "afterwards",
        "afterwards",
        10,
        "0o644",
      ]),
    ).toBe(true);
    expect(
      await turned(look, ["afterwards", "afterwards", 10, "0o644"], () => truncateSync(lower("file"), 5), ["after", "after", 5, "0o644"]),
    ).toBe(true);
    expect(await turned(look, ["after", "after", 5, "0o644"], () => chmodSync(lower("file"), 0o600), ["after", "after", 5, "0o600"])).toBe(
      true,
    );
  });

  it("names that come, go, and become other files", async () => {
    await everywhere(`result = os.listdir(".")`);
    expect(await turned(`code(os.stat, "name")`, "ENOENT", () => writeFileSync(lower("name"), "one"), "ok")).toBe(true);
    expect(
      await turned(`[get("name"), os.stat("name").st_nlink]`, ["one", 1], () => linkSync(lower("name"), lower("other")), ["one", 2]),
    ).toBe(true);
    expect(await turned(`[get("other"), os.stat("other").st_nlink]`, ["one", 2], () => rmSync(lower("name")), ["one", 1])).toBe(true);
    const replace = (): void => {
      writeFileSync(lower("new"), "two");
      renameSync(lower("new"), lower("other"));
    };
    expect(await turned(`[get("other"), os.path.exists("new")]`, ["one", false], replace, ["two", false])).toBe(true);
    expect(
      await turned(
        `sorted(name for name in os.listdir(".") if name in ("other", "moved"))`,
        ["other"],
        () => renameSync(lower("other"), lower("moved")),
        ["moved"],
      ),
    ).toBe(true);
  });

  it("directories that are made, and trees that are moved in and away, and what happens in them then", async () => {
    mkdirSync(lower("elsewhere/tree/below"), { recursive: true });
    writeFileSync(lower("elsewhere/tree/below/file"), "outside");
    const look = `read("tree/below/file") or os.path.exists("tree")`;
    expect(await turned(look, false, () => renameSync(lower("elsewhere/tree"), lower("tree")), "outside")).toBe(true);
    expect(await turned(look, "outside", () => writeFileSync(lower("tree/below/file"), "inside"), "inside")).toBe(true);
    expect(await turned(look, "inside", () => renameSync(lower("tree"), lower("elsewhere/tree")), false)).toBe(true);
    const make = (): void => {
      mkdirSync(lower("deep/er"), { recursive: true });
      writeFileSync(lower("deep/er/file"), "made");
    };
    expect(await turned(`read("deep/er/file") or "none"`, "none", make, "made")).toBe(true);
    expect(await turned(`get("deep/er/file")`, "made", () => writeFileSync(lower("deep/er/file"), "written"), "written")).toBe(true);
  });

  it("what was made through a mount a moment ago", async () => {
    for (const maker of [0, 1]) {
      const name = `fresh${maker}`;
      await everywhere(`result = os.path.exists("${name}")`);
      await actors[maker]?.run(`put("${name}", "made")`);
      // Again each time: one that comes before the owner has looked at what the mount made passes for the mount's own.
      await until("its maker sees it", async () => {
        writeFileSync(lower(name), "changed");
        return (await actors[maker]?.run(`result = get("${name}")`)) === "changed";
      });
      expect(await everywhere(`result = get("${name}")`)).toEqual(ALL.map(() => "changed"));
    }
  });

  it("changes through a mount are told to nobody a second time", async () => {
    await everywhere(`result = os.listdir(".")`);
    const before = await counter(2, "revokes");
    await actors[1]?.run(`
os.mkdir("own")
for k in range(100):
    put("own/%d" % k, "x")
    os.chmod("own/%d" % k, 0o600)
    os.rename("own/%d" % k, "own/moved%d" % k)
    put("own/moved%d" % k, "xy")`);
    // What is told of this was seen after all of those.
    writeFileSync(lower("last"), "x");
    await until("the last is seen", async () => (await actors[1]?.run(`result = os.path.exists("last")`)) === true);
    // The root, and what it was given up for.
    expect((await counter(2, "revokes")) - before).toBeLessThan(10);
  });

  it("an ACL of a directory in which a node makes files meanwhile: that node obeys it, though the change passes for its own", async () => {
    const node = { cwd: lab.node(2).mount };
    const [maker, guest] = [startActor(node), startActor({ ...node, uid: 1001, gid: 1001 })];
    await maker.run(`os.mkdir("shared"); os.chmod("shared", 0o755)`);
    const made = maker.run<number>(
      `k = 0
while not os.path.exists("shared/enough"): os.mknod("shared/%d" % k); k += 1; time.sleep(0.004)
result = k`,
      {},
      120_000,
    );
    const lists = async (): Promise<string> => await guest.run(`result = code(os.listdir, "shared")`);
    await until("files are made", async () => (await guest.run<string[]>(`result = os.listdir("shared")`)).length > 3);
    for (let round = 0; round < 5; round += 1) {
      expect(await lists()).toBe("ok");
      await must("setfacl", ["-m", "u:1001:---", lower("shared")]);
      await until("it is refused", async () => (await lists()) === "EACCES");
      await must("setfacl", ["-b", lower("shared")]);
      await until("it may", async () => (await lists()) === "ok");
    }
    writeFileSync(lower("shared/enough"), "");
    expect(await made).toBeGreaterThan(10);
  });

  it("changes while the owner was away", async () => {
    writeFileSync(lower("away"), "before");
    await until("it is there", async () =>
      (await everywhere<string>(`result = get("away") if os.path.exists("away") else ""`)).every((one) => one === "before"),
    );
    endActors();
    actors = [];
    await lab.kill(OWNER);
    writeFileSync(lower("away"), "meanwhile");
    await lab.start(OWNER);
    expect(await everywhere(`result = get("away")`)).toEqual(ALL.map(() => "meanwhile"));
  });
});
