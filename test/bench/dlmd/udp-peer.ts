/**
 * A UDP round trip of 64 bytes between two Node.js programs: what an ordered message is measured against.
 * `udp-peer serve ADDRESS` prints its port and answers until it is ended; `udp-peer ping ADDRESS PORT COUNT` prints the
 * median.
 */
import { createSocket } from "node:dgram";
import { median } from "../stats.ts";

const PING_BYTES = 64;
/** Nothing is lost between two namespaces of an idle machine; if something is, say so instead of waiting for ever. */
const LOST_MS = 5000;

function serve(address: string, listening: (port: number) => void): void {
  const socket = createSocket("udp4");
  socket.on("message", (message, from) => socket.send(message, from.port, from.address));
  socket.bind(0, address, () => listening(socket.address().port));
}

/** The median round trip in ns of `count`. */
function ping(address: string, port: number, count: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = createSocket("udp4");
    const question = Buffer.alloc(PING_BYTES);
    const trips: number[] = [];
    const lost = setTimeout(() => reject(new Error(`udp-peer: answer ${trips.length + 1} of ${count} did not come`)), LOST_MS);
    let start = 0n;
    const ask = (): void => {
      start = process.hrtime.bigint();
      socket.send(question, port, address);
    };
    socket.on("error", reject);
    socket.on("message", () => {
      trips.push(Number(process.hrtime.bigint() - start));
      lost.refresh();
      if (trips.length < count) return ask();
      clearTimeout(lost);
      socket.close();
      resolve(median(trips));
    });
    ask();
  });
}

const [, , what, address = "", port, count] = process.argv;
if (what === "serve") serve(address, (found) => void process.stdout.write(`port ${found}\n`));
else if (what === "ping") process.stdout.write(`medianNs ${await ping(address, Number(port), Number(count))}\n`);
else throw new Error("udp-peer: expected serve ADDRESS, or ping ADDRESS PORT COUNT");
