/**
 * One of two programs, on different nodes, that ask for one EX lock in turn: `asker SOCKET RESOURCE GRANTS`. Each keeps the lock until it is asked
 * for, gives it up at once, and asks again a moment later, when the other one has it for certain: so do caches. Says `ready`, begins with the
 * first line that it reads, prints how many ns each of so many grants took from its request, and goes on until it is ended: the other one may
 * need more of them.
 */
import { createInterface } from "node:readline";
import { connectDlm } from "../../../dlmd/client/client.ts";
import { Mode } from "../../../dlmd/lock/mode.ts";

const PAUSE_MS = 2;

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
let askedAt = 0n;
const ask = (): void => {
  askedAt = process.hrtime.bigint();
  lock.request(Mode.EX, 0);
};
const lock = space.createLock(resource, {
  ast: (_, status) => {
    if (status !== "granted") throw new Error(`${resource}: granted expected, found ${status}`);
    if (lock.mode === Mode.NL) return void setTimeout(ask, PAUSE_MS);
    times.push(process.hrtime.bigint() - askedAt);
    if (times.length === Number(grants)) process.stdout.write(`${times.join(" ")}\n`);
  },
  bast: () => {
    if (lock.mode === Mode.EX && !lock.busy) lock.request(Mode.NL, 0);
  },
});
createInterface({ input: process.stdin })
  .once("line", ask)
  .once("close", () => process.exit());
process.stdout.write("ready\n");
