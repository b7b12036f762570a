/**
 * The compiled programs as few files, for tests that start them some thousand times: a program of ours is 200 to 300 modules, with those of packages 400, and
 * to find, read and link them took a quarter of all the processors' time. Nothing else changes: each module is what was compiled, believes that it lies
 * where it was, and a command's own modules are still loaded by that command alone. What is not a program's first file lies beside as it was compiled.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";

/** First files of processes and threads. */
const PROGRAMS = [
  "overlay/main.js",
  "overlay/lab/fence-agent.js",
  "overlay/lab/cable-process.js",
  "overlay/setup/disk-process.js",
  "dlmd/main.js",
  "dlmd/driver/heartbeat-thread.js",
];
const ROOMS = ["overlay", "dlmd", "native", "examples", "test"];
const ours = new RegExp(`[/\\\\](?:${ROOMS.join("|")})[/\\\\].*\\.js$`);
/** Packages that are CommonJS ask for modules of Node.js that way. */
const require = `import { createRequire as createRequireOfPack } from "node:module"; const require = createRequireOfPack(import.meta.url);`;

/** Whether `file` is newer than all of these. */
function isNewest(file: string, others: readonly string[]): boolean {
  const time = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return others.every((other) => statSync(other).mtimeMs < time);
}

/** Makes the tree `to` of the compiled tree `from`, unless it is newer. `to` lies as deep as `from` does. */
export async function pack(from: string, to: string): Promise<void> {
  const files = ROOMS.flatMap((room) =>
    readdirSync(path.join(from, room), { recursive: true, encoding: "utf8" }).map((file) => path.join(room, file)),
  ).filter((file) => file.endsWith(".js"));
  const sources = [...files.map((file) => path.join(from, file)), path.resolve(from, "../package-lock.json"), import.meta.filename];
  if (isNewest(path.join(to, PROGRAMS[0] ?? ""), sources)) return;
  const made = `${to}-${process.pid}`;
  for (const file of files) {
    mkdirSync(path.dirname(path.join(made, file)), { recursive: true });
    copyFileSync(path.join(from, file), path.join(made, file));
  }
  await build({
    entryPoints: PROGRAMS.map((program) => path.join(from, program)),
    outbase: from,
    outdir: made,
    allowOverwrite: true,
    bundle: true,
    splitting: true,
    chunkNames: "packed/[name]-[hash]",
    format: "esm",
    platform: "node",
    target: "node20",
    legalComments: "none",
    logLevel: "warning",
    banner: { js: require },
    plugins: [
      {
        name: "each module lies where it lay",
        setup(builds) {
          builds.onLoad({ filter: ours }, ({ path: file }) => {
            if (!file.startsWith(`${from}${path.sep}`)) return null;
            const place = path.join(to, path.relative(from, file));
            const contents = readFileSync(file, "utf8")
              .replaceAll("import.meta.url", JSON.stringify(pathToFileURL(place).href))
              .replaceAll("import.meta.filename", JSON.stringify(place))
              .replaceAll("import.meta.dirname", JSON.stringify(path.dirname(place)));
            return { contents, loader: "js" };
          });
        },
      },
    ],
  });
  if (existsSync(to)) rmSync(to, { recursive: true });
  renameSync(made, to);
}
