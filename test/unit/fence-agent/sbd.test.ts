/** What fence_sbd can prove: its disks and the device's times are looked at before it is believed. */
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { fence } from "../../../dlmd/fence-agent/fence-device.ts";
import { MetadataShelf } from "../../../dlmd/fence-agent/metadata-shelf.ts";
import { lookAtSbd, SBD_DUMP_TIMEOUT_MS, sbdMistakes, sbdTimes } from "../../../dlmd/fence-agent/sbd.ts";
import { type AgentFolder, agentFolder, deviceOf, metadataOf, targetOf } from "./agents.ts";

let made: AgentFolder;
beforeEach(() => {
  made = agentFolder();
});
afterEach(() => made.remove());

const never = new AbortController().signal;
const dump = (watchdog: number, msgwait: number): string =>
  `==Dumping header on disk /dev/x\nTimeout (watchdog) : ${watchdog}\nTimeout (allocate) : 2\nTimeout (loop)     : 1\nTimeout (msgwait)  : ${msgwait}\n`;
const good = { path: "/dev/x", times: { watchdogMs: 5000, loopMs: 1000, msgwaitMs: 10_000 } };
const device = deviceOf("fence_sbd", { timeoutMs: 20_000, settleMs: 10_000 });

test("the times of a disk are read; a header without them names none", () => {
  expect(sbdTimes(dump(5, 10))).toEqual(good.times);
  for (const text of [
    "",
    "==Header on disk /dev/x NOT dumped\n",
    dump(5, 10).replace("msgwait", "other"),
    dump(5, 10).replace("loop", "other"),
  ])
    expect(sbdTimes(text)).toBeNull();
});

test.each([
  ["a disk without msgwait", device, {}, [good, { path: "/dev/y", times: null }], "a disk that `sbd -d /dev/y create` has made"],
  [
    "msgwait that is over when sbd has fed the watchdog for the last time",
    device,
    {},
    [{ ...good, times: { watchdogMs: 5000, loopMs: 1000, msgwaitMs: 9000 } }],
    "msgwait longer than 9 s",
  ],
  ["no watchdog time", device, {}, [{ ...good, times: { watchdogMs: 0, loopMs: 1000, msgwaitMs: 5000 } }], "msgwait longer than"],
  ["an agent that is killed before", { ...device, timeoutMs: 10_000 }, {}, [good], "timeoutMs of more than 10000"],
  ["off without a settle time", { ...device, settleMs: 9999 }, {}, [good], "settleMs of 10000 (msgwait) at least"],
  ["another method", device, { method: "onoff" }, [good], "method: cycle"],
  ["no disk", device, {}, [], "the option devices"],
  ["disks out of sight", { ...device, optionFiles: { devices: "/root/devices" } }, {}, [good], "devices among the options"],
  ["disks that differ", device, {}, [good, { ...good, times: { ...good.times, watchdogMs: 4000 } }], "the same times"],
  ["sbd that is killed at msgwait", device, { power_timeout: 10 }, [good], "power_timeout of more than 10"],
  ["what is no power_timeout", device, { power_timeout: "soon" }, [good], "power_timeout of more than 10"],
  [
    "sbd that is killed by default before a long msgwait",
    { ...device, timeoutMs: 60_000, settleMs: 30_000 },
    {},
    [{ ...good, times: { ...good.times, msgwaitMs: 30_000 } }],
    "power_timeout of more than 30",
  ],
])("refused, because it proves nothing: %s", (_name, one, options, known, words) => {
  const found = sbdMistakes(one, options, known);
  expect(found).toMatchObject([{ expected: expect.stringContaining(words) }]);
});

test("what proves is no mistake: off with a settle time, or reboot without one", () => {
  expect(sbdMistakes(device, {}, [good, good])).toEqual([]);
  expect(sbdMistakes({ ...device, action: "reboot", settleMs: 0 }, { method: "cycle", power_timeout: 0 }, [good])).toEqual([]);
});

test("a fence does not run the agent if its disk cannot prove: this node is unable", async () => {
  const sbd = made.file("sbd", `#!/bin/sh\ncat ${made.folder}/dump\n`, 0o755);
  const agent = made.agent(
    "fence_sbd",
    "if [ $action = status ]; then exit 2; fi",
    metadataOf(["action", "devices", "sbd_path", "plug"], ["off", "status"]),
  );
  const at = targetOf(agent, { options: { devices: "/dev/x", sbd_path: sbd }, timeoutMs: 20_000, settleMs: 10_000 });
  made.file("dump", dump(5, 5));
  expect(await fence(at, "off", new MetadataShelf(), never)).toMatchObject({
    ok: false,
    unable: true,
    words: expect.stringContaining("could prove nothing: msgwait longer"),
  });
  made.file("dump", dump(5, 10));
  expect(await fence(at, "off", new MetadataShelf(), never)).toEqual({ ok: true });
});

test("a disk that says nothing in time, and sbd that is not there, are mistakes", async () => {
  expect(SBD_DUMP_TIMEOUT_MS).toBe(10_000);
  const sbd = made.file("sbd", "#!/bin/sh\necho no header >&2\nexit 1\n", 0o755);
  expect(await lookAtSbd(device, { devices: "/dev/x, /dev/y", sbd_path: sbd }, never)).toMatchObject([
    { found: "/dev/x, which names no msgwait" },
    { found: "/dev/y, which names no msgwait" },
  ]);
  const found = await lookAtSbd(device, { devices: "/dev/x", sbd_path: path.join(made.folder, "none") }, never);
  expect(found).toMatchObject([{ expected: expect.stringContaining("create` has made") }]);
});
