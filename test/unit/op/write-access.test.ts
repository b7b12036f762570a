/** Hazard F5: nobody gets a page cache for writing while a truncation by one of our own threads may come: open.ts, writeAccess. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { rightSizes } from "./right-sizes.ts";
import { Workbench } from "./workbench.ts";

const soon = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const O_WRONLY = 0o1;
const O_RDWR = 0o2;
const O_CREAT = 0o100;
const O_APPEND = 0o2000;

const name = Buffer.from("name");
const created = { op: "create" as const, name, mode: 0o644, umask: 0, supplementaryGids: [] };
const open = (bench: Workbench, flags: number): Parameters<Workbench["serve"]>[0] => ({
  op: "open",
  fuseNodeid: bench.file.fuseNodeid,
  flags,
  killSuidgid: false,
});

/** A truncation is under way until `over`; `tokens`: how many page caches for writing there were at each question. */
function truncating(): { readonly bench: Workbench; readonly tokens: number[]; readonly over: () => void } {
  const bench = new Workbench();
  const tokens: number[] = [];
  let over = (): void => {};
  const settled = new Promise<void>((resolve) => {
    over = resolve;
  });
  bench.coherence.sizes = {
    ...rightSizes,
    settled: () => {
      tokens.push(bench.coherence.tokens);
      return settled;
    },
  };
  return { bench, tokens, over };
}

describe("a page cache for writing", () => {
  it.each([
    ["OPEN", (bench: Workbench): Parameters<Workbench["serve"]>[0] => open(bench, O_RDWR)],
    ["CREATE of a new file", () => ({ ...created, flags: O_CREAT | O_WRONLY })],
  ] as const)("waits until no truncation of our own is under way, and counts as there from before that: %s", async (_, request) => {
    const { bench, tokens, over } = truncating();
    const served = bench.serve(request(bench));
    await soon();
    expect([bench.replies.length, bench.lower.calls.includes("open"), tokens]).toEqual([0, false, [1]]);
    over();
    expect((await served)?.errno).toBe(0);
    expect(bench.coherence.tokens).toBe(1);
  });

  it("waits so for CREATE of a file that is there, too", async () => {
    const { bench, tokens, over } = truncating();
    bench.lower.errors.set("create", [E.EEXIST, E.EEXIST]);
    bench.lower.fileUid = 1000;
    const request = { ...created, flags: O_CREAT | O_RDWR };
    expect((await bench.serve(request))?.errno).toBe(E.ESTALE);
    const served = bench.serve(request);
    await soon();
    expect([bench.replies.length, bench.lower.calls.includes("open"), tokens, bench.coherence.held]).toEqual([1, false, [1], 0]);
    over();
    expect((await served)?.errno).toBe(0);
  });

  it("and nobody else waits: who reads, who appends, who writes without one", async () => {
    const { bench, tokens } = truncating();
    for (const flags of [0, O_WRONLY | O_APPEND]) expect((await bench.serve(open(bench, flags)))?.errno).toBe(0);
    bench.coherence.token = "direct";
    expect((await bench.serve(open(bench, O_RDWR)))?.errno).toBe(0);
    expect((await bench.serve({ ...created, flags: O_CREAT | O_RDWR }))?.errno).toBe(0);
    expect([tokens, bench.coherence.tokens]).toEqual([[], 0]);
  });
});

describe.each(["create", "tmpfile"] as const)("%s of a new file", (op) => {
  // What attrOf says of the group.
  const setgid = { ...created, op, mode: 0o2755, flags: O_CREAT | O_RDWR, supplementaryGids: [0] };

  it.each([false, true])("leaves nothing open if its set-group-id bit cannot be set again: the lower answers later %s", async (later) => {
    const bench = new Workbench();
    bench.lower.later = later;
    bench.lower.errors.set("setattr", [E.EIO]);
    expect((await bench.serve(setgid))?.errno).toBe(E.EIO);
    expect([bench.lower.calls.includes("setattr"), bench.lower.closed]).toEqual([true, [1]]);
    expect((await bench.serve(setgid))?.errno).toBe(0);
    expect(bench.lower.closed).toEqual([1]);
  });
});
