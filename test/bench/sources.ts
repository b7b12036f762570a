/** What untar and git clone read from: made once, outside of all measured systems. */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { must } from "../../overlay/lab/command.ts";
import type { Bench } from "./system.ts";

const FILES_PER_DIRECTORY = 50;

/** Small text files of 100 bytes to 6 KiB in directories of 50, the same each time. */
function writeTree(root: string, files: number): void {
  mkdirSync(root);
  for (let at = 0; at < files; at++) {
    const dir = path.join(root, `d${Math.floor(at / FILES_PER_DIRECTORY)}`);
    if (at % FILES_PER_DIRECTORY === 0) mkdirSync(dir);
    writeFileSync(path.join(dir, `f${at}.txt`), `line of file ${at}\n`.repeat(6 + ((at * 37) % 320)));
  }
}

/** A git that knows nothing of this machine's configuration, and takes repositories of any owner. */
export function quietGit(): NodeJS.ProcessEnv {
  const settings = { "safe.directory": "*", "user.name": "bench", "user.email": "bench@example.org", "init.defaultBranch": "main" };
  const entries = Object.entries(settings);
  return {
    ...process.env,
    GIT_CONFIG_GLOBAL: "/dev/null",
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_CONFIG_COUNT: String(entries.length),
    ...Object.fromEntries(
      entries.flatMap(([key, value], at) => [
        [`GIT_CONFIG_KEY_${at}`, key],
        [`GIT_CONFIG_VALUE_${at}`, value],
      ]),
    ),
  };
}

/** A tar of `untarFiles` small files. */
export function packedFiles(bench: Bench): Promise<string> {
  return bench.once("packed files", async () => {
    const archive = path.join(bench.scratch, "files.tar");
    writeTree(path.join(bench.scratch, "packed"), bench.scale.untarFiles);
    await must("tar", ["-cf", archive, "-C", bench.scratch, "packed"], { signal: bench.signal });
    return archive;
  });
}

/** A repository with `cloneFiles` small files in one commit, packed. */
export function clonedRepository(bench: Bench): Promise<string> {
  return bench.once("cloned repository", async () => {
    const repository = path.join(bench.scratch, "repository");
    writeTree(repository, bench.scale.cloneFiles);
    const options = { env: quietGit(), signal: bench.signal };
    const git = (...words: string[]): Promise<string> => must("git", ["-C", repository, ...words], options);
    await git("init", "-q");
    await git("add", ".");
    await git("commit", "-q", "-m", "all");
    await git("gc", "-q");
    return repository;
  });
}
