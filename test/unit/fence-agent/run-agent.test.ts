/** A fence agent that cannot be started is an error of the device, and no end of dlmd. */
import { expect, it } from "vitest";
import { runAgent } from "../../../dlmd/fence-agent/run-agent.ts";
import { withoutDescriptors } from "../../without-descriptors.ts";

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
