/** The harness's end of guest/agent: scripts go out, what they said and their exit statuses come back, and each boot says its id. */
import { type Server, type Socket, createServer } from "node:net";
import { createInterface } from "node:readline";

export interface Typed {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

interface Pending {
  readonly resolve: (typed: Typed) => void;
  readonly reject: (error: Error) => void;
}

export interface AgentLink {
  /** Rejects if the machine ends or boots before the script does. */
  type(script: string): Promise<Typed>;
  /** The boot-id of the next boot whose agent runs. */
  nextBoot(): Promise<string>;
  /** The machine has ended: so have all scripts. */
  drop(why: string): void;
  end(): void;
}

const decode = (word: string): string => Buffer.from(word.replace(/\.$/, ""), "base64").toString("utf8");

/** Listens before the machine is switched on, for all of its lives. */
export async function listenForAgent(socketPath: string): Promise<AgentLink> {
  const pending = new Map<string, Pending>();
  let waiting: ((bootId: string) => void)[] = [];
  let port: Socket | null = null;
  let typedCount = 0;
  const drop = (why: string): void => {
    const all = [...pending.values()];
    pending.clear();
    for (const { reject } of all) reject(new Error(why));
  };
  const received = (line: string): void => {
    const [id = "", status = "", stdout = "", stderr = ""] = line.split(" ");
    if (id === "boot") {
      drop("the machine has booted before the script had ended");
      const all = waiting;
      waiting = [];
      for (const resolve of all) resolve(status);
      return;
    }
    pending.get(id)?.resolve({ status: Number(status), stdout: decode(stdout), stderr: decode(stderr) });
    pending.delete(id);
  };
  const server: Server = createServer((connected) => {
    port = connected;
    connected.on("error", () => undefined);
    createInterface({ input: connected }).on("line", received);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(socketPath, resolve);
  });
  return {
    type(script) {
      return new Promise((resolve, reject) => {
        typedCount += 1;
        const id = String(typedCount);
        pending.set(id, { resolve, reject });
        port?.write(`${id} ${Buffer.from(script).toString("base64")}\n`);
      });
    },
    nextBoot: () => new Promise((resolve) => waiting.push(resolve)),
    drop,
    end() {
      server.close();
      port?.destroy();
    },
  };
}
