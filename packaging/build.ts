/**
 * `npm run package`: builds coverlay_VERSION_ARCH.deb from the compiled tree, with Debian's own dpkg-deb. README.md beside this file says
 * what is in it and why. Two builds of one commit with one Node.js give the same bytes (reproducible-builds.org, SOURCE_DATE_EPOCH).
 */
import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { carriedPackages, readPackage } from "./dependencies.ts";
import { KEEPER, LIB, MAINTAINER, type StageRequest, filesBelow, settle, stageTree } from "./staging.ts";

const usage = `npm run package -- [options]
  --node=carried      Node.js comes with the package [default]
  --node=system       the package depends on nodejs (>= 20.19)
  --deb-version=V     another version than that of package.json, such as 0.1.0+site1
  --output=DIR        where the package is written [the project's folder]
  --quick             larger, and built in less time: for tests`;

/** package.json, "engines". */
const NODE_LEAST = "20.19";
/** tune2fs and debugfs know ext4. bash and util-linux (setpriv, blockdev) are essential: on every Debian. */
const DEPENDS = ["e2fsprogs", "mount"];
const SCRIPTS = ["postinst", "prerm", "postrm"];
const description = `one ordinary file system, mounted on several machines at once
 A disk that several machines reach holds an ordinary ext4 or XFS file system.
 coverlay keeps the caches of all machines coherent through a distributed lock
 manager, so that each of them can mount it at the same time. Nothing is
 reformatted.
 .
 This package has the lock manager (dlmd), the command coverlay, the helpers of
 mount(8), a unit of systemd, a fence agent and a resource agent for Pacemaker.`;

class BuildError extends Error {}

function run(command: string, args: readonly string[], options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {}): string {
  const result: SpawnSyncReturns<string> = spawnSync(command, args, { encoding: "utf8", maxBuffer: 64 * 2 ** 20, ...options });
  if (result.status === 0) return result.stdout;
  const missing = result.error !== undefined && "code" in result.error && result.error.code === "ENOENT";
  const hint = missing ? "Install dpkg-dev and binutils." : `${result.stdout ?? ""}${result.stderr ?? ""}`;
  throw new BuildError(`${command} ${args.join(" ")}: ${result.error?.message ?? `exit status ${result.status}`}\n  ${hint}`);
}

function sourceEpoch(root: string): number {
  const given = process.env["SOURCE_DATE_EPOCH"];
  if (given !== undefined && /^\d+$/.test(given)) return Number(given);
  return Number(run("git", ["log", "-1", "--format=%ct"], { cwd: root }).trim());
}

/** Names and debugging symbols are of no use without the sources: node becomes an eighth smaller. */
function strip(stage: string, files: readonly string[]): void {
  for (const file of files) run("strip", ["--strip-unneeded", "--remove-section=.comment", path.join(stage, file)]);
}

/** What the binaries need of other packages, as dpkg-shlibdeps(1) finds it: "libc6 (>= 2.34), libstdc++6 (>= 11)". */
function libraryDepends(scratch: string, stage: string, binaries: readonly string[]): string[] {
  mkdirSync(path.join(scratch, "debian"));
  writeFileSync(path.join(scratch, "debian/control"), "Source: coverlay\n\nPackage: coverlay\nArchitecture: any\n");
  const words = ["-O", ...binaries.flatMap((file) => ["-e", path.join(stage, file)])];
  const [, list = ""] = /^shlibs:Depends=(.*)$/m.exec(run("dpkg-shlibdeps", words, { cwd: scratch })) ?? [];
  return list.split(", ").filter((each) => each !== "");
}

function control(fields: Readonly<Record<string, string>>): string {
  return Object.entries(fields)
    .map(([name, value]) => `${name}: ${value}\n`)
    .join("");
}

