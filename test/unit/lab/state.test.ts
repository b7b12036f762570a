import { spawn } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { foreignFiles } from "../../../overlay/lab/down.ts";
import {
  type LabState,
  existingLab,
  labLockFile,
  labNode,
  readLab,
  realLabDir,
  updateNode,
  withLabLock,
  writeLab,
} from "../../../overlay/lab/state.ts";
import { checkOptions } from "../../../overlay/lab/up.ts";
import { labState } from "./lab-state.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "lab-state-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const lab = (): LabState => labState(dir, { nodes: [1, 2].map((nodeid) => ({ ...labState(dir).nodes[0], nodeid })) as LabState["nodes"] });

describe("lab.json", () => {
  it("comes back as it was written, and a node changes alone", async () => {
    writeLab(lab());
    expect(readLab(dir)).toEqual(lab());
    await updateNode(dir, 2, { device: "/dev/loop7" });
    expect(existingLab(dir).nodes.map(({ device }) => device)).toEqual([null, "/dev/loop7"]);
  });

  it("is no lab where there is no file, and says so to commands that need one", () => {
    expect(readLab(dir)).toBeNull();
    expect(() => existingLab(dir)).toThrow(/there is no lab in/);
  });

  it.each([
    ["damaged", "{"],
    ["something else", '{"format":2}'],
  ])("is refused when it is %s", (_, text) => {
    writeFileSync(`${dir}/lab.json`, text);
    expect(() => readLab(dir)).toThrow(/should describe the lab/);
  });

  it("is refused when the lab was moved: its paths would be those of another", () => {
    writeFileSync(`${dir}/lab.json`, JSON.stringify({ ...lab(), dir: "/elsewhere" }));
    expect(() => readLab(dir)).toThrow(/a lab made in \/elsewhere/);
  });

  it("is refused when others may write it, or its directory", () => {
    writeLab(lab());
    for (const [name, mode] of Object.entries({ [dir]: 0o700, [`${dir}/lab.json`]: 0o644 })) {
      for (const bit of [0o020, 0o002]) {
        chmodSync(name, mode | bit);
        expect(() => readLab(dir)).toThrow(
          expect.objectContaining({ code: "lab-owner", message: expect.stringContaining(name) as string }),
        );
      }
      chmodSync(name, mode);
    }
    expect(readLab(dir)).toEqual(lab());
  });

  it.skipIf(process.getuid?.() !== 0)("is refused when it, or its directory, is another user's", () => {
    writeLab(lab());
    for (const name of [dir, `${dir}/lab.json`]) {
      chownSync(name, 65534, 0);
      expect(() => readLab(dir)).toThrow(`${name} should belong to user id 0`);
      chownSync(name, 0, 0);
    }
  });

  it("has no other device nodes to remove than those of loop devices", () => {
    for (const device of ["/etc/passwd", "/dev/loop1/../sda", "/dev/loop1\n", "/dev/loop"]) {
      writeFileSync(`${dir}/lab.json`, JSON.stringify({ ...lab(), madeDevices: [device] }));
      expect(() => readLab(dir)).toThrow(/madeDevices/);
    }
  });

  it("is not written through a link that is there in the place of the next one", () => {
    writeFileSync(`${dir}/precious`, "keep");
    symlinkSync(`${dir}/precious`, `${dir}/lab.json.new`);
    writeLab(lab());
    expect(readFileSync(`${dir}/precious`, "utf8")).toBe("keep");
    expect(readLab(dir)).toEqual(lab());
  });

  it("names its nodes when asked for one that is not there", () => {
    expect(labNode(lab(), "node2").mount).toBe(`${dir}/node2/mnt`);
    expect(() => labNode(lab(), "node3")).toThrow(expect.objectContaining({ hint: "Its nodes are node1, node2." }));
  });
});

describe("the directory of a lab", () => {
  it("is not /, whose files nobody took for those of a lab", () => {
    const options = { nodes: 1, lower: "directory", engine: "builtin", sizeBytes: 1, fencing: false, twoNode: false, image: null } as const;
    expect(() => checkOptions({ ...options, dir: "/" })).toThrow("may not be /");
    expect(checkOptions({ ...options, dir: "/lab" })).toBeUndefined();
  });

  it("is not free where something has the name of the next lab.json, unless it is a file", () => {
    writeFileSync(`${dir}/lab.json.new`, "");
    expect(foreignFiles(dir, [])).toEqual([]);
    rmSync(`${dir}/lab.json.new`);
    mkdirSync(`${dir}/lab.json.new`);
    expect(foreignFiles(dir, [])).toEqual(["lab.json.new"]);
  });

  it("is not free where a link has a name of the lab's, though it leads nowhere", () => {
    symlinkSync(`${dir}/none`, `${dir}/disk.img`);
    expect(foreignFiles(dir, [])).toEqual(["disk.img"]);
  });

  it("has one name, whichever way it is reached and before it is there", () => {
    mkdirSync(`${dir}/real`);
    symlinkSync(`${dir}/real`, `${dir}/link`);
    expect(realLabDir(`${dir}/link/new/deep`)).toBe(`${realLabDir(dir)}/real/new/deep`);
  });
});

describe("the lock of a lab", () => {
  it("lets one command in at a time, and the next when it is done", async () => {
    const order: string[] = [];
    let enter: () => void = () => undefined;
    const entered = new Promise<void>((resolve) => (enter = resolve));
    let leave: () => void = () => undefined;
    const first = withLabLock(dir, async () => {
      enter();
      await new Promise<void>((resolve) => (leave = resolve));
      order.push("first");
    });
    await entered;
    const others = ["second", "third"].map((name) => withLabLock(dir, async () => void order.push(name)));
    await withLabLock(`${dir}/other`, async () => void order.push("other lab"));
    leave();
    await Promise.all([first, ...others]);
    expect(order.slice(0, 2)).toEqual(["other lab", "first"]);
    expect(order.slice(2).sort()).toEqual(["second", "third"]);
  });

  it("is free after an error", async () => {
    await expect(withLabLock(dir, async () => Promise.reject(new Error("broken")))).rejects.toThrow("broken");
    expect(await withLabLock(dir, async () => 7)).toBe(7);
  });

  it("is freed by the death of its holder, and not before, and leaves no file", async () => {
    const file = labLockFile(dir);
    const holder = spawn("flock", ["--no-fork", file, "sh", "-c", "echo held; exec sleep 600"], { stdio: ["ignore", "pipe", "inherit"] });
    const lines = createInterface(holder.stdout)[Symbol.asyncIterator]();
    expect((await lines.next()).value).toBe("held");
    let entered = false;
    let asked: () => void = () => undefined;
    const isAsked = new Promise<void>((resolve) => (asked = resolve));
    const waiting = withLabLock(dir, async () => (entered = true), "state", asked);
    await isAsked;
    expect(entered).toBe(false);
    holder.kill("SIGKILL");
    expect(await waiting).toBe(true);
    expect(existsSync(file)).toBe(false);
  });

  it.skipIf(process.getuid?.() !== 0)("is in a directory in which no other user makes files, and is nobody else's", async () => {
    const file = labLockFile(dir);
    const { uid, mode } = statSync(path.dirname(file));
    expect([uid, mode & 0o022]).toEqual([0, 0]);
    writeFileSync(file, "");
    chownSync(file, 65534, 0);
    try {
      await expect(withLabLock(dir, () => Promise.resolve())).rejects.toMatchObject({ code: "lab-owner" });
    } finally {
      rmSync(file);
    }
  });
});
