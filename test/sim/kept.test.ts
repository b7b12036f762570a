/** What once failed in a simulation, and was kept (`npm run sim -- --keep test/sim/kept/NAME.script`), never does again. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { runKept } from "./kept.ts";

const folder = path.join(import.meta.dirname, "kept");

it.each(readdirSync(folder).filter((name) => name.endsWith(".script")))("%s: nothing wrong", (name) => {
  expect(runKept(readFileSync(path.join(folder, name), "utf8")).failure).toBeNull();
});
