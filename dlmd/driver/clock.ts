/**
 * CLOCK_BOOTTIME in milliseconds: never goes back, and goes on while the machine sleeps (clock_gettime(2)). It is asked for at each look: what a lease was before a
 * sleep is over at the first look after it (hazard M1), and others who read the kernel's clock mean the same moments (driver/lease-file.ts).
 */
import { nativeAddon } from "../../native/index.ts";

/** A clock; call it to read it. Throws where the addon is not built. */
export function bootClock(): () => number {
  const native = nativeAddon();
  return () => native.bootTimeMs();
}
