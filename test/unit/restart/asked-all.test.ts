/** What a new process waits for before the old one stops (hazard F33): dlmd's answer about all that it has asked. */
import { expect, it } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type { Lock, LockHandlers, LockStatus, Lockspace } from "../../../dlmd/client/api.ts";
import { askedAll } from "../../../overlay/restart/take.ts";

/** A lockspace that answers the first request so. */
function answers(status: LockStatus): { readonly lockspace: Lockspace; readonly did: string[] } {
  const did: string[] = [];
  const createLock = (resource: string, { ast }: LockHandlers): Lock => {
    const error = status === "error" ? new OperatingError("no lock is to be had", { code: "ENOLCK", hint: "" }) : null;
    const lock = { resource, error, request: () => ast(held, status), unlock: () => void (did.push("unlock"), ast(held, "unlocked")) };
    const held = lock as unknown as Lock;
    return held;
  };
  return { lockspace: { createLock } as unknown as Lockspace, did };
}

it("it has a lock of its own, and gives it up", async () => {
  const { lockspace, did } = answers("granted");
  await askedAll(lockspace, 7);
  expect(did).toEqual(["unlock"]);
});

it("it has none where nothing is granted: its master has answered all the same", async () => {
  const { lockspace, did } = answers("again");
  await askedAll(lockspace, 7);
  expect(did).toEqual([]);
});

it("dlmd refuses it", async () => {
  await expect(askedAll(answers("error").lockspace, 7)).rejects.toMatchObject({ code: "ENOLCK" });
  await expect(askedAll(answers("deadlock").lockspace, 7)).rejects.toMatchObject({ code: "lock-refused" });
});
