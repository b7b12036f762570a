/** C12 at the local socket: what a program says of heirs, what it is told, and how it ends. */
import { expect, test } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { ClientEvent, ClientRequest } from "../../../dlmd/wire/program.ts";
import type { HeirResult } from "../../../dlmd/wire/local-heir.ts";
import { localSocketLab } from "./local-socket-lab.ts";

const current = localSocketLab();

/** The lab's core says that of each request of an heir; null: nothing. */
function answers(answer: (request: ClientRequest) => ClientEvent | null): ClientRequest[] {
  const asked: ClientRequest[] = [];
  const lab = current();
  lab.onRequests = (clientId, requests) => {
    for (const request of requests) {
      asked.push(request);
      const event = answer(request);
      if (event !== null) lab.send(clientId, event);
    }
  };
  return asked;
}

const result = (request: ClientRequest, said: HeirResult): ClientEvent => ({
  kind: "heir-result",
  requestId: (request as Extract<ClientRequest, { kind: "keep-locks" }>).requestId,
  result: said,
});

test("a program that is to be kept and closes says so, and ends when that was heard", async () => {
  const lab = current();
  const asked = answers((request) => (request.kind === "keep-locks" && request.limitMs === 0 ? null : result(request, "done")));
  const client = await lab.connect();
  await client.keepLocks(5000);
  let isClosed = false;
  const closing = client.close().then(() => (isClosed = true));
  await Promise.race([closing, lab.until(() => asked.length === 2)]);
  expect(asked.map((request) => request.kind === "keep-locks" && request.limitMs)).toEqual([5000, 0]);
  expect([isClosed, lab.gone]).toEqual([false, []]);
  lab.send(1, result(asked[1] as ClientRequest, "done"));
  await closing;
  await lab.until(() => lab.gone.length === 1);
  expect(lab.endedHere).toEqual([]);
});

test("a program that never asked for it closes at once", async () => {
  const lab = current();
  const asked = answers(() => null);
  await (await lab.connect()).close();
  expect(asked).toEqual([]);
});

test("a connection that the server closes, or refuses, is no break", async () => {
  const lab = current();
  await lab.connect();
  const { socket } = await lab.stranger();
  lab.server.dropClients("it is over");
  await lab.until(() => lab.gone.length === 1);
  expect(lab.endedHere).toEqual([1]);
  socket.destroy();
});

test.each([
  ["no-owner", "declared no owner key"],
  ["too-long", "for so long"],
] as const)("keepLocks: %s", async (said, words) => {
  answers((request) => result(request, said));
  const client = await current().connect();
  await expect(client.keepLocks(5000)).rejects.toMatchObject({ code: said, message: expect.stringContaining(words) });
});

test("endKept names the client; of one that is not kept it says so", async () => {
  const asked = answers((request) => result(request, request.kind === "end-kept" && request.clientId === 7 ? "done" : "not-kept"));
  const client = await current().connect();
  await client.endKept(7);
  expect(asked).toMatchObject([{ kind: "end-kept", clientId: 7 }]);
  await expect(client.endKept(8)).rejects.toMatchObject({ code: "not-kept" });
});

test("inherited asks until it has all, and joins what was cut", async () => {
  const lock = (resource: string): { resource: string; mode: Mode } => ({ resource, mode: Mode.PR });
  const asked = answers((request) => {
    if (request.kind !== "inherit") return null;
    const { requestId, fromClientId } = request;
    if (fromClientId === 0) {
      const clients = [
        { clientId: 3, locks: [] },
        { clientId: 5, locks: [lock("a"), lock("b")] },
      ];
      return { kind: "inherited", requestId, clients, next: { fromClientId: 5, skip: 2 } };
    }
    return { kind: "inherited", requestId, clients: [{ clientId: 5, locks: [lock("c")] }], next: null };
  });
  const client = await current().connect();
  expect(await client.inherited("data")).toEqual([
    { clientId: 3, locks: [] },
    { clientId: 5, locks: [lock("a"), lock("b"), lock("c")] },
  ]);
  expect(asked).toMatchObject([
    { lockspace: "data", fromClientId: 0, skip: 0 },
    { lockspace: "data", fromClientId: 5, skip: 2 },
  ]);
});

test("inherited: busy", async () => {
  answers((request) => result(request, "busy"));
  const client = await current().connect();
  await expect(client.inherited("data")).rejects.toMatchObject({ code: "busy" });
});

test.each([
  ["not-kept", "the client is not kept for this program"],
  ["not-joined", "the program is not in the group"],
] as const)("farewell: %s", async (said, words) => {
  const asked = answers((request) =>
    request.kind === "group-farewell" ? { kind: "group-result", requestId: request.requestId, result: said } : null,
  );
  const client = await current().connect();
  await expect(client.farewell(7, "g", Uint8Array.of(1, 2))).rejects.toMatchObject({
    code: said,
    message: `farewell of group g: ${words}`,
  });
  expect(asked).toMatchObject([{ clientId: 7, group: "g", data: Uint8Array.of(1, 2) }]);
});
