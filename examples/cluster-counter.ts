/**
 * A counter of the whole cluster, kept in the value block of a lock: no server, no file.
 *
 *     node dist/examples/cluster-counter.js /run/coverlay/dlmd.sock 1000
 *
 * adds 1 that many times and prints the values before and after. Whoever has EX may change it; giving EX up writes it. The value
 * lives as long as some program of the cluster has the resource open (NL is enough); the last one takes it along. A program that is killed
 * while it has EX leaves a value marked "not valid": here nothing was promised yet, so the next one goes on from it.
 */
import { connectDlm } from "../dlmd/client/client.ts";
import { takeLock } from "../dlmd/client/held-lock.ts";
import { Mode } from "../dlmd/wire/mode.ts";

const [socketPath = "/run/coverlay/dlmd.sock", turns = "1"] = process.argv.slice(2);
const client = await connectDlm(socketPath, {
  view() {},
  gone: async () => {},
  disconnected(reason) {
    console.error(reason.message);
    process.exit(1);
  },
});
const space = await client.lockspace("counter");
const lock = await takeLock(space, "hits", Mode.NL, { lvb: true });

const read = (): bigint => (lock.value === null ? 0n : Buffer.from(lock.value).readBigInt64LE());
let first: bigint | null = null;
let last = 0n;
for (let i = 0; i < Number(turns); i++) {
  await lock.convert(Mode.EX);
  first ??= read();
  last = read() + 1n;
  const value = Buffer.alloc(8);
  value.writeBigInt64LE(last);
  await lock.convert(Mode.NL, { value });
}
console.log(`from ${first ?? 0n} to ${last}`);
process.stdin.resume();
process.stdin.once("end", () => void client.close().then(() => process.exit(0)));
