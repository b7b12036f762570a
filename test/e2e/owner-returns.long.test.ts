/** An owner that dies and comes back as its disk had it: what was seen of it, and was not on the disk, is gone for all. */
import { expect, it } from "vitest";
import { withLab } from "./lab.ts";
import { holdCommits } from "./lower-root.ts";
import { untilRole } from "./role.ts";

it("dies and comes back without what was not on its disk: no node goes on with what it had seen of that", () =>
  withLab({ nodes: 3, fencing: false }, async (lab) => {
    const owner = await lab.owner();
    await holdCommits(lab, owner);
    const others = [1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number];
    const [first, second] = others;
    const put = (size: string): string =>
      `import os; fd = os.open('rolled', os.O_CREAT | os.O_RDWR); os.ftruncate(fd, 0); os.pwrite(fd, ${size}, 0)`;
    await lab.mustExec(first, [
      "python3",
      "-c",
      `${put("b'a' * 5000")}; os.mkdir('dir'); os.mknod('dir/removed'); [os.fsync(os.open(name, 0)) for name in ('rolled', 'dir', '.')]`,
    ]);
    await lab.mustExec(first, [
      "python3",
      "-c",
      `${put("b'b' * 9000")}; os.mknod('dir/made'); os.unlink('dir/removed'); os.chmod('dir', 0o700)`,
    ]);
    const look = `
import os
fd = os.open("rolled", os.O_RDONLY)
names = {name: os.path.exists(f"dir/{name}") for name in ("made", "removed")}
with open("rolled", "rb") as file: data = file.read()
print(os.fstat(fd).st_size, len(data), set(data), os.lseek(fd, 0, os.SEEK_END), names, sorted(os.listdir("dir")), oct(os.stat("dir").st_mode))
`;
    const seen = (nodeid: number): Promise<string> => lab.mustExec(nodeid, ["python3", "-c", look]);
    const before = await seen(first);
    expect(before).toContain("9000 9000 {98} 9000 {'made': True, 'removed': False} ['made'] 0o40700");
    expect(await seen(second)).toBe(before);
    await lab.kill(owner);
    for (const nodeid of others) await untilRole(lab, nodeid, "waiting");
    await lab.start(owner);
    const truth = await seen(owner);
    expect(truth).not.toBe(before);
    for (const nodeid of others) expect([nodeid, await seen(nodeid)]).toEqual([nodeid, truth]);
  }));
