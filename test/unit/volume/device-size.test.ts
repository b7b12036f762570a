/** The size of a device that is gone is an error in words, for who asked. */
import { expect, it } from "vitest";
import { deviceBytes, isReadOnlyDevice } from "../../../overlay/volume/device.ts";

it.each([
  ["its size", deviceBytes],
  ["whether it is read-only", isReadOnlyDevice],
])("a device that is gone, asked for %s", (_, ask) => {
  const words = "/dev/no-such-device: the device cannot be reached: ENOENT";
  expect(() => ask("/dev/no-such-device")).toThrow(expect.objectContaining({ code: "device-missing", message: words }));
});
