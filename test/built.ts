/**
 * The compiled tree, which end-to-end tests run. It is compiled before the first of them if a source is newer: a test must never run what
 * was there yesterday. Once, and not by the files of tests: two of them run at a time, and one would find the other's tree half written.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import path from "node:path";

/** Also where this file itself is a compiled one: of a program such as `npm run chaos`. */
const root = path.resolve(import.meta.dirname, import.meta.filename.endsWith(".js") ? "../.." : "..");
/** Another one while somebody works on this one; for end-to-end tests the packed one, if none is named (vitest.config.ts). */
export const dist: string = path.resolve(root, process.env["COVERLAY_TEST_DIST"] ?? "dist");

export default async function setup(): Promise<void> {
  compile();
  if (process.env["COVERLAY_TEST_DIST"] !== undefined) return;
  // Nobody else that asks for `dist` needs esbuild.
  const { pack } = await import("./packed.ts");
  await pack(dist, path.join(root, "build"));
}

function compile(): void {
  const program = path.join(dist, "overlay/main.js");
  const compiled = statSync(program, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const newest = ["overlay", "dlmd", "native", "examples", "test/chaos"]
    .flatMap((folder) =>
      readdirSync(path.join(root, folder), { recursive: true, encoding: "utf8" }).map((file) => path.join(root, folder, file)),
    )
    .filter((file) => file.endsWith(".ts"))
    .reduce((time, file) => Math.max(time, statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0), 0);
  if (newest <= compiled) return;
  const args = ["-p", path.join(root, "tsconfig.json"), "--outDir", dist];
  const result = spawnSync(path.join(root, "node_modules/.bin/tsc"), args, { encoding: "utf8" });
  if (!existsSync(program)) throw new Error(`the build failed:\n${result.stdout}${result.stderr}`);
}
