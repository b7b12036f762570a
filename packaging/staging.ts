/** The tree of the package, as it lies on the machine of a user. Modes are set, and no time but that of the commit is in it. */
import { chmodSync, copyFileSync, existsSync, lutimesSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { helperScripts } from "../overlay/mount-helper/install.ts";
import { type Carried, readPackage } from "./dependencies.ts";
import { copyrightText, licenseFile, nodeLicense } from "./copyright.ts";

export const LIB = "usr/lib/coverlay";
/** A program that the overlay starts (native/index.ts, keeperProgram). */
export const KEEPER = "native/build/Release/coverlay-keeper";
/** A package has one; a site that gives it to others writes its own (DEBFULLNAME and DEBEMAIL, as for Debian's tools). */
const { DEBFULLNAME: byName = "the coverlay authors", DEBEMAIL: byEmail = "coverlay@coverlay.invalid" } = process.env;
export const MAINTAINER: string = `${byName} <${byEmail}>`;
const DOC = "usr/share/doc/coverlay";

export interface StageRequest {
  /** The project. */
  readonly root: string;
  /** An empty directory. */
  readonly stage: string;
  /** The node that is carried along, and where it was installed; null: the user's Debian has it. */
  readonly node: { readonly file: string; readonly prefix: string; readonly version: string } | null;
  readonly carried: readonly Carried[];
  readonly debVersion: string;
  /** Seconds: of all times in the package. */
  readonly epoch: number;
}

interface Stage {
  text(file: string, text: string | Buffer, mode?: number): void;
  copy(from: string, to: string, mode?: number): void;
  gzip(file: string, text: string | Buffer): void;
}

function writing(stage: string): Stage {
  const place = (file: string): string => {
    const full = path.join(stage, file);
    mkdirSync(path.dirname(full), { recursive: true });
    return full;
  };
  const text: Stage["text"] = (file, content, mode = 0o644) => {
    const full = place(file);
    writeFileSync(full, content);
    chmodSync(full, mode);
  };
  return {
    text,
    copy(from, to, mode = 0o644) {
      const full = place(to);
      copyFileSync(from, full);
      chmodSync(full, mode);
    },
    // gzipSync writes no time and no name.
    gzip: (file, content) => text(file, gzipSync(content, { level: 9 })),
  };
}

export function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((file) => statSync(path.join(folder, file)).isFile())
    .sort();
}

/** The compiler removes nothing: what was compiled from a file that is gone may lie in dist/ still. */
function hasSource(root: string, room: string, file: string): boolean {
  return existsSync(path.join(root, room, file.replace(/(\.d\.ts|\.js)$/, ".ts")));
}

/** The compiled rooms that run; of dlmd the types too, for programs that import "coverlay/dlm". */
function stagePrograms({ root, carried, debVersion }: StageRequest, stage: Stage): void {
  for (const room of ["overlay", "dlmd", "native"]) {
    const from = path.join(root, "dist", room);
    const wanted = filesBelow(from).filter(
      (file) => hasSource(root, room, file) && (file.endsWith(".js") || (room === "dlmd" && file.endsWith(".d.ts"))),
    );
    for (const file of wanted) stage.copy(path.join(from, file), `${LIB}/dist/${room}/${file}`);
  }
  // The page of `coverlay ui` is served as it is (overlay/ui/page-files.ts).
  const page = "overlay/ui/page";
  for (const file of filesBelow(path.join(root, page))) stage.copy(path.join(root, page, file), `${LIB}/${page}/${file}`);
  const addon = "native/build/Release/coverlay.node";
  stage.copy(path.join(root, addon), `${LIB}/${addon}`);
  stage.copy(path.join(root, KEEPER), `${LIB}/${KEEPER}`, 0o755);
  const { version, license, type, exports } = readPackage(root) as unknown as Record<string, unknown>;
  const description = { name: "coverlay", version, debianVersion: debVersion, license, private: true, type, exports };
  stage.text(`${LIB}/package.json`, `${JSON.stringify(description, null, 2)}\n`);
  for (const each of carried) stageCarried(root, each, stage);
}

/** At the top of a carried package: nothing that runs. */
const ASIDE: ReadonlySet<string> = new Set([
  "test",
  "tests",
  "docs",
  "docs-suite",
  "benchmarks",
  "bench",
  "examples",
  "example",
  ".github",
]);
/** musl's libc is not Debian's. */
const FOREIGN = /(^|\/)musl_/;
const RUNS = /\.(js|cjs|mjs|json|node)$/;

function stageCarried(root: string, { folder }: Carried, stage: Stage): void {
  const from = path.join(root, folder);
  const license = licenseFile(from);
  const wanted = filesBelow(from).filter((file) => {
    const [top = ""] = file.split("/");
    if (ASIDE.has(top) || top === "node_modules" || FOREIGN.test(file)) return false;
    return file === license || (RUNS.test(file) && !path.basename(file).startsWith("."));
  });
  for (const file of wanted) stage.copy(path.join(from, file), `${LIB}/${folder}/${file}`);
}

