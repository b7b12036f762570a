/**
 * What the tasks of a machine that stands still wait for. Its monitor (QEMU's) presses Alt-SysRq keys (the kernel's sysrq.rst), and the kernel writes each
 * task's stack to its console: that works when no program of it runs any more.
 */
import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

/** QEMU's words of its command line for a monitor at that socket. */
export const monitorWords = (socket: string): readonly string[] => [
  "-chardev",
  `socket,id=monitor,server=on,wait=off,path=${socket}`,
  "-mon",
  "chardev=monitor,mode=readline",
];

/** On the kernel's command line: a Debian allows only some of the keys. */
export const MONITOR_KERNEL_WORDS = "sysrq_always_enabled=1";

/** 9: all messages go to the console; w: tasks that are blocked; l: what the processor does; t: all tasks. */
const KEYS = ["9", "w", "l", "t"];
/** A serial line is slow, and so is a processor that is emulated. */
const KEY_PAUSE_MS = 5000;

/** Returns when the keys have been pressed, and what they bring has had its time. Rejects if nothing listens there. */
export async function pressTaskKeys(socket: string): Promise<void> {
  const monitor = connect(socket);
  await once(monitor, "connect");
  monitor.resume();
  for (const key of KEYS) {
    monitor.write(`sendkey alt-sysrq-${key}\n`);
    await pause(KEY_PAUSE_MS);
  }
  monitor.destroy();
}
