/** The count of owners on a volume: below its limit it is raised, at it the count is damage. */
import { expect, it, vi } from "vitest";
import { mountLower } from "../../../overlay/volume/lower-mount.ts";
import type { Taking } from "../../../overlay/volume/taking.ts";

const bit = { volume: "v", uuid: "u", cluster: "c", ownerBlock: 0 };
const played = vi.hoisted(() => ({ count: 0 }));
vi.mock("../../../overlay/volume/detached.ts", async (importOriginal) => ({
  ...(await importOriginal<object>()),
  getAttributeInPool: async () => Buffer.from(String(played.count)),
}));
vi.mock("../../../overlay/volume/bit.ts", async (importOriginal) => ({ ...(await importOriginal<object>()), decodeBit: () => bit }));
vi.mock("../../../overlay/volume/file-system-root.ts", () => ({ isFileSystemRoot: () => true }));
vi.mock("../../../overlay/volume/directory-place.ts", () => ({ requireNotNested: () => undefined, requirePlace: () => undefined }));

it("is below MAX_EPOCH", async () => {
  const epochOf = async (count: number): Promise<number> => {
    played.count = count;
    const mount = await mountLower({ kind: "directory", path: "/proc" }, bit as never, true, 0, null as unknown as Taking);
    await mount.release();
    return mount.epoch;
  };
  expect(await epochOf(2 ** 48 - 1)).toBe(2 ** 48);
  await expect(epochOf(2 ** 48)).rejects.toMatchObject({ code: "bad-bit" });
});
