/** Limits of the FUSE codec: at them all is well, one beyond it is refused. */
import { expect, it } from "vitest";
import { MAX_NOTIFY_NAME_BYTES, notifyInvalEntry } from "../../../overlay/fuse/notify.ts";

it("a name in a notification has at most MAX_NOTIFY_NAME_BYTES: a longer one is a defect of this program", () => {
  const notify = (bytes: number): number => notifyInvalEntry(1, Buffer.alloc(bytes, "x"), false).length;
  expect(notify(MAX_NOTIFY_NAME_BYTES)).toBeGreaterThan(MAX_NOTIFY_NAME_BYTES);
  expect(() => notify(MAX_NOTIFY_NAME_BYTES + 1)).toThrow(/1025 bytes/);
});
