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

const all = [...sources("dlmd"), ...sources("native"), ...sources("overlay")];

/** No clock, no I/O, no randomness of their own. */
const PURE = [
  "dlmd/base/assert.ts",
  "dlmd/base/bytes.ts",
  "dlmd/base/errno.ts",
  "dlmd/base/error.ts",
  "dlmd/base/fence-agent-api.ts",
  "dlmd/base/keep-newest.ts",
  "dlmd/base/newest-map.ts",
  "dlmd/base/node-word.ts",
  "dlmd/base/number-map.ts",
  "dlmd/base/proc-stat.ts",
  "dlmd/base/recency.ts",
  "dlmd/base/program-time.ts",
  "dlmd/base/step-time.ts",
  "dlmd/base/steps.ts",
  "dlmd/clients/",
  "dlmd/config/allowed-change.ts",
  "dlmd/config/change-event.ts",
  "dlmd/config/change.ts",
  "dlmd/config/fence-plan.ts",
  "dlmd/config/record.ts",
  "dlmd/config/trail.ts",
  "dlmd/config/votes.ts",
  "dlmd/engine/",
  "dlmd/lock/",
  "dlmd/fence-agent/xml.ts",
  "dlmd/fence-pacemaker/proof.ts",
  "dlmd/fence-pacemaker/request.ts",
  "dlmd/fencing/",
  "dlmd/lockspaces/",
  "dlmd/membership/",
  "dlmd/mount-group/",
  "dlmd/node-api.ts",
  "dlmd/node.ts",
  "dlmd/outbox.ts",
  "dlmd/plock/",
  "dlmd/query/",
  "dlmd/recovery/",
  "dlmd/transport/",
  "dlmd/wire/",
  "overlay/fuse/",
  "overlay/file-lock/core.ts",
  "overlay/file-lock/core-port.ts",
  "overlay/file-lock/late-grants.ts",
  "overlay/file-lock/locked-file.ts",
  "overlay/file-lock/lock-users.ts",
  "overlay/lab/fence-request.ts",
  "overlay/lab/layout.ts",
  "overlay/lease/lease-core.ts",
  "overlay/local-changes/own-times.ts",
  "overlay/lower/file-id-map.ts",
  "overlay/lower/local/orphan-table.ts",
  "overlay/lower/remote/acknowledgements.ts",
  "overlay/coherence/cover-parts.ts",
  "overlay/coherence/cover.ts",
  "overlay/coherence/effect.ts",
  "overlay/coherence/lock/",
  "overlay/coherence/names/",
  "overlay/coherence/page-range.ts",
  "overlay/coherence/size/asked.ts",
  "overlay/coherence/size/doubt.ts",
  "overlay/coherence/size/repairs.ts",
  "overlay/setup/finding.ts",
  "overlay/setup/fstab.ts",
  "overlay/setup/judge-machine.ts",
  "overlay/setup/judge-nodes.ts",
  "overlay/setup/judge-volume.ts",
  "overlay/setup/mmp-watch.ts",
  "overlay/setup/plan.ts",
  "overlay/setup/shell-word.ts",
  "overlay/status/",
  "overlay/ui/history.ts",
  "overlay/ui/picture.ts",
  "overlay/ui/rates.ts",
  "overlay/ui/snapshot.ts",
  "overlay/volume/log-head.ts",
  "overlay/volume/quiet-disk.ts",
];

const isPure = (file: string): boolean => PURE.some((pure) => file === pure || (pure.endsWith("/") && file.startsWith(pure)));

/** Parts of dlmd that the overlay may import: client, base, what mounters agree on in their group, TLS with the cluster's key, formats. */
const DLMD_FOR_OVERLAY = ["dlmd/base/", "dlmd/client/", "dlmd/mount-group/", "dlmd/tls/", "dlmd/wire/"];
/** The tables of file locks: those that no other node uses are kept here by the very rules of dlmd. */
const PLOCK_TABLES = new Set(["dlmd/plock/owned.ts", "dlmd/plock/table.ts"]);
/** The composition roots and the commands that make keys and configurations need a little more. */
const ROOTS_FOR_CONFIG = ["overlay/cli/", "overlay/lab/", "overlay/main.ts", "overlay/setup/"];

/**
 * The rooms of dlmd, the lowest first, and the rooms that each one imports besides itself. What is not named here (driver, server, main) is the
 * shell. Recovery and locks see of the engine what engine.ts says, so that another one can take the place of membership and builtin.
 */
