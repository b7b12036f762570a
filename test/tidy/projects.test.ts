/** Each file of tests runs, once: in the project that its name says (vitest.config.ts), as vitest itself lists them. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";

const root = path.resolve(import.meta.dirname, "../..");

interface Listed {
  readonly file: string;
  readonly projectName: string;
}

/** What vitest runs of `part` of the long files: "project file", sorted. */
function listed(part: string, ...more: readonly string[]): string[] {
  const vitest = path.join(root, "node_modules/vitest/vitest.mjs");
  const output = execFileSync(process.execPath, [vitest, "list", "--filesOnly", "--json", ...more], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, COVERLAY_LONG_PART: part },
  });
  return (JSON.parse(output) as Listed[]).map(({ file, projectName }) => `${projectName} ${path.relative(root, file)}`).toSorted();
}

function projectOf(file: string): string {
  if (!file.startsWith("test/e2e/")) {
    return /\bvi\.mock\(|\bsyncBuiltinESMExports\b/.test(readFileSync(path.join(root, file), "utf8")) ? "unit-own" : "unit";
  }
  if (file.endsWith(".long-alone.test.ts")) return "long-alone";
  if (file.endsWith(".alone.test.ts")) return "alone";
  if (file.endsWith(".long.test.ts")) return "long";
  return file.startsWith("test/e2e/dlmd/") ? "e2e-dlmd" : "e2e";
}

it("each file of tests is in one project, but for those of virtual machines", () => {
  const files = readdirSync(path.join(root, "test"), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".test.ts"))
    .map((file) => `test/${file}`)
    .filter((file) => !file.startsWith("test/vm/"));
  const wanted = files.map((file) => `${projectOf(file)} ${file}`);
  expect(listed("1/1")).toEqual(wanted.toSorted());
});

it("two commits that follow each other run each long file once (.ci/run)", () => {
  const halves = ["1/2", "2/2"].map((part) => listed(part, "--project", "long"));
  const whole = readdirSync(path.join(root, "test/e2e"), { recursive: true, encoding: "utf8" }).filter(
    (file) => projectOf(`test/e2e/${file}`) === "long",
  );
  expect(halves.flat().toSorted()).toEqual(whole.map((file) => `long test/e2e/${file}`).toSorted());
  for (const half of halves) expect(half.length).toBeGreaterThan(0);
  const ci = readFileSync(path.join(root, ".ci/run"), "utf8");
  expect(ci).toContain('COVERLAY_LONG_PART="${COVERLAY_LONG_PART:-$(($(git rev-list --count HEAD) % 2 + 1))/2}"');
});

it("what runs beside another lab touches nothing that labs share (test/README.md)", () => {
  // package/debian-root.ts is for a file that runs alone. own-sbin.ts leaves the copies of other mounts before it does anything else. The mount that owner-block.long.test.ts tries is refused.
  // A user namespace alone, as in hazards/ownership.test.ts, copies no mount.
  const harmless = new Set(["own-sbin.ts", "package/debian-root.ts", "owner-block.long.test.ts", "hazards/ownership.test.ts"]);
  const shared =
    /\bunshare\b|netns", "exec|\b(?:run|must|execFileSync|spawn)\("mount", (?!\[?"-t", "tmpfs")|\bos\.sync\(\)|drop_caches|sched_setaffinity/;
  const beside = readdirSync(path.join(root, "test/e2e"), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && !/\.(long-)?alone\.test\.ts$/.test(file) && !harmless.has(file))
    .filter((file) => shared.test(readFileSync(path.join(root, "test/e2e", file), "utf8")));
  expect(beside).toEqual([]);
});

it("npm test and npm run test:long run all that .ci/run does", () => {
  const { scripts } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };
  const all = scripts["test:all"] ?? "";
  expect(scripts["test"]).toBe(`${all} --project '!long*'`);
  expect(scripts["test:long"]).toBe("vitest run --project 'long*'");
  expect(all).toMatch(/&& vitest run$/);
  // A configuration of its own: nothing else runs them.
  expect(scripts["test:vm"]).toBe("vitest run --config test/vm/vitest.config.ts");
  expect(readFileSync(path.join(root, ".ci/run"), "utf8")).toContain('COVERLAY_TEST_RESULTS="$results" npm run test:all');
});
