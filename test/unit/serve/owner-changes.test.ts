/** The last change of a volume's owner, and for how long there was none. */
import { expect, it } from "vitest";
import { OwnerChanges } from "../../../overlay/serve/owner-changes.ts";

it("counts from the first word that there is no owner to the next owner", () => {
  const changes = new OwnerChanges();
  expect(changes.describe(0)).toEqual({ count: 0, last: null, withoutMs: null });
  // Before the first owner nobody had a path that was lost.
  changes.lost("node1 is gone", 5);
  changes.found({ nodeid: 1 }, 10, 1000);
  expect(changes.describe(20)).toEqual({ count: 0, last: null, withoutMs: null });
  changes.lost("owner node1 is gone", 100);
  changes.lost("node2 gives up", 150);
  expect(changes.describe(180)).toEqual({ count: 0, last: null, withoutMs: 80 });
  changes.found({ nodeid: 3 }, 700.4, 5000);
  const last = { fromNodeid: 1, toNodeid: 3, pauseMs: 600, atMs: 5000, reason: "owner node1 is gone" };
  expect(changes.describe(900)).toEqual({ count: 1, last, withoutMs: null });
});

it("an owner that is heard of again without a loss is no change", () => {
  const changes = new OwnerChanges();
  changes.found({ nodeid: 1 }, 10, 1000);
  changes.found({ nodeid: 1 }, 20, 1010);
  expect(changes.describe(30)).toEqual({ count: 0, last: null, withoutMs: null });
});

it("the same owner that comes back was away", () => {
  const changes = new OwnerChanges();
  changes.found({ nodeid: 1 }, 10, 1000);
  changes.lost("this node withdraws", 20);
  changes.found({ nodeid: 1 }, 50, 1040);
  expect(changes.describe(60).last).toMatchObject({ fromNodeid: 1, toNodeid: 1, pauseMs: 30 });
});
