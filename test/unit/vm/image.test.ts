import { expect, it } from "vitest";
import { debianOf } from "../../vm/image.ts";

it("a Debian that the machines cannot have is refused with those that they can", () => {
  expect(debianOf("trixie")).toMatchObject({ version: 13 });
  expect(() => debianOf("trixy")).toThrow("COVERLAY_VM_SUITE=trixy: one of bookworm, trixie is expected");
});