function writeControl(request: StageRequest, arch: string, depends: readonly string[]): void {
  const { root, stage, debVersion } = request;
  const files = filesBelow(stage);
  const installedKb = files.reduce((sum, file) => sum + Math.ceil(statSync(path.join(stage, file)).size / 1024) + 1, 0);
  mkdirSync(path.join(stage, "DEBIAN"));
  const write = (name: string, text: string, mode: number): void => {
    const file = path.join(stage, "DEBIAN", name);
    writeFileSync(file, text);
    // Whatever the umask is.
    chmodSync(file, mode);
  };
  const sums = files
    .filter((file) => !file.startsWith("etc/"))
    .map(
      (file) =>
        `${createHash("md5")
          .update(readFileSync(path.join(stage, file)))
          .digest("hex")}  ${file}\n`,
    );
  write("md5sums", sums.join(""), 0o644);
  write(
    "conffiles",
    files
      .filter((file) => file.startsWith("etc/"))
      .map((file) => `/${file}\n`)
      .join(""),
    0o644,
  );
  const script = (name: string): string => readFileSync(path.join(root, "packaging/debian", name), "utf8");
  for (const name of SCRIPTS)
    write(
      name,
      script(name).replace("#RUNNING#\n", () => `\n${script("running.sh")}\n`),
      0o755,
    );
  const text = control({
    Package: "coverlay",
    Version: debVersion,
    Architecture: arch,
    Maintainer: MAINTAINER,
    "Installed-Size": String(installedKb),
    Depends: depends.join(", "),
    Recommends: "logrotate",
    Suggests: "xfsprogs, fence-agents, iproute2, resource-agents, psmisc",
    Section: "admin",
    Priority: "optional",
    Description: description,
  });
  write("control", text, 0o644);
}

interface Options {
  readonly node: "carried" | "system";
  readonly debVersion: string;
  readonly output: string;
  readonly quick: boolean;
}

function parse(root: string): Options {
  const { values } = parseArgs({
    options: {
      node: { type: "string", default: "carried" },
      "deb-version": { type: "string", default: readPackage(root).version.replaceAll("-", "~") },
      output: { type: "string", default: root },
      quick: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  const { node, "deb-version": debVersion } = values;
  if (node !== "carried" && node !== "system") throw new BuildError(`--node=${node}: carried or system expected\n${usage}`);
  if (!/^\d[A-Za-z0-9.+~]*(-[A-Za-z0-9.+~]+)?$/.test(debVersion))
    throw new BuildError(`--deb-version=${debVersion} is no version of Debian's`);
  return { node, debVersion, output: path.resolve(values.output), quick: values.quick };
}

function requireBuilt(root: string): void {
  const needed = ["dist/overlay/main.js", "dist/dlmd/main.js", "native/build/Release/coverlay.node", KEEPER];
  const missing = needed.filter((file) => !existsSync(path.join(root, file)));
  if (missing.length > 0) throw new BuildError(`${missing.join(", ")} not built: run npm ci`);
}

/** The node that builds is the one that is carried: the addon was built and tested with it. */
function ownNode(): StageRequest["node"] {
  return { file: process.execPath, prefix: path.dirname(path.dirname(process.execPath)), version: process.versions.node };
}

function build(root: string, { node, debVersion, output, quick }: Options): string {
  requireBuilt(root);
  const scratch = mkdtempSync(path.join(os.tmpdir(), "coverlay-package-"));
  try {
    const stage = path.join(scratch, "stage");
    mkdirSync(stage);
    const request: StageRequest = {
      root,
      stage,
      node: node === "carried" ? ownNode() : null,
      carried: carriedPackages(root),
      debVersion,
      epoch: sourceEpoch(root),
    };
    stageTree(request);
    const binaries = filesBelow(stage).filter(
      (file) => file.startsWith(LIB) && (file.endsWith(".node") || file.endsWith("bin/node") || file.endsWith(KEEPER)),
    );
    strip(stage, binaries);
    const arch = run("dpkg", ["--print-architecture"]).trim();
    const nodePackage = node === "system" ? [`nodejs (>= ${NODE_LEAST})`] : [];
    writeControl(request, arch, [...DEPENDS, ...libraryDepends(scratch, stage, binaries), ...nodePackage].toSorted());
    settle(stage, request.epoch);
    const name = `coverlay_${debVersion}_${arch}.deb`;
    const compression = quick ? ["-Zgzip", "-z1"] : ["-Zxz"];
    const env = { ...process.env, SOURCE_DATE_EPOCH: String(request.epoch) };
    run("dpkg-deb", ["--root-owner-group", ...compression, "--build", stage, path.join(scratch, name)], { env });
    mkdirSync(output, { recursive: true });
    copyFileSync(path.join(scratch, name), path.join(output, name));
    return path.join(output, name);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

try {
  const root = path.resolve(import.meta.dirname, "../..");
  const file = build(root, parse(root));
  console.log(`${file}: ${(statSync(file).size / 2 ** 20).toFixed(1)} MiB`);
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`package: ${error.message}`);
  process.exitCode = 1;
}
