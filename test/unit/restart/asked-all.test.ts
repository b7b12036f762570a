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
    const unlock = (): void => {
      did.push("unlock");
      ast(held, "unlocked");
    };
    const held = { resource, error, request: () => ast(held, status), unlock } as unknown as Lock;
    return held;
  };
  return { lockspace: { createLock } as unknown as Lockspace, did };
}

it("a lock of its own is granted, and given up", async () => {
  const { lockspace, did } = answers("granted");
  await askedAll(lockspace, 7);
  expect(did).toEqual(["unlock"]);
});

it("none is granted in a blocked lockspace: its master has answered all the same", async () => {
  const { lockspace, did } = answers("again");
  await askedAll(lockspace, 7);
  expect(did).toEqual([]);
});

it("dlmd refuses it", async () => {
  await expect(askedAll(answers("error").lockspace, 7)).rejects.toMatchObject({ code: "ENOLCK" });
  await expect(askedAll(answers("deadlock").lockspace, 7)).rejects.toMatchObject({ code: "lock-refused" });
});
