/** A run of `npm run spec` that is ended by a signal leaves nothing in the file system that it has tried. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { makeImage } from "../compliance/lower-fixture.ts";
import { until } from "./actor.ts";

const program = path.resolve(import.meta.dirname, "../../dist/test/model/spec/run.js");

it.each([
  { signal: "SIGTERM", words: [] },
  { signal: "SIGINT", words: ["--at-once"] },
] as const)("$signal $words: it says what it has tried, and its directory is gone", async ({ signal, words }) => {
  const image = makeImage("ext4", 64);
  const place = image.mount();
  try {
    const mount = place.path.replace("/self/", `/${process.pid}/`);
    const before = readdirSync(mount);
    const args = [program, "--mount", mount, "--runs", "1000000", ...words];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(child, "close");
    let said = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
    const own = (): string[] => readdirSync(mount).filter((name) => !before.includes(name));
    await until("it works in a directory of its own", () => own().length > 0 && readdirSync(path.join(mount, own()[0] ?? "")).length > 0);
    child.kill(signal);
    expect(await ended).toEqual([0, null]);
    expect([said.includes(`stopped by ${signal}`), own()]).toEqual([true, []]);
  } finally {
    await place.release();
    image.remove();
  }
});
