/** A test that is killed leaves no loop device, no mount and no folder of a disk. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { dist } from "../../built.ts";
import { until } from "../actor.ts";
import { run } from "./disk.ts";

it("is tidied up after a process that was killed", async () => {
  const module = JSON.stringify(path.join(dist, "test/e2e/volume/disk.js"));
  const program = `import { withDisk } from ${module};
    await withDisk("none", ({ dir, device }) => new Promise(() => { console.log(dir, device); setInterval(() => {}, 1000); }));`;
  const holder = spawn(process.execPath, ["--input-type=module", "--eval", program], { stdio: ["ignore", "pipe", "inherit"] });
  const [words] = (await once(holder.stdout, "data")) as [Buffer];
  const [dir, device] = words.toString().trim().split(" ") as [string, string];
  const image = path.join(dir, "image");
  expect(run("losetup", "--associated", image)).toContain(`${device}:`);
  holder.kill("SIGKILL");
  await once(holder, "exit");
  await until("its folder is gone", () => !existsSync(dir));
  expect(run("losetup", "--list", "--noheadings", "--output", "BACK-FILE")).not.toContain(image);
});
