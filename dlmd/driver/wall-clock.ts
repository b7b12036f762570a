/** CLOCK_REALTIME in milliseconds: for the times in the history of fences, which people read. Nothing is decided by it. */
export function wallMs(): number {
  return Date.now();
}