const CORE_ROOMS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  wire: ["base"],
  tls: ["base"],
  config: ["base", "wire"],
  client: ["base", "wire"],
  engine: ["base", "wire", "config"],
  membership: ["base", "wire", "config", "engine"],
  "engine/builtin": ["base", "wire", "engine", "membership"],
  "engine/corosync": ["base", "wire", "config", "engine", "engine/builtin", "membership"],
  transport: ["base", "wire"],
  lock: ["base", "wire"],
  fencing: ["base", "wire", "config", "engine"],
  lockspaces: ["base", "wire", "engine"],
  "mount-group": ["base", "wire"],
  plock: ["base", "wire", "lock"],
  clients: ["base", "wire", "engine", "lock", "plock"],
  recovery: ["base", "wire", "engine", "transport", "lock", "clients"],
  query: ["base", "wire", "engine", "fencing", "lock", "lockspaces", "plock", "clients", "recovery", "node-api.ts"],
  "node-api.ts": ["wire", "engine", "engine/corosync", "fencing", "membership", "lock", "plock", "recovery"],
};
/**
 * The rooms of the coherence layer, and the files that join them, the lowest first. lock/ and kernel/ do not know each other: effects join them.
 */
const COHERENCE_ROOMS: Readonly<Record<string, readonly string[]>> = {
  "page-range.ts": [],
  "cover-parts.ts": [],
  "cover.ts": ["page-range.ts", "cover-parts.ts"],
  names: ["cover.ts"],
  "effect.ts": ["page-range.ts", "cover-parts.ts", "cover.ts", "names"],
  size: ["cover-parts.ts", "cover.ts", "effect.ts"],
  "terms.ts": ["cover.ts", "names", "size"],
  "api.ts": ["page-range.ts", "cover.ts", "names", "size", "terms.ts"],
  lock: ["page-range.ts", "cover-parts.ts", "cover.ts", "names", "effect.ts", "size", "api.ts"],
  kernel: ["page-range.ts", "cover-parts.ts", "cover.ts", "names", "effect.ts", "size"],
  pages: ["page-range.ts", "cover.ts", "api.ts", "kernel"],
  "births-lock.ts": ["api.ts", "effect.ts", "lock"],
  "lock-requests.ts": ["cover-parts.ts", "cover.ts", "effect.ts", "lock"],
  "told-names.ts": ["cover.ts", "names", "effect.ts", "lock", "kernel"],
  "suspension.ts": ["cover.ts", "effect.ts", "kernel"],
  "pins.ts": ["page-range.ts", "cover.ts", "names", "effect.ts", "size", "terms.ts", "api.ts", "lock", "births-lock.ts", "kernel", "pages"],
  "rest.ts": ["cover.ts", "cover-parts.ts", "effect.ts", "lock", "lock-requests.ts", "size"],
  "shell.ts": [
    "cover.ts",
    "effect.ts",
    "size",
    "api.ts",
    "lock",
    "kernel",
    "births-lock.ts",
    "lock-requests.ts",
    "told-names.ts",
    "rest.ts",
    "suspension.ts",
    "pins.ts",
  ],
};
/** In order: each imports only those before it. */
const REMOTE_LOWER = [
  ["acknowledgements", "fruitless-connections", "connection", "call-journal", "handles", "pending-call", "waiting-calls", "session"],
  ["known-names", "known-listings", "known", "room", "write-behind", "changes", "closes", "opens", "data-ahead", "core"],
  ["attributes", "data", "behind-calls", "again", "names", "remote"],
]
  .flat()
  .map((name) => `overlay/lower/remote/${name}.ts`);

/** What it imports of the rest of the overlay: it knows neither operations nor the table of inodes. */
const FOR_COHERENCE = /^overlay\/(coherence|caller)\/|^overlay\/fuse\/notify\.ts$|^overlay\/lower\/(lower|file-id-map)\.ts$/;
const MAY_CALL_THE_ADDON = new Set([
  "dlmd/driver/clock.ts",
  "dlmd/server/own-socket.ts",
  "dlmd/server/start-anew.ts",
  "dlmd/server/peer-process.ts",
  "dlmd/server/service-manager.ts",
]);
const coherenceRoomOf = (file: string): string => file.split("/")[2] ?? "";

const coreRoomOf = (file: string): string =>
  path.dirname(file) === "dlmd" ? path.basename(file) : path.dirname(file).slice("dlmd/".length);

