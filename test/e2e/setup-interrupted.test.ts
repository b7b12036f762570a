/** Ctrl-C at `coverlay setup` and `setup join`, while a node that takes connections and says nothing is waited for. */
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { follow } from "./followed.ts";

let dir: string;
let server: Server;
const open = new Set<Socket>();
beforeEach(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-setup-"));
  server = createServer((socket) => open.add(socket.on("error", () => undefined)));
  server.listen(0, "127.0.0.2");
  await once(server, "listening");
});
afterEach(async () => {
  for (const socket of open) socket.destroy();
  await new Promise<void>((resolve) => void server.close(() => resolve()));
  rmSync(dir, { recursive: true });
});

it("says what it looks at, and then whether the files are written", async () => {
  const config = path.join(dir, "cluster.yaml");
  const env = { ...process.env, COVERLAY_RUN_DIR: dir };
  const { port } = server.address() as AddressInfo;
  const nodes = ["--node", "node1=127.0.0.1", "--node", "node2=127.0.0.2", "--peer-port", String(port)];
  for (const words of [["--cluster", "demo", ...nodes, "--yes"], ["join"]] as const) {
    const isJoin = words[0] === "join";
    const connected = once(server, "connection");
    const command = follow(["setup", ...words, "--config", config], env);
    await command.until("looking at this machine, its disks and the other nodes");
    await connected;
    command.interrupt();
    const { status, stdout, stderr } = await command.ended;
    expect([status, stdout]).toEqual([8, ""]);
    const written = `interrupted: ${config} and ${dir}/cluster.key: written, and not looked at`;
    expect(stderr).toContain(isJoin ? "interrupted: not all was looked at" : written);
    expect([existsSync(config), readdirSync(dir).toSorted()]).toEqual([true, ["cluster.key", "cluster.yaml"]]);
  }
});