/** The line by which a script is known to be the package's (overlay/mount-helper/install.ts). */
function script(node: string, program: string): string {
  return `#!/bin/sh\n# Of the package coverlay.\nexec ${node} /${LIB}/${program} "$@"\n`;
}

function stageCommands({ node }: StageRequest, stage: Stage): void {
  const nodePath = node === null ? "/usr/bin/node" : `/${LIB}/bin/node`;
  const coverlay = "dist/overlay/main.js";
  // Debian 12 and later have /sbin -> usr/sbin: mount(8) finds its helpers there.
  stage.text("usr/sbin/coverlay", script(nodePath, coverlay), 0o755);
  stage.text("usr/sbin/dlmd", script(nodePath, "dist/dlmd/main.js"), 0o755);
  stage.text("usr/sbin/fence_pacemaker", script(nodePath, "dist/dlmd/fence-pacemaker/main.js"), 0o755);
  const helpers = helperScripts({ node: nodePath, program: `/${LIB}/${coverlay}` }, [], "package");
  for (const [name, text] of helpers) stage.text(`usr/sbin/${name}`, text, 0o755);
  if (node !== null) stage.copy(node.file, `${LIB}/bin/node`, 0o755);
}

function stageSystem({ root }: StageRequest, stage: Stage): void {
  stage.copy(path.join(root, "overlay/ocf/volume"), "usr/lib/ocf/resource.d/coverlay/volume", 0o755);
  const units = path.join(root, "packaging/systemd");
  for (const unit of filesBelow(units)) stage.copy(path.join(units, unit), `usr/lib/systemd/system/${unit}`);
  stage.copy(path.join(root, "packaging/debian/logrotate"), "etc/logrotate.d/coverlay");
  stage.copy(path.join(root, "packaging/debian/needrestart"), "etc/needrestart/conf.d/coverlay.conf");
}

/** What `npm run man` has made, if it was run: pages by their section, completions by their shell. */
function stageManual(root: string, stage: Stage): void {
  const man = path.join(root, "dist/man");
  for (const file of existsSync(man) ? filesBelow(man) : []) {
    const section = /\.([1-8])$/.exec(file)?.[1];
    if (section !== undefined) stage.gzip(`usr/share/man/man${section}/${path.basename(file)}.gz`, readFileSync(path.join(man, file)));
  }
  const completion = path.join(root, "dist/completion");
  for (const file of existsSync(completion) ? filesBelow(completion) : []) {
    stage.copy(path.join(completion, file), completionPath(path.basename(file)));
  }
}

/** `_coverlay` and `coverlay.zsh` are zsh's; `coverlay`, `coverlay.bash` bash's, which loads it by the name of the command. */
function completionPath(name: string): string {
  if (name.startsWith("_")) return `usr/share/zsh/vendor-completions/${name}`;
  if (name.endsWith(".zsh")) return `usr/share/zsh/vendor-completions/_${name.slice(0, -".zsh".length)}`;
  return `usr/share/bash-completion/completions/${name.replace(/\.bash$/, "")}`;
}

function changelog({ debVersion, epoch }: StageRequest): string {
  const date = new Date(epoch * 1000).toUTCString().replace("GMT", "+0000");
  return `coverlay (${debVersion}) unstable; urgency=medium\n\n  * NEWS.md.gz says what changed.\n\n -- ${MAINTAINER}  ${date}\n`;
}

function stageDocuments(request: StageRequest, stage: Stage): void {
  const { root, node, carried } = request;
  stage.text(`${DOC}/copyright`, copyrightText(root, carried, node?.version ?? null));
  if (node !== null) stage.gzip(`${DOC}/LICENSE.nodejs.gz`, nodeLicense(node.prefix));
  stage.gzip(`${DOC}/changelog.gz`, changelog(request));
  stage.gzip(`${DOC}/NEWS.md.gz`, readFileSync(path.join(root, "CHANGELOG.md")));
  stage.gzip(`${DOC}/README.md.gz`, readFileSync(path.join(root, "README.md")));
  stage.gzip(`${DOC}/OPERATING.md.gz`, readFileSync(path.join(root, "dlmd/OPERATING.md")));
  stage.gzip(`${DOC}/PACKAGE.md.gz`, readFileSync(path.join(root, "packaging/README.md")));
  for (const file of filesBelow(path.join(root, "examples"))) stage.copy(path.join(root, "examples", file), `${DOC}/examples/${file}`);
  const overrides = path.join(root, "packaging/debian/lintian-overrides");
  if (existsSync(overrides)) stage.copy(overrides, "usr/share/lintian/overrides/coverlay");
}

/** Directories 0755, and one time everywhere: two builds of one commit are one package. */
export function settle(stage: string, epoch: number): void {
  const all = readdirSync(stage, { recursive: true, encoding: "utf8" }).map((file) => path.join(stage, file));
  for (const file of [...all, stage]) {
    if (statSync(file).isDirectory()) chmodSync(file, 0o755);
    lutimesSync(file, epoch, epoch);
  }
}

export function stageTree(request: StageRequest): void {
  const stage = writing(request.stage);
  stagePrograms(request, stage);
  stageCommands(request, stage);
  stageSystem(request, stage);
  stageManual(request.root, stage);
  stageDocuments(request, stage);
}
