/** The harness's end of guest/fence_vm: a line is a request, and the answer is one. */
import { createServer, type Socket } from "node:net";
import { createInterface } from "node:readline";

/** Gives what stops listening. */
export async function listenForPower(socketPath: string, onRequest: (request: string) => Promise<string>): Promise<() => void> {
  let port: Socket | null = null;
  const server = createServer((connected) => {
    port = connected;
    // The machine that asked may be off by now.
    connected.on("error", () => undefined);
    createInterface({ input: connected }).on("line", (request) => {
      void onRequest(request).then(
        (answer) => connected.write(`${answer}\n`),
        (error: unknown) => connected.write(`${(error as Error).message.split("\n")[0]}\n`),
      );
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(socketPath, resolve);
  });
  return () => {
    server.close();
    port?.destroy();
  };
}
