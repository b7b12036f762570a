/** A process of python3 that makes calls in one mount (executor.py): Node.js lacks most of them, and their exact errno. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { USERS } from "../state.ts";
import type { Call } from "../file-system.ts";

/** A call that takes longer hangs. */
const ORDER_TIMEOUT_MS = 120_000;
const NEWEST_ERROR_BYTES = 4000;

/** In a sequence: by which user, in which mount. */
export interface Made {
  readonly user: number;
  readonly mount: number;
  readonly call: Call;
}

export interface Answer {
  readonly value?: unknown;
  readonly errno?: string;
  /** Real time in ns, before and after. */
  readonly began: string;
  readonly ended: string;
}

/** Of CLOCK_MONOTONIC, in ns. */
export interface TimedAnswer extends Answer {
  readonly begin: number;
  readonly end: number;
}

export interface RealStat {
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  readonly size: number | null;
  readonly ino: number;
  readonly atime: string;
  readonly mtime: string;
  readonly ctime: string;
}

export interface TreeEntry {
  readonly path: string;
  /** A call that looks at it was refused: which, and how. The rest may be missing then. */
  readonly error?: string;
  /** Of a directory: names that it does not list, and by which something is found. */
  readonly unlisted?: readonly string[];
  readonly stat: RealStat;
  readonly xattrs: Readonly<Record<string, string>>;
  readonly target?: string;
  readonly data?: string;
}

export interface Executor {
  begin(dir: string, make: boolean, umask: number): Promise<void>;
  calls(calls: readonly Made[]): Promise<readonly Answer[]>;
  /** From a moment of CLOCK_MONOTONIC on, in ns: other executors do the same. */
  callsAtOnce(calls: readonly Made[], at: number): Promise<readonly TimedAnswer[]>;
  tree(): Promise<readonly TreeEntry[]>;
  leave(): Promise<void>;
  /** Leaves the directory, and removes it, by the names that it has seen if the listing lies. What refuses that, or null. */
  remove(dir: string): Promise<string | null>;
  end(): Promise<void>;
}

/** Beside its sources, not in dist/, where the compiler puts no Python. */
const program = readFileSync(path.join(import.meta.dirname.replace("/dist/test/", "/test/"), "executor.py"), "utf8");

const ordered = ({ user, call }: Made): unknown[] => [USERS[user]?.uid, call.op, call.args];

export function startExecutor(): Executor {
  const child: ChildProcessWithoutNullStreams = spawn("python3", ["-I", "-u", "-c", program], { cwd: "/", detached: true });
  const waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];
  let stderr = "";
  let gone: Error | null = null;
  child.stderr.on("data", (chunk: Buffer) => (stderr = (stderr + chunk.toString("utf8")).slice(-NEWEST_ERROR_BYTES)));
  child.stdin.on("error", () => undefined); // It ended; `exit` says how.
  createInterface({ input: child.stdout }).on("line", (line) => waiting.shift()?.resolve(JSON.parse(line)));
  const ended = new Promise<void>((resolve) => {
    child.on("close", (status, signal) => {
      gone = new Error(`the executor ended with ${status ?? signal}\n${stderr}`);
      for (const one of waiting.splice(0)) one.reject(gone);
      resolve();
    });
  });
  const order = async (given: object): Promise<unknown> => {
    if (gone !== null) throw gone;
    let timer: NodeJS.Timeout | undefined;
    const answer = new Promise<unknown>((resolve, reject) => {
      waiting.push({ resolve, reject });
      timer = setTimeout(
        () => reject(new Error(`not answered within ${ORDER_TIMEOUT_MS} ms: ${JSON.stringify(given).slice(0, 2000)}`)),
        ORDER_TIMEOUT_MS,
      );
    });
    child.stdin.write(`${JSON.stringify(given)}\n`);
    try {
      return await answer;
    } finally {
      clearTimeout(timer);
    }
  };
  return {
    begin: async (dir, make, umask) => void (await order({ kind: "begin", dir, make, umask })),
    calls: async (calls) => (await order({ kind: "calls", calls: calls.map(ordered) })) as Answer[],
    callsAtOnce: async (calls, at) => (await order({ kind: "at-once", at, calls: calls.map(ordered) })) as TimedAnswer[],
    tree: async () => (await order({ kind: "tree" })) as TreeEntry[],
    leave: async () => void (await order({ kind: "leave" })),
    remove: async (dir) => (await order({ kind: "remove", dir })) as string | null,
    async end() {
      child.stdin.end();
      await ended;
    },
  };
}
