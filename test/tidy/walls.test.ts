/**
 * The walls between the rooms: which folder may import which, and that pure rooms stay pure. A wall may be moved where the code shows a
 * better one; it is moved here, in the folder's README and in the imports at once.
 */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";

const root = path.resolve(import.meta.dirname, "../..");

function sources(folder: string): string[] {
  return readdirSync(path.join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && !file.includes("node_modules") && !file.startsWith("native/build"))
    .map((file) => path.join(folder, file));
}

function imports(file: string): { specifier: string; typeOnly: boolean }[] {
  const text = readFileSync(path.join(root, file), "utf8");
  const found: { specifier: string; typeOnly: boolean }[] = [];
  for (const match of text.matchAll(/^\s*(?:import|export)\s+(type\s)?[^"';]*?from\s+"([^"]+)"|^\s*import\s+"([^"]+)"/gm)) {
    found.push({ specifier: match[2] ?? match[3] ?? "", typeOnly: match[1] !== undefined });
  }
  return found;
}

function target(file: string, specifier: string): string {
  return specifier.startsWith(".") ? path.join(path.dirname(file), specifier) : specifier;
}

const all = [...sources("dlmd"), ...sources("overlay")];

/** No clock, no I/O, no randomness of their own. */
const PURE = [
  "dlmd/base/assert.ts",
  "dlmd/base/bytes.ts",
  "dlmd/base/errno.ts",
  "dlmd/base/error.ts",
  "dlmd/base/proc-stat.ts",
  "dlmd/base/steps.ts",
  "dlmd/engine/",
  "dlmd/config/allowed-change.ts",
  "dlmd/config/change.ts",
  "dlmd/lock/",
  "dlmd/membership/",
  "dlmd/plock/",
  "dlmd/recovery/",
  "dlmd/wire/",
  "dlmd/inspect.ts",
  "dlmd/node.ts",
  "dlmd/node-api.ts",
  "dlmd/node-clients.ts",
  "dlmd/node-groups.ts",
  "dlmd/node-query.ts",
  "dlmd/outbox.ts",
  "overlay/fuse/",
  "overlay/lab/layout.ts",
  "overlay/lease/lease-core.ts",
  "overlay/lower/acknowledgements.ts",
  "overlay/lower/stamp.ts",
  "overlay/coherence/cache-limit.ts",
  "overlay/coherence/cover.ts",
  "overlay/coherence/names.ts",
  "overlay/coherence/effect.ts",
  "overlay/coherence/lock-cache.ts",
  "overlay/coherence/lock-order.ts",
  "overlay/coherence/revoke.ts",
  "overlay/coherence/size-asked.ts",
  "overlay/coherence/size-doubt.ts",
  "overlay/coherence/size-repairs.ts",
  "overlay/coherence/born.ts",
  "overlay/coherence/write-token.ts",
];

const isPure = (file: string): boolean => PURE.some((pure) => file === pure || (pure.endsWith("/") && file.startsWith(pure)));

/** What a folder of the overlay may import from dlmd: its client, what travels, and the base; the modes are the client's vocabulary. */
const DLMD_FOR_OVERLAY = ["dlmd/base/", "dlmd/client/", "dlmd/wire/", "dlmd/lock/mode.ts"];
/** The composition roots and the commands that make keys and configurations need a little more. */
const ROOTS_FOR_CONFIG = ["overlay/cli/", "overlay/lab/", "overlay/main.ts"];

describe("the walls", () => {
  it("finds the sources", () => {
    expect(all.length).toBeGreaterThan(50);
  });

  it("dlmd never imports the overlay, but for the system calls of its addon, in one file", () => {
    const wrong = all
      .filter((file) => file.startsWith("dlmd/"))
      .flatMap((file) =>
        imports(file)
          .filter(({ specifier }) => target(file, specifier).startsWith("overlay/"))
          .filter(({ specifier }) => file !== "dlmd/server/peer-process.ts" || target(file, specifier) !== "overlay/native/index.ts")
          .map(({ specifier }) => `${file}: ${specifier}`),
      );
    expect(wrong).toEqual([]);
  });

  it("dlmd/base imports nothing but itself", () => {
    const wrong = sources("dlmd/base").flatMap((file) =>
      imports(file)
        .filter(({ specifier }) => specifier.startsWith(".") && !target(file, specifier).startsWith("dlmd/base/"))
        .map(({ specifier }) => `${file}: ${specifier}`),
    );
    expect(wrong).toEqual([]);
  });

  it("the overlay imports from dlmd only its base, client and wire", () => {
    const wrong = all
      .filter((file) => file.startsWith("overlay/"))
      .flatMap((file) =>
        imports(file)
          .map(({ specifier }) => target(file, specifier))
          .filter((to) => to.startsWith("dlmd/"))
          .filter((to) => !DLMD_FOR_OVERLAY.some((allowed) => to.startsWith(allowed)))
          .filter(
            (to) =>
              !(to.startsWith("dlmd/config/") || to.startsWith("dlmd/driver/cluster-files")) ||
              !ROOTS_FOR_CONFIG.some((r) => file.startsWith(r)),
          )
          .map((to) => `${file}: ${to}`),
      );
    expect(wrong).toEqual([]);
  });

  it("who says that he is pure is held to it", () => {
    const says = (file: string): boolean => /\bPure\.\s/.test(readFileSync(path.join(root, file), "utf8").split("*/")[0] ?? "");
    expect(all.filter((file) => says(file) && !isPure(file))).toEqual([]);
  });

  it("pure rooms import no node module, no package with effects, and only pure rooms as values", () => {
    const wrong = all.filter(isPure).flatMap((file) =>
      imports(file)
        .filter(({ specifier, typeOnly }) => {
          if (!specifier.startsWith(".")) return true;
          if (typeOnly) return false;
          const to = target(file, specifier);
          return !isPure(to) && to !== "dlmd/client/api.ts" && to !== "overlay/coherence/sentinel.ts" && to !== "overlay/lower/lower.ts";
        })
        .map(({ specifier }) => `${file}: ${specifier}`),
    );
    expect(wrong).toEqual([]);
  });

  it("pure rooms read no clock and draw nothing", () => {
    const forbidden = /\b(Date\.now|new Date\(|performance\.now|Math\.random|setTimeout|setInterval|setImmediate|process\.|console\.)/;
    const wrong = all.filter(isPure).flatMap((file) =>
      readFileSync(path.join(root, file), "utf8")
        .split("\n")
        .map((line, at) => ({ line, at }))
        .filter(({ line }) => !/^\s*(\*|\/\/|\/\*)/.test(line) && forbidden.test(line))
        .map(({ at }) => `${file}:${at + 1}`),
    );
    expect(wrong).toEqual([]);
  });

  it("only the classes of errors inherit", () => {
    const wrong = all.flatMap((file) =>
      [...readFileSync(path.join(root, file), "utf8").matchAll(/class \w+ extends (\w+)/g)]
        .filter((match) => match[1] !== "Error")
        .map((match) => `${file}: ${match[0]}`),
    );
    expect(wrong).toEqual([]);
  });

  it("every source says at its head what it is for", () => {
    const wrong = all.filter(
      (file) =>
        !readFileSync(path.join(root, file), "utf8")
          .replace(/^#!.*\n/, "")
          .startsWith("/**"),
    );
    expect(wrong).toEqual([]);
  });
});
