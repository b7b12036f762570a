/** The program behind a long cable (cable.ts): PORT TAP MILLISECONDS. Runs in the hub until it is killed, or one of its ends goes. */
import { getSystemErrorName } from "node:util";
import { nativeAddon } from "../../native/index.ts";

function must(result: number, what: string): number {
  if (result >= 0) return result;
  process.stderr.write(`${what}: ${getSystemErrorName(result)}\n`);
  process.exit(1);
}

const [port = "", tap = "", milliseconds = ""] = process.argv.slice(2);
const native = nativeAddon();
const one = must(native.framesOpen(port), `a packet socket of ${port}`);
const other = must(native.tapOpen(tap), `the TAP device ${tap} (/dev/net/tun)`);
process.stdout.write("ready\n", () => must(native.relayFrames(one, other, Math.round(Number(milliseconds) * 1e6)), `frames of ${port}`));
