/** `lab net --delay`: a long cable, in both directions, through a power-off. */
import { readFileSync, writeFileSync } from "node:fs";
import { expect, it } from "vitest";
import { run } from "../../../overlay/lab/command.ts";
import { hubName, netnsArguments } from "../../../overlay/lab/layout.ts";
import { findProcesses } from "../../../overlay/lab/processes.ts";
import { readLab } from "../../../overlay/lab/state.ts";
import { withLab } from "../lab.ts";

it("takes longer to a node when told, in both directions, through a power-off of it, and no longer when that is taken back", () =>
  withLab({ nodes: 3 }, async (lab) => {
    const id = readLab(lab.dir)?.id ?? "";
    const cables = (): number => findProcesses({ netns: new Set(), marks: [`${id}:cable-`] }).length;
    const address = (await lab.status())[1]?.address;
    const connectMs = async (): Promise<number> => {
      const timed = `s=$EPOCHREALTIME; : </dev/tcp/${address}/7701; e=$EPOCHREALTIME; echo $(( \${e/./} - \${s/./} ))`;
      const { stdout } = await run("nsenter", netnsArguments(lab.node(1).netns, ["bash", "-c", timed]));
      return Number(stdout) / 1000;
    };
    await lab.lab("net", "node2", "--delay", "20");
    expect(cables()).toBe(1);
    expect(await connectMs()).toBeGreaterThanOrEqual(40);
    await lab.lab("net", "node1,node2", "--delay", "15.5");
    expect(cables()).toBe(2);
    expect(await connectMs()).toBeGreaterThanOrEqual(62);
    // A large write goes through in packets that the kernel has not cut yet.
    const data = Buffer.alloc(3_000_000, "coverlay ");
    writeFileSync(`${lab.node(2).mount}/far`, data);
    // Not on node3, which may have been evicted when it was parted from the rest.
    expect(readFileSync(`${lab.node(1).mount}/far`).equals(data)).toBe(true);
    await lab.kill(2);
    await lab.start(2);
    expect(await connectMs()).toBeGreaterThanOrEqual(62);
    expect(readFileSync(`${lab.node(2).mount}/far`).equals(data)).toBe(true);
    await lab.lab("net", "node1,node2", "--delay", "0");
    expect(cables()).toBe(0);
    const { stdout } = await run("ip", ["-n", hubName(id), "-o", "link", "show", "master", "br0"]);
    expect([...stdout.matchAll(/ (\w+)@/g)].map(([, port]) => port)).toEqual(expect.arrayContaining(["port1", "port2", "port3"]));
  }));
