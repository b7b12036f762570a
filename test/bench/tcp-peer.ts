/**
 * A TCP round trip of 64 bytes between two Node.js programs: what any program in this language pays for a question and its
 * answer. `tcp-peer serve ADDRESS` prints its port and answers one client; `tcp-peer ping ADDRESS PORT COUNT` prints the
 * median.
 */
import { createConnection, createServer } from "node:net";
import { median } from "./stats.ts";

const PING_BYTES = 64;

/** Answers every 64 bytes with 64 bytes; ends with its client. */
export function serve(address: string, listening: (port: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer({ noDelay: true }, (socket) => {
      let open = 0;
      const answer = Buffer.alloc(PING_BYTES);
      socket.on("data", (chunk: Buffer) => {
        open += chunk.length;
        for (; open >= PING_BYTES; open -= PING_BYTES) socket.write(answer);
      });
      socket.on("error", reject);
      socket.on("close", () => server.close(() => resolve()));
    });
    server.on("error", reject);
    server.listen(0, address, () => {
      const at = server.address();
      if (at !== null && typeof at === "object") listening(at.port);
    });
  });
}

/** The median round trip in ns of `count`. */
export function ping(address: string, port: number, count: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ host: address, port, noDelay: true });
    const question = Buffer.alloc(PING_BYTES);
    const trips: number[] = [];
    let received = 0;
    let start = 0n;
    const ask = (): void => {
      start = process.hrtime.bigint();
      socket.write(question);
    };
    socket.on("connect", ask);
    socket.on("error", reject);
    socket.on("data", (chunk: Buffer) => {
      received += chunk.length;
      if (received < PING_BYTES) return;
      received -= PING_BYTES;
      trips.push(Number(process.hrtime.bigint() - start));
      if (trips.length < count) return ask();
      socket.destroy();
      resolve(median(trips));
    });
  });
}

if (process.argv[1] === import.meta.filename) {
  const [, , what, address = "", port, count] = process.argv;
  if (what === "serve") await serve(address, (found) => process.stdout.write(`port ${found}\n`));
  else if (what === "ping") process.stdout.write(`medianNs ${await ping(address, Number(port), Number(count))}\n`);
  else throw new Error("tcp-peer: expected serve ADDRESS, or ping ADDRESS PORT COUNT");
}
