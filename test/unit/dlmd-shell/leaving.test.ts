/** dlmd leaves once: signals, an administrator's restart, and both at a time. */
import { beforeEach, expect, test } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { Leaving } from "../../../dlmd/server/leaving.ts";

let said: string[];
let left: (error?: Error) => void;
let leaving: Leaving;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
beforeEach(() => {
  said = [];
  leaving = new Leaving({
    leave: () => {
      said.push("leaves");
      return new Promise((resolve, reject) => {
        left = (error) => (error === undefined ? resolve() : reject(error));
      });
    },
    end: () => said.push("ends"),
    startAnew: () => said.push("starts anew"),
    failed: ({ message }) => said.push(message),
    endAtOnce: () => said.push("ends at once"),
    log: silentLog,
  });
});

/** It has left, and what follows has come. */
async function hasLeft(error?: Error): Promise<void> {
  left(error);
  await turn();
}

test("a signal: it leaves and ends; a second one does not wait for it", async () => {
  leaving.signal("SIGTERM");
  expect(said).toEqual(["leaves"]);
  leaving.signal("SIGINT");
  expect(said).toEqual(["leaves", "ends at once"]);
  await hasLeft();
  expect(said.at(-1)).toBe("ends");
});

test("a restart leaves after its answer, and starts anew", async () => {
  leaving.requireStaying();
  leaving.restart("a");
  expect(said).toEqual([]);
  await turn();
  expect(said).toEqual(["leaves"]);
  await hasLeft();
  expect(said).toEqual(["leaves", "starts anew"]);
});

test("a second restart is refused before its answer, and the first one goes on", async () => {
  leaving.restart("a");
  const refused = expect.objectContaining({ code: "dlmd-leaves", message: expect.stringContaining("is restarted just now") });
  expect(() => leaving.restart("b")).toThrow(refused);
  await turn();
  expect(() => leaving.requireStaying()).toThrow(refused);
  await hasLeft();
  expect(said).toEqual(["leaves", "starts anew"]);
});

test.each([false, true])("a signal while a restart leaves: it leaves to the end, and ends; the restart had begun: %s", async (hadBegun) => {
  leaving.restart("a");
  if (hadBegun) await turn();
  leaving.signal("SIGTERM");
  await turn();
  expect(said).toEqual(["leaves"]);
  expect(() => leaving.restart("b")).toThrow(expect.objectContaining({ message: expect.stringContaining("ends just now") }));
  await hasLeft();
  expect(said).toEqual(["leaves", "ends"]);
});

test("what goes wrong is told", async () => {
  leaving.restart("a");
  await turn();
  await hasLeft(new Error("the disk is gone"));
  expect(said).toEqual(["leaves", "the disk is gone"]);
});