describe("the walls", () => {
  it.each(Object.entries(CORE_ROOMS))("of dlmd/%s: it imports only rooms below it", (room, below) => {
    const files = all.filter((file) => file.startsWith("dlmd/") && coreRoomOf(file) === room);
    const wrong = files.flatMap((file) =>
      imports(file)
        .map(({ specifier }) => target(file, specifier))
        .filter((to) => to.startsWith("dlmd/") && coreRoomOf(to) !== room && !below.includes(coreRoomOf(to)))
        .map((to) => `${file}: ${to}`),
    );
    expect([files.length > 0, wrong]).toEqual([true, []]);
  });

  it.each(Object.entries(COHERENCE_ROOMS))("of overlay/coherence/%s: it imports only rooms below it", (room, below) => {
    const names = Object.keys(COHERENCE_ROOMS);
    const above = below.filter((other) => !names.slice(0, names.indexOf(room)).includes(other));
    const files = sources("overlay/coherence").filter((file) => coherenceRoomOf(file) === room);
    const wrong = files.flatMap((file) =>
      imports(file)
        .map(({ specifier }) => target(file, specifier))
        .filter((to) => to.startsWith("overlay/coherence/") && coherenceRoomOf(to) !== room && !below.includes(coherenceRoomOf(to)))
        .map((to) => `${file}: ${to}`),
    );
    expect([files.length > 0, above, wrong]).toEqual([true, [], []]);
  });

  it("the coherence layer is below operations and the table of inodes", () => {
    const wrong = sources("overlay/coherence").flatMap((file) =>
      imports(file)
        .map(({ specifier }) => target(file, specifier))
        .filter((to) => to.startsWith("overlay/") && !FOR_COHERENCE.test(to))
        .map((to) => `${file}: ${to}`),
    );
    expect(wrong).toEqual([]);
  });

  it("each file of the coherence layer is in one of its rooms", () => {
    expect(sources("overlay/coherence").filter((file) => !(coherenceRoomOf(file) in COHERENCE_ROOMS))).toEqual([]);
  });

  it("finds the sources", () => {
    expect(all.length).toBeGreaterThan(50);
  });

  it("dlmd never imports the overlay, and the system calls of the addon in four files only", () => {
    const wrong = all
      .filter((file) => file.startsWith("dlmd/"))
      .flatMap((file) =>
        imports(file)
          .filter(({ specifier }) => /^(overlay|native)\//.test(target(file, specifier)))
          .filter(({ specifier }) => !MAY_CALL_THE_ADDON.has(file) || target(file, specifier) !== "native/index.ts")
          .map(({ specifier }) => `${file}: ${specifier}`),
      );
    expect(wrong).toEqual([]);
  });

  it("the two sides of the lower meet only in what they agree on", () => {
    const may: Readonly<Record<string, readonly string[]>> = { local: [], remote: ["wire"], server: ["local", "wire"], wire: [] };
    const roomOf = (file: string): string => /^overlay\/lower\/(\w+)\//.exec(file)?.[1] ?? "";
    const wrong = sources("overlay/lower").flatMap((file) =>
      imports(file)
        .map(({ specifier }) => target(file, specifier))
        .filter((to) => roomOf(to) !== "" && roomOf(to) !== roomOf(file) && !(may[roomOf(file)] ?? []).includes(roomOf(to)))
        .map((to) => `${file}: ${to}`),
    );
    expect(wrong).toEqual([]);
  });

  it("the files of the remote lower import only those before them", () => {
    const wrong = REMOTE_LOWER.flatMap((file, at) =>
      imports(file)
        .map(({ specifier }) => target(file, specifier))
        .filter((to) => to.startsWith("overlay/lower/remote/") && !REMOTE_LOWER.slice(0, at).includes(to))
        .map((to) => `${file}: ${to}`),
    );
    expect([REMOTE_LOWER.toSorted(), wrong]).toEqual([sources("overlay/lower/remote").toSorted(), []]);
  });

  it("the commands ask through query/, which knows no command", () => {
    const wrong = sources("overlay/query").filter((file) =>
      imports(file).some(({ specifier }) => /^overlay\/(cli|lab|serve)\//.test(target(file, specifier))),
    );
    expect(wrong).toEqual([]);
  });

  it("the page asks nobody itself: its looks come from the commands, its report from status/", () => {
    const wrong = sources("overlay/ui").flatMap((file) =>
      imports(file)
        .map(({ specifier }) => target(file, specifier))
        .filter((to) => /^(overlay|dlmd)\//.test(to) && !/^overlay\/(ui|status)\/|^dlmd\/base\//.test(to))
        .map((to) => `${file}: ${to}`),
    );
    expect(wrong).toEqual([]);
  });

  it("the addon imports nothing of ours", () => {
    expect(sources("native").flatMap((file) => imports(file).filter(({ specifier }) => specifier.startsWith(".")))).toEqual([]);
  });

  it("the overlay imports from dlmd only its base, client, mount-group, tls and wire", () => {
    const wrong = all
      .filter((file) => file.startsWith("overlay/"))
      .flatMap((file) =>
        imports(file)
          .map(({ specifier }) => target(file, specifier))
          .filter((to) => to.startsWith("dlmd/"))
          .filter((to) => !DLMD_FOR_OVERLAY.some((allowed) => to.startsWith(allowed)))
          .filter((to) => !(file.startsWith("overlay/file-lock/") && PLOCK_TABLES.has(to)))
          .filter((to) => !(file === "overlay/cli/config.ts" && to.startsWith("dlmd/fence-agent/")))
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
          return (
            !isPure(to) && to !== "dlmd/client/api.ts" && to !== "overlay/coherence/size/sentinel.ts" && to !== "overlay/lower/lower.ts"
          );
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
