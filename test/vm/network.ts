/**
 * The network between the machines: a switch in this process. QEMU's netdev "stream" is a connection of a Unix socket, with frames behind a length of 32
 * bits; each frame goes to all others. So multicast works, and no frame is in a network of this machine.
 */
import { type Server, type Socket, createServer } from "node:net";

/** A machine that does not take its frames loses further ones, as at a switch. */
const MAX_QUEUE_BYTES = 4 * 2 ** 20;
/** Of Ethernet, with room for what virtio puts together. */
const MAX_FRAME_BYTES = 256 * 2 ** 10;

export interface VmNetwork {
  /** Listens there for the machine of that number. */
  attach(nodeid: number, socketPath: string): Promise<void>;
  end(): void;
}

/** Whole frames with their lengths, from what has come so far; the rest is kept. */
function splitFrames(bytes: Buffer): { readonly frames: Buffer[]; readonly rest: Buffer } {
  const frames: Buffer[] = [];
  let at = 0;
  while (bytes.length - at >= 4) {
    const frameBytes = bytes.readUInt32BE(at);
    if (frameBytes > MAX_FRAME_BYTES) throw new Error(`a frame of ${frameBytes} bytes: this is no stream of frames`);
    if (bytes.length - at < 4 + frameBytes) break;
    frames.push(bytes.subarray(at, at + 4 + frameBytes));
    at += 4 + frameBytes;
  }
  return { frames, rest: bytes.subarray(at) };
}

export function startNetwork(): VmNetwork {
  const servers: Server[] = [];
  const ports = new Map<number, Socket>();
  const forward = (from: number, frame: Buffer): void => {
    for (const [nodeid, port] of ports) {
      if (nodeid !== from && port.writableLength < MAX_QUEUE_BYTES) port.write(frame);
    }
  };
  const connected = (nodeid: number, port: Socket): void => {
    ports.set(nodeid, port);
    let kept: Buffer = Buffer.alloc(0);
    port.on("data", (bytes: Buffer) => {
      const { frames, rest } = splitFrames(kept.length === 0 ? bytes : Buffer.concat([kept, bytes]));
      kept = rest;
      for (const frame of frames) forward(nodeid, frame);
    });
    // Its power was cut: `close` follows.
    port.on("error", () => undefined);
    port.on("close", () => {
      if (ports.get(nodeid) === port) ports.delete(nodeid);
    });
  };
  return {
    attach(nodeid, socketPath) {
      const server = createServer((port) => connected(nodeid, port));
      servers.push(server);
      return new Promise((resolve, reject) => {
        server.once("error", reject);
        server.listen(socketPath, resolve);
      });
    },
    end() {
      for (const server of servers) server.close();
      for (const port of ports.values()) port.destroy();
    },
  };
}
