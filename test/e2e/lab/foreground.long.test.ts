/** `lab up` without --detach: what it says, and that it takes everything down however it ends. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import os from "node:os";
import { createInterface } from "node:readline";
import { describe, expect, it } from "vitest";
import { run } from "../../../overlay/lab/command.ts";
import { coverlay, coverlayProgram, leftovers, watchedDirectory } from "../lab.ts";

/** Of the page. */
function addressIn(lines: readonly string[]): string {
  return /http:\/\/127\.0\.0\.1:\d+\/\?token=\S+/.exec(lines.join("\n"))?.[0] ?? "no address was printed";
}

describe("lab up in the foreground", () => {
  it("says what to try, which can be pasted anywhere, and takes everything down at Ctrl-C, however often it is pressed", async () => {
    const { dir, end } = watchedDirectory();
    try {
      const words = ["lab", "up", "--dir", dir, "--nodes", "2", "--size", "64M"];
      const child = spawn(process.execPath, [coverlayProgram, ...words], { stdio: ["ignore", "pipe", "inherit"] });
      const exit = once(child, "exit");
      const seen: string[] = [];
      for await (const line of createInterface(child.stdout)) {
        seen.push(line);
        // A live line: the lab is shown, so both signals hit a lab that is up.
        if (!/^node2 .* locks /.test(line)) continue;
        const tries = seen
          .filter((one) => one.startsWith("  "))
          .map((one) => execFileSync("sh", ["-c", one], { cwd: "/", encoding: "utf8" }));
        expect(tries).toEqual(["hello\n", expect.stringContaining("hello"), expect.stringContaining("node2")]);
        // The page about it answers the one that has the address, and nobody else.
        expect((await fetch(addressIn(seen), { redirect: "manual" })).status).toBe(303);
        expect((await fetch(new URL(addressIn(seen)).origin)).status).toBe(403);
        child.kill("SIGINT");
        child.kill("SIGINT");
        child.kill("SIGTERM");
        break;
      }
      const text = seen.join("\n");
      expect(text).toMatch(/^ready$/m);
      expect(await exit).toEqual([0, null]);
      await expect(fetch(addressIn(seen))).rejects.toThrow("fetch failed");
      expect(leftovers(dir, null)).toEqual([]);
    } finally {
      await end();
    }
  });

  it("takes everything down when nobody reads what it says any more, or its terminal is closed", async () => {
    const { dir, end } = watchedDirectory();
    try {
      const words = [coverlayProgram, "lab", "up", "--dir", dir, "--nodes", "1", "--size", "64M"];
      const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "ignore"] });
      const exit = once(child, "exit");
      child.stdout.destroy();
      expect(await exit).toEqual([0, null]);
      expect(leftovers(dir, null)).toEqual([]);
      const terminal = `
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
text = b""
while b"Ctrl-C" not in text: text += os.read(terminal, 4096)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))`;
      const { SIGHUP } = os.constants.signals;
      expect((await run("python3", ["-c", terminal, process.execPath, ...words])).stdout).toBe(`${-SIGHUP}\n`);
      expect(leftovers(dir, null)).toEqual([]);
    } finally {
      await end();
    }
  });

  it("ends when somebody else takes the lab down", async () => {
    const { dir, end } = watchedDirectory();
    try {
      const words = ["lab", "up", "--dir", dir, "--nodes", "1", "--lower", "directory", "--json"];
      const child = spawn(process.execPath, [coverlayProgram, ...words], { stdio: ["ignore", "pipe", "inherit"] });
      const exit = once(child, "exit");
      for await (const line of createInterface(child.stdout)) if (line === "ready") break;
      expect(readdirSync(dir)).toContain("lab.json");
      expect(await coverlay(["lab", "down", "--dir", dir])).toMatchObject({ status: 0 });
      expect(await exit).toEqual([0, null]);
    } finally {
      await end();
    }
  });
});
