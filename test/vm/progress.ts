/** A run takes a quarter of an hour and more: each step says so when it begins. */
const began = performance.now();

export function progress(words: string): void {
  const seconds = Math.round((performance.now() - began) / 1000);
  process.stderr.write(`vm ${String(seconds).padStart(5)} s: ${words}\n`);
}
