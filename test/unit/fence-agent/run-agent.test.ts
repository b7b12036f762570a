/** A fence agent that cannot be started, or cannot be killed, is an error of the device, and no end of dlmd. */
import { readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { fence } from "../../../dlmd/fence-agent/fence-device.ts";
import { MetadataShelf } from "../../../dlmd/fence-agent/metadata-shelf.ts";
import { KILL_AFTER_MS, MAX_STUCK_RUNS, runAgent, STUCK_AFTER_MS } from "../../../dlmd/fence-agent/run-agent.ts";
import { withoutDescriptors } from "../../without-descriptors.ts";
import type { AgentResult } from "../../../dlmd/fencing/fence-run.ts";
import { type AgentFolder, agentFolder, deviceOf, targetOf } from "./agents.ts";

const run = (path: string): Promise<unknown> => runAgent({ path, input: "", timeoutMs: 60_000, signal: new AbortController().signal });

it("where descriptors are all in use the agent could not be started: nothing is thrown, now or later", async () => {
  const { result, refusal } = withoutDescriptors(() => run("/bin/true"));
  result.catch(() => undefined);
  expect(refusal).toBe("EMFILE");
  await expect(result).rejects.toMatchObject({ code: "fence-agent", message: expect.stringMatching(/could not be started: .*EMFILE/) });
});

it("each error that Node.js throws instead is one of the device, too", async () => {
  await expect(run("an agent\0")).rejects.toMatchObject({ code: "fence-agent", message: expect.stringContaining("could not be started") });
});

describe("an agent that no signal ends, as one that waits in the kernel for a disk", () => {
  const kill = process.kill.bind(process);
  const shelf = new MetadataShelf();
  let made: AgentFolder;
  let agent: string;
  let sent: string[];
  beforeEach(() => {
    made = agentFolder();
    agent = made.agent("fence_a", "touch runs.$$; while :; do sleep 1000; done");
    sent = [];
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    vi.spyOn(process, "kill").mockImplementation((pid, signal) => {
      if (!running().includes(`runs.${-pid}`)) return kill(pid, signal);
      sent.push(String(signal));
      return true;
    });
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
    endAll();
    made.remove();
  });

  const running = (): string[] => readdirSync(made.folder).filter((name) => name.startsWith("runs."));

  function endAll(): void {
    for (const name of running()) {
      kill(-Number(name.slice("runs.".length)), "SIGKILL");
      rmSync(path.join(made.folder, name));
    }
  }

  /** When so many of them have begun. */
  async function begun(result: Promise<AgentResult>, count = 1): Promise<Promise<AgentResult>[]> {
    while (running().length < count) await new Promise((resolve) => setImmediate(resolve));
    return [result];
  }
  const off = (signal = new AbortController().signal): Promise<AgentResult> => fence(targetOf(agent), "off", shelf, signal);

  it("counts as a failure some time after SIGKILL: the next device is tried", async () => {
    const [result] = await begun(off());
    vi.advanceTimersByTime(deviceOf(agent).timeoutMs);
    expect(sent).toEqual(["SIGTERM"]);
    vi.advanceTimersByTime(KILL_AFTER_MS);
    expect(sent).toEqual(["SIGTERM", "SIGKILL"]);
    vi.advanceTimersByTime(STUCK_AFTER_MS);
    const words = `${agent} could not be killed in its action off: it waits in the kernel, as for a disk that hangs`;
    expect(await result).toEqual({ ok: false, unable: false, words });
  });

  it("keeps nobody who stops it", async () => {
    const abort = new AbortController();
    const [result] = await begun(off(abort.signal));
    abort.abort();
    expect(sent).toEqual(["SIGKILL"]);
    vi.advanceTimersByTime(STUCK_AFTER_MS);
    expect(await result).toMatchObject({ ok: false });
  });

  it("is not run again where too many of its processes wait, before one of them has ended", async () => {
    for (let count = 1; count <= MAX_STUCK_RUNS; count++) {
      const [result] = await begun(off(), count);
      vi.advanceTimersByTime(deviceOf(agent).timeoutMs);
      vi.advanceTimersByTime(KILL_AFTER_MS);
      vi.advanceTimersByTime(STUCK_AFTER_MS);
      expect(await result).toMatchObject({ ok: false, unable: false });
    }
    const refused = await off();
    expect(refused).toMatchObject({
      unable: true,
      words: expect.stringContaining(`${MAX_STUCK_RUNS} of its processes wait in the kernel`),
    });
    expect(running()).toHaveLength(MAX_STUCK_RUNS);

    made.agent("fence_a", "if [ $action = status ]; then exit 2; fi");
    endAll();
    let result = refused;
    while (!result.ok) result = await off();
    expect(result).toEqual({ ok: true });
  });
});
