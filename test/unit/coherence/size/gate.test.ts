/** Hazard F5: changes of a file's size, answers that tell it, and our own repairs of it keep out of each other's way. */
import { describe, expect, it } from "vitest";
import { SizeGate } from "../../../../overlay/coherence/size/gate.ts";
import type { MaybePromise } from "../../../../dlmd/base/maybe-promise.ts";

/** What came through, by name, in order. */
function through(entered: Record<string, MaybePromise<void>>): { readonly names: string[]; settled(): Promise<string[]> } {
  const names: string[] = [];
  for (const [name, when] of Object.entries(entered)) {
    if (when === undefined) names.push(name);
    else void when.then(() => names.push(name));
  }
  return { names, settled: () => new Promise((resolve) => setImmediate(() => resolve([...names]))) };
}

const alive = { interrupted: false };

describe("the gate of a file's size", () => {
  it("lets a teller in when no change is under way, and the next change after it", async () => {
    const gate = new SizeGate();
    expect(gate.begin(false, alive)).toBeUndefined();
    const came = through({ teller: gate.tell(), change: gate.begin(false, alive), holding: gate.begin(true, alive) });
    expect(await came.settled()).toEqual([]);
    gate.end(false, alive);
    expect(await came.settled()).toEqual(["teller"]);
    gate.told();
    expect(await came.settled()).toEqual(["teller", "change", "holding"]);
  });

  it("lets a truncation in before a teller that waits: it holds up write-backs that a killed WRITE waits for", async () => {
    const gate = new SizeGate();
    await gate.begin(true, alive);
    const came = through({ teller: gate.tell(), truncation: gate.begin(true, alive, true), change: gate.begin(true, alive) });
    expect(came.names).toEqual(["truncation"]);
    for (let changes = 0; changes < 2; changes += 1) {
      expect(await came.settled()).toEqual(["truncation"]);
      gate.made();
      gate.end(true, alive);
    }
    const later = through({ truncation: gate.begin(true, alive, true) });
    expect(await came.settled()).toEqual(["truncation", "teller"]);
    expect(await later.settled()).toEqual([]);
    gate.told();
    expect(await came.settled()).toEqual(["truncation", "teller", "change"]);
    expect(await later.settled()).toEqual(["truncation"]);
  });

  it("lets a change that may hold pages in before a teller that waits for the change of a killed caller: pages are dropped at the end of that", async () => {
    const gate = new SizeGate();
    const killed = { interrupted: false };
    await gate.begin(false, killed);
    killed.interrupted = true;
    const came = through({ teller: gate.tell(), direct: gate.begin(false, alive), holding: gate.begin(true, alive) });
    expect(await came.settled()).toEqual(["holding"]);
    // The next one waits again.
    gate.end(false, killed);
    const next = through({ holding: gate.begin(true, alive) });
    gate.made();
    expect(await next.settled()).toEqual([]);
    gate.end(true, alive);
    expect(await came.settled()).toEqual(["holding", "teller"]);
    gate.told();
    expect([await came.settled(), await next.settled()]).toEqual([["holding", "teller", "direct"], ["holding"]]);
  });

  it("lets the changes in that waited, before tellers that come again: two that take turns would keep them out for ever", async () => {
    const gate = new SizeGate();
    await gate.tell();
    await gate.tell();
    const came = through({ first: gate.begin(false, alive), second: gate.begin(true, alive) });
    gate.told();
    const again = through({ again: gate.lettingIn() });
    expect([await came.settled(), await again.settled()]).toEqual([[], []]);
    gate.told();
    expect([await came.settled(), await again.settled()]).toEqual([["first", "second"], ["again"]]);
    // Those that come later wait for it.
    const later = through({ teller: gate.tell(), later: gate.begin(false, alive) });
    expect(await later.settled()).toEqual([]);
    gate.end(false, alive);
    gate.made();
    gate.end(true, alive);
    expect(await later.settled()).toEqual(["teller"]);
    gate.told();
    expect(await later.settled()).toEqual(["teller", "later"]);
  });

  it("lets a teller come again at once where no change waits", async () => {
    const gate = new SizeGate();
    gate.refresh();
    const quiet = gate.quiet();
    expect(gate.lettingIn()).toBeUndefined();
    gate.refreshed();
    await quiet;
  });

  it("keeps a change out until the truncation of a repair is over, but not one that may hold the pages it waits for", async () => {
    const gate = new SizeGate();
    gate.refresh();
    const came = through({ change: gate.begin(false, alive), holding: gate.begin(true, alive), quiet: gate.quiet() });
    expect(await came.settled()).toEqual(["holding"]);
    gate.made();
    gate.end(true, alive);
    gate.refreshed();
    expect(await came.settled()).toEqual(["holding", "change", "quiet"]);
  });

  it("holds the answer to a repair back while a change drops pages of the old end, or is being made", async () => {
    for (const holdsPages of [false, true]) {
      const gate = new SizeGate();
      await gate.begin(holdsPages, alive);
      gate.refresh();
      const came = through({ answer: gate.tellRefresh() });
      expect(await came.settled()).toEqual([]);
      if (holdsPages) gate.made();
      else gate.end(false, alive);
      expect(await came.settled()).toEqual(["answer"]);
      expect(gate.idle).toBe(false);
      gate.told();
      gate.refreshed();
      if (holdsPages) gate.end(true, alive);
      expect(gate.idle).toBe(true);
    }
  });

  it("knows a refresh that is older than the file's size, until it is over", () => {
    const gate = new SizeGate();
    void gate.begin(true, alive);
    gate.made();
    gate.end(true, alive);
    gate.refresh();
    expect(gate.stale).toBe(false);
    void gate.begin(true, alive);
    expect(gate.stale).toBe(false);
    gate.made();
    expect(gate.stale).toBe(true);
    gate.end(true, alive);
    expect(gate.stale).toBe(true);
    gate.refreshed();
    expect(gate.stale).toBe(false);
  });

  it("a refresh by a caller cuts nothing that a change put there: it makes nothing stale", () => {
    const gate = new SizeGate();
    gate.refresh(true);
    expect(gate.begin(true, alive)).toBeUndefined();
    gate.made();
    expect([gate.stale, gate.refreshing]).toEqual([false, true]);
    gate.refresh();
    gate.made();
    expect(gate.stale).toBe(true);
    gate.refreshed(true);
    gate.refreshed();
    expect([gate.stale, gate.refreshing]).toEqual([false, false]);
  });
});
