/**
 * One of two programs, on different nodes, that hand one EX lock back and forth: `player SOCKET RESOURCE GRANTS`. Says `ready`, begins with the
 * first line that it reads, and prints when it had the lock, in ns of CLOCK_MONOTONIC, which all processes of a machine share.
 */
import { createInterface } from "node:readline";
import { connectDlm } from "../../../dlmd/client/client.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";

const [, , socketPath = "", resource = "", grants] = process.argv;
const times: bigint[] = [];
const client = await connectDlm(socketPath, {
  view: () => {},
  gone: async () => {},
  disconnected: (reason) => {
    throw reason;
  },
});
const space = await client.lockspace("test");
const over = new Promise<void>((resolve) => {
  const lock = space.createLock(resource, {
    ast: (_, status) => {
      if (status !== "granted") throw new Error(`${resource}: granted expected, found ${status}`);
      if (lock.mode === Mode.NL) {
        if (times.length < Number(grants)) return lock.request(Mode.EX, 0);
        return resolve();
      }
      times.push(process.hrtime.bigint());
      // Nobody may ask for it any more.
      if (times.length === Number(grants)) lock.request(Mode.NL, 0);
    },
    bast: () => {
      if (lock.mode === Mode.EX && !lock.busy) lock.request(Mode.NL, 0);
    },
  });
  createInterface({ input: process.stdin }).once("line", () => lock.request(Mode.EX, 0));
});
process.stdout.write("ready\n");
await over;
process.stdout.write(`${times.join(" ")}\n`);
// Until the end of its input: the other one may have to be let in.
process.stdin.resume();
process.stdin.once("end", () => process.exit());
