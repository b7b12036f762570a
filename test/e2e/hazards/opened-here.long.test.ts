/** F22: files that are opened under a lock that is here, of which the owner need not know, and whose names go. */
import { describe, expect, it } from "vitest";
import { hazardLab } from "./hazard-lab.ts";

describe("F22: a file that is open, and of which the owner was not told", () => {
  const hazard = hazardLab();

  it.each(["unlink", "rename"])("is read by whoever has it open after its name went by %s, here or on another node", async (how) => {
    const [here, elsewhere] = hazard.remotes;
    const reader = hazard.actor(here);
    for (const [at, nodeid] of [hazard.owner, elsewhere, here].entries()) {
      const named = `${how} ${at}`;
      await reader.run(`put(name, b"first")\nput(name + ".new", b"second")\nos.stat(name)`, { name: named });
      const before = await hazard.trips(here);
      await reader.run(`fd = os.open(name, os.O_RDONLY)`, { name: named });
      expect((await hazard.trips(here)) - before).toBe(0);
      const gone = how === "unlink" ? "os.unlink(name)" : `os.rename(name + ".new", name)`;
      await hazard.actor(nodeid).run(gone, { name: named });
      const seen = await reader.run<[string, number]>(`result = [os.pread(fd, 10, 0).decode(), os.fstat(fd).st_nlink]`);
      expect([nodeid, ...seen]).toEqual([nodeid, "first", 0]);
      await reader.run("os.close(fd)");
    }
  });

  it("an open, a look and a close of a file that is cached here cost no trip, though another node has worked in its directory a moment ago", async () => {
    const [here, elsewhere] = hazard.remotes;
    const reader = hazard.actor(here);
    // The kernel is given no names of such a directory, and asks for each again.
    for (const name of ["theirs", "theirs too"]) {
      await reader.run(`put("mine", b"text"); os.unlink("mine")`);
      await hazard.actor(elsewhere).run(`put(name, b"text")`, { name });
    }
    const files = 20;
    await reader.run(`for k in range(files): put("%d" % k, b"text")`, { files });
    const look = `for k in range(files):\n    with open("%d" % k, "rb") as file: result = file.read().decode()`;
    expect(await reader.run<string>(look, { files })).toBe("text");
    const before = await hazard.trips(here);
    expect(await reader.run<string>(look, { files })).toBe("text");
    expect((await hazard.trips(here)) - before).toBe(0);
  });
});
