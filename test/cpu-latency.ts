/** The kernel's limit of how long an idle processor may take to wake (Documentation/power/pm_qos_interface.rst), as tests see it. */
import { closeSync, existsSync, openSync, readFileSync, readSync } from "node:fs";
import { CPU_LATENCY_FILES } from "../overlay/serve/cpu-latency.ts";

const { limit, driver } = CPU_LATENCY_FILES;
const isThere = existsSync(limit) && existsSync(driver) && readFileSync(driver, "utf8").trim() !== "none";

/** Why the latency of idle states cannot be limited on this machine; null: it can. */
export const noCpuLatency: string | null = isThere ? null : "this kernel has no idle states to choose from, or no /dev/cpu_dma_latency";

/** The least limit that a process has set, in us; some 2 000 000 000: none has. */
export function cpuLatencyLimitUs(): number {
  const fd = openSync(limit, "r");
  try {
    const value = new Int32Array(1);
    readSync(fd, value, { position: 0 });
    return value[0] ?? Number.NaN;
  } finally {
    closeSync(fd);
  }
}
