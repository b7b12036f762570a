/** The programs of the load on one node: started, followed by what they record, and waited for. */
import { spawn } from "node:child_process";
import { closeSync, fstatSync, openSync, readSync, writeFileSync } from "node:fs";
import path from "node:path";
import { nodeEnvironment } from "../../overlay/lab/boot.ts";
import { netnsArguments } from "../../overlay/lab/layout.ts";
import { existingLab, labNode } from "../../overlay/lab/state.ts";
import type { Call } from "./history.ts";
import { LOAD_PROGRAM } from "./load-program.ts";
import type { Step } from "./load-plan.ts";

export interface ClientPlan {
  readonly client: string;
  readonly steps: readonly Step[];
}

interface Line {
  readonly i: number;
  readonly b?: number;
  readonly e?: number;
  readonly x?: string | null;
  readonly v?: unknown;
}

/** One client, by the file in which it records. */
class ClientHistory {
  readonly client: string;
  readonly file: string;
  readonly #steps: readonly Step[];
  readonly #nodeid: number;
  readonly #calls: Call[] = [];
  #offset = 0;
  #rest = "";

  constructor(file: string, nodeid: number, { client, steps }: ClientPlan) {
    this.client = client;
    this.file = file;
    this.#nodeid = nodeid;
    this.#steps = steps;
    writeFileSync(file, "");
  }

  /** All that it has recorded so far; a call that is under way has no end. */
  calls(): readonly Call[] {
    const fd = openSync(this.file, "r");
    try {
      const data = Buffer.alloc(fstatSync(fd).size - this.#offset);
      const bytes = readSync(fd, data, 0, data.length, this.#offset);
      this.#offset += bytes;
      const lines = (this.#rest + data.toString("utf8", 0, bytes)).split("\n");
      this.#rest = lines.pop() ?? "";
      for (const line of lines) this.#take(JSON.parse(line) as Line);
    } finally {
      closeSync(fd);
    }
    return this.#calls;
  }

  #take(line: Line): void {
    const { object, action } = this.#steps[line.i] as Step;
    if (line.b !== undefined) {
      const head = { client: this.client, nodeid: this.#nodeid, index: line.i, object, action };
      this.#calls.push({ ...head, begin: line.b, end: Number.POSITIVE_INFINITY, error: null, value: null });
      return;
    }
    const begun = this.#calls.pop() as Call;
    this.#calls.push({ ...begun, end: line.e as number, error: line.x ?? null, value: line.v ?? null });
  }
}

export interface Load {
  readonly nodeid: number;
  readonly pid: number;
  /** Its programs have ended; null: well, else what they said. */
  readonly ended: Promise<string | null>;
  readonly isOver: () => boolean;
  calls(): readonly Call[];
  /** By client: how many calls that began after that were answered. */
  answeredSince(begin: number): readonly number[];
}

/** `dir`: for plans and histories. `stop`: a file whose presence ends them; null: they end with their steps. */
export function startLoad(
  labDir: string,
  nodeid: number,
  base: string,
  dir: string,
  stop: string | null,
  plans: readonly ClientPlan[],
): Load {
  const lab = existingLab(labDir);
  const node = labNode(lab, `node${nodeid}`);
  const histories = plans.map((plan) => new ClientHistory(path.join(dir, `${plan.client}.jsonl`), nodeid, plan));
  const plan = path.join(dir, `${plans.map(({ client }) => client).join("+")}.plan.json`);
  const clients = plans.map(({ steps }, at) => ({ history: histories[at]?.file, steps }));
  writeFileSync(plan, JSON.stringify({ base: path.join(node.mount, base), stop, clients }));
  const child = spawn("nsenter", netnsArguments(node.netns, ["python3", "-c", LOAD_PROGRAM, plan]), {
    detached: true,
    stdio: ["ignore", "ignore", "pipe"],
    env: nodeEnvironment(lab, node),
  });
  let stderr = "";
  let over = false;
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString("utf8")));
  const ended = new Promise<string | null>((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("exit", (status, signal) => {
      over = true;
      resolve(status === 0 ? null : `${signal ?? `exit status ${status}`}: ${stderr}`);
    });
  });
  return {
    nodeid,
    pid: child.pid ?? 0,
    ended,
    isOver: () => over,
    calls: () => histories.flatMap((history) => history.calls()),
    answeredSince: (begin) =>
      histories.map((history) => history.calls().filter((call) => call.begin > begin && call.end < Number.POSITIVE_INFINITY).length),
  };
}
