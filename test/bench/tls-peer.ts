/** The other end of tls.ts: answers questions over plain TCP and over TLS, tells both ports, and its processor time when it is asked. */
import { createServer, type Server, type Socket } from "node:net";
import { createSecureAcceptor } from "../../dlmd/tls/secure-connection.ts";
import { BENCH_KEYRING, LARGE_ANSWER_BYTES, QUESTION_BYTES } from "./tls.ts";

const small = Buffer.alloc(QUESTION_BYTES);
const large = Buffer.alloc(LARGE_ANSWER_BYTES, 7);

/** One question at a time, in one piece. */
function answer(socket: Socket): void {
  socket.setNoDelay(true);
  socket.on("data", (question: Buffer) => socket.write(question[0] === 0 ? small : large));
  socket.on("error", () => socket.destroy());
}

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as { port: number }).port;
}

const acceptor = createSecureAcceptor(() => BENCH_KEYRING);
const ports = {
  TCP: await listening(createServer(answer)),
  TLS: await listening(
    createServer((raw) => {
      raw.on("error", () => undefined);
      acceptor.accept(raw, { secured: ({ socket }) => answer(socket), failed: () => raw.destroy() });
    }),
  ),
};
process.send?.(ports);
process.on("message", () => process.send?.(process.cpuUsage()));
process.on("disconnect", () => process.exit(0));
