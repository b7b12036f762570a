/** A device that the kernel lets nobody write to: refused, or mounted by all nodes with -o ro. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { type RunResult, must, run } from "../../overlay/lab/command.ts";
import { netnsArguments } from "../../overlay/lab/layout.ts";
import { code } from "./errno-code.ts";
import { coverlayProgram, withLab } from "./lab.ts";

describe("a read-only device", () => {
  it("is refused where nobody said so; with -o ro all nodes read, and every change is EROFS, from whichever node", async () => {
    await withLab({ nodes: 2, size: "64M" }, async (lab) => {
      const devices = (await lab.status()).map(({ device }) => device ?? "");
      await writeFile(path.join(lab.node(1).mount, "kept"), "here");
      for (const nodeid of [2, 1]) {
        const overlayPid = lab.overlayPid(nodeid);
        await must("umount", ["-i", lab.node(nodeid).mount]);
        await must("tail", ["--pid", String(overlayPid), "-f", "/dev/null"]);
      }
      for (const device of devices) await must("blockdev", ["--setro", device]);
      const mount = (nodeid: number, more: string): Promise<RunResult> => {
        const { netns, mount: point, runDir } = lab.node(nodeid);
        const words = [process.execPath, coverlayProgram, "mount", devices[nodeid - 1] ?? "", point, "-o", `runDir=${runDir}${more}`];
        return run("nsenter", netnsArguments(netns, words));
      };
      try {
        const refused = await mount(1, "");
        expect(refused.stderr).toMatch(/is a read-only device\n {2}Mount with -o ro on every node/);
        expect(refused.status).toBe(32);
        expect(await mount(1, ",ro")).toMatchObject({ status: 0, stderr: "" });
        expect(await mount(2, "")).toMatchObject({ status: 0, stderr: "" });
        for (const { mount: point } of lab.nodes) {
          expect(await readFile(path.join(point, "kept"), "utf8")).toBe("here");
          expect(await code(writeFile(path.join(point, "kept"), "x"))).toBe("EROFS");
          expect(await code(mkdir(path.join(point, "new")))).toBe("EROFS");
        }
      } finally {
        // It would stay with the loop device.
        for (const device of devices) await must("blockdev", ["--setrw", device]);
      }
    });
  });
});
