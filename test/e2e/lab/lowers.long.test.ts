/** A lab over XFS, and over a directory: the same as over ext4, through a power-off. */
import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { coverlay, withLab } from "../lab.ts";

describe("a lab over another lower", () => {
  it.each(["xfs", "directory"] as const)("%s: shares files, survives a power-off, and goes", (lower) =>
    withLab({ nodes: 2, lower, size: "400M" }, async (lab) => {
      writeFileSync(`${lab.node(2).mount}/kept`, lower);
      expect(readFileSync(`${lab.node(1).mount}/kept`, "utf8")).toBe(lower);
      expect(await lab.owner()).toBe(1);
      await lab.kill(2);
      await lab.start(2);
      expect(readFileSync(`${lab.node(2).mount}/kept`, "utf8")).toBe(lower);
      // All that a handle reaches is the volume.
      const ownFileSystem = new RegExp(` / ${lab.dir}/lower .* - tmpfs `).test(readFileSync("/proc/self/mountinfo", "utf8"));
      expect(ownFileSystem).toBe(lower === "directory");
      const cut = await coverlay(["lab", "cut", "node2", "--dir", lab.dir]);
      expect(cut.status).toBe(lower === "directory" ? 1 : 0);
    }),
  );
});
