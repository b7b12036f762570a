/** What failed at a device, a fence or an "on", is tried again after a pause. */

/** After the first failure; doubled with each further one. */
export const FIRST_PAUSE_MS = 1000;
export const MAX_PAUSE_MS = 60_000;

export function pauseAfterMs(failures: number): number {
  return Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (failures - 1));
}
