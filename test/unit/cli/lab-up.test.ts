/** What `lab up` does with a lab that is up: its room is played. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { labUpCommand } from "../../../overlay/cli/lab-up.ts";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type * as live from "../../../overlay/lab/live.ts";
import { labState } from "../lab/lab-state.ts";

const played = vi.hoisted(() => ({ done: [] as string[], live: new Error("none"), detach: new Error("none") }));
vi.mock("../../../overlay/lab/up.ts", () => ({
  bringUp: () => Promise.resolve(labState("/none/lab", { nodes: [] })),
  detach: () => Promise.reject(played.detach),
  takeBack: (dir: string) => Promise.resolve(void played.done.push(`taken down: ${dir}`)),
}));
vi.mock("../../../overlay/lab/live.ts", async (importOriginal) => ({
  ...(await importOriginal<typeof live>()),
  showLive: () => Promise.reject(played.live),
}));
vi.mock("../../../overlay/cli/lab-ui.ts", () => ({
  startLabUiSomewhere: () =>
    Promise.resolve({
      url: "http://page",
      failed: new Promise(() => undefined),
      close: () => Promise.resolve(void played.done.push("page closed")),
    }),
}));

let stderr = "";
beforeEach(() => {
  stderr = "";
  played.done = [];
  vi.spyOn(process.stdout, "write").mockReturnValue(true);
  vi.spyOn(process.stderr, "write").mockImplementation((text) => ((stderr += String(text)), true));
});
afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

const options = {
  nodes: 1,
  lower: "ext4",
  size: "64M",
  image: undefined,
  engine: "builtin",
  fencing: true,
  "two-node": false,
  twoNode: false,
  ui: true,
} as const;
const up = (detach: boolean): unknown => labUpCommand.handler({ ...options, dir: "/none/lab", json: false, detach, _: [], $0: "coverlay" });

it("a lab that cannot be shown any more is taken down, and its page closed", async () => {
  played.live = new OperatingError("lab.json is damaged", { code: "lab-state", hint: "Mend it." });
  await up(false);
  expect(played.done).toEqual(["page closed", "taken down: /none/lab"]);
  expect(stderr).toBe("coverlay: taking the lab down\ncoverlay: lab.json is damaged\n  Mend it.\n");
  expect(process.exitCode).toBe(1);
});

it("a lab that cannot be left to itself is taken down", async () => {
  played.detach = new OperatingError("the disk is full", { code: "lab-full", hint: "Make room." });
  await up(true);
  expect(played.done).toEqual(["taken down: /none/lab"]);
  expect(stderr).toContain("coverlay: the disk is full");
  expect(process.exitCode).toBe(1);
});
