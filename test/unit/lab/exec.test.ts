import type { spawn } from "node:child_process";
import { EventEmitter } from "node:events";
import { expect, it } from "vitest";
import { execInNode } from "../../../overlay/lab/exec.ts";
import { labNode } from "../../../overlay/lab/state.ts";
import { labState } from "./lab-state.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;

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
  const state = labState("/nowhere");
  const status = execInNode(state, labNode(state, "node1"), "true", [], start);
  expect(await passed).toBe("SIGUSR2");
  command.emit("exit", 9, null);
  expect(await status).toBe(9);
  expect(listeners()).toEqual(before);
});
