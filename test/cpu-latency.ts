/** The kernel's limit of how long an idle processor may take to wake (Documentation/power/pm_qos_interface.rst), as tests see it. */
import { closeSync, existsSync, openSync, readFileSync, readSync } from "node:fs";

const DEVICE = "/dev/cpu_dma_latency";
const DRIVER = "/sys/devices/system/cpu/cpuidle/current_driver";

/** This kernel has idle states, and lets their latency be limited. */
export const limitsCpuLatency: boolean = existsSync(DEVICE) && existsSync(DRIVER) && readFileSync(DRIVER, "utf8").trim() !== "none";

/** The least limit that a process has set, in us; some 2 000 000 000: none has. */
export function cpuLatencyLimitUs(): number {
  const fd = openSync(DEVICE, "r");
  try {
    const value = new Int32Array(1);
    readSync(fd, value, { position: 0 });
    return value[0] ?? Number.NaN;
  } finally {
    closeSync(fd);
  }
}
