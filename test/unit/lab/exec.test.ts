import type { spawn } from "node:child_process";
import { EventEmitter } from "node:events";
import { expect, it } from "vitest";
import { execInNode } from "../../../overlay/lab/exec.ts";
import { type LabState, WHOLE_NETWORK, labNode } from "../../../overlay/lab/state.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;

function lab(): LabState {
  return {
    format: 1,
    id: "0a1b2c",
    dir: "/nowhere",
    madeDir: false,
    lower: "ext4",
    engine: "builtin",
    sizeBytes: 1,
    givenImage: null,
    volumeUuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11",
    phase: "up",
    step: "up",
    up: null,
    workers: [],
    madeDevices: [],
    nodes: [{ nodeid: 1, power: "on", device: null, cut: false, network: WHOLE_NETWORK, dlmd: null }],
  };
}

const listeners = (): number[] => SIGNALS.map((name) => process.listenerCount(name));

it("passes signals on from before the command starts: one that answers its first words is not lost", async () => {
  const before = listeners();
  const command = new EventEmitter();
  const passed = new Promise((resolve) => Object.assign(command, { kill: resolve }));
  const start = ((): EventEmitter => {
    expect(listeners()).toEqual(before.map((count) => count + 1));
    process.kill(process.pid, "SIGUSR2");
    return command;
  }) as unknown as typeof spawn;
  const state = lab();
  const status = execInNode(state, labNode(state, "node1"), "true", [], start);
  expect(await passed).toBe("SIGUSR2");
  command.emit("exit", 9, null);
  expect(await status).toBe(9);
  expect(listeners()).toEqual(before);
});
