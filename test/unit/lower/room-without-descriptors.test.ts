/** An owner without a free descriptor has no room for what another node would leave with it, and is asked that by any node. */
import { expect, it, vi } from "vitest";
import { nativeAddon } from "../../../native/index.ts";
import { OpenHandles } from "../../../overlay/lower/local/open-handles.ts";

const fails: { code: string | null } = { code: null };
vi.mock("node:fs", async (original) => {
  const real = await original<typeof import("node:fs")>();
  const readFileSync = (...given: Parameters<typeof real.readFileSync>): unknown => {
    if (fails.code !== null) throw Object.assign(new Error(fails.code), { code: fails.code });
    return real.readFileSync(...given);
  };
  return { ...real, readFileSync };
});

it.each(["EMFILE", "ENFILE", "ENOMEM"])("%s: there is none", (code) => {
  const handles = new OpenHandles(nativeAddon(), () => undefined);
  fails.code = null;
  expect(handles.room).toBeGreaterThan(0);
  fails.code = code;
  expect(handles.room).toBe(0);
});
