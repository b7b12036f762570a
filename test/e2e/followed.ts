/** A command of ours whose words on standard error are waited for, in a process group of its own: as one at a terminal, which gives Ctrl-C to all of it. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { coverlayProgram } from "./lab.ts";

export interface Ended {
  /** Null: ended by a signal that it does not hear. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Followed {
  /** Resolves when it has said that. Rejects if it ends before. */
  readonly until: (words: string) => Promise<void>;
  /** SIGINT to the whole group. */
  readonly interrupt: () => void;
  readonly ended: Promise<Ended>;
}

export function follow(words: readonly string[], env: NodeJS.ProcessEnv = process.env): Followed {
  const child = spawn(process.execPath, [coverlayProgram, ...words], { stdio: ["ignore", "pipe", "pipe"], detached: true, env });
  let [stdout, stderr, isOver] = ["", "", false];
  let look: () => void = () => undefined;
  child.stdout.on("data", (chunk: Buffer) => (stdout += String(chunk)));
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += String(chunk);
    look();
  });
  const ended = once(child, "close").then(([status]) => {
    isOver = true;
    look();
    return { status: status as number | null, stdout, stderr };
  });
  return {
    until: (wanted) =>
      new Promise((resolve, reject) => {
        look = () => {
          if (stderr.includes(wanted)) resolve();
          else if (isOver) reject(new Error(`coverlay ${words.join(" ")} should say "${wanted}", found:\n${stderr}${stdout}`));
        };
        look();
      }),
    interrupt: () => void process.kill(-(child.pid ?? 0), "SIGINT"),
    ended,
  };
}
