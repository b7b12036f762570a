import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type Server, type Socket, createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { queryOverlayStatus, readOverlayFile } from "../../../overlay/cli/overlay-query.ts";

const status = { pid: 7, role: "owner", mountpoint: "/mnt", volume: "lab", device: "/dev/loop0", ops: 12, locks: 3, more: { kept: true } };

let runDir: string;
let server: Server | null = null;
beforeEach(() => {
  runDir = mkdtempSync(path.join(os.tmpdir(), "overlay-query-"));
});
afterEach(async () => {
  await new Promise<void>((resolve) => (server === null ? resolve() : server.close(() => resolve())));
  server = null;
  rmSync(runDir, { recursive: true, force: true });
});

function serve(answer: (socket: Socket, question: string) => void): Promise<void> {
  server = createServer((socket) => {
    socket.on("error", () => undefined); // The other side may leave first.
    socket.on("data", (data: Buffer) => answer(socket, data.toString()));
  });
  return new Promise((resolve) => server?.listen(`${runDir}/overlay.sock`, resolve));
}

describe("a question to the overlay", () => {
  it("is one JSON line, and so is the answer, in however many pieces it comes", async () => {
    let asked = "";
    await serve((socket, question) => {
      asked = question;
      const text = `${JSON.stringify(status)}\n`;
      socket.write(text.slice(0, 10));
      setImmediate(() => socket.write(text.slice(10)));
    });
    expect(await queryOverlayStatus(runDir)).toEqual(status);
    expect(asked).toBe('{"query":"status"}\n');
  });

  it.each<[string, (socket: Socket) => void, string]>([
    ["silence", () => undefined, "overlay-silent"],
    ["the end of the connection", (socket) => socket.end(), "overlay-silent"],
    ["no JSON", (socket) => socket.write("hello\n"), "overlay-bad-answer"],
    ["an answer without a role", (socket) => socket.write('{"pid":1}\n'), "overlay-bad-answer"],
    ["a refusal", (socket) => socket.write('{"error":"unknown query"}\n'), "overlay-refused"],
  ])("that is met with %s is an error of its own", async (_, answer, code) => {
    await serve(answer);
    await expect(queryOverlayStatus(runDir, 200)).rejects.toMatchObject({ name: "OperatingError", code });
  });

  it("finds no overlay where none listens", async () => {
    await expect(queryOverlayStatus(runDir)).rejects.toMatchObject({ code: "no-overlay" });
  });
});

describe("overlay.json", () => {
  it("is read, or null", () => {
    expect(readOverlayFile(runDir)).toBeNull();
    writeFileSync(`${runDir}/overlay.json`, JSON.stringify(status));
    expect(readOverlayFile(runDir)).toMatchObject({ pid: 7, role: "owner" });
  });

  it("is refused when damaged", () => {
    writeFileSync(`${runDir}/overlay.json`, "{");
    expect(() => readOverlayFile(runDir)).toThrow(/expected JSON/);
  });
});
