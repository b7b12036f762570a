/** Random numbers that are the same in each run. */
export interface Random {
  /** A whole number from 0 to below - 1. `below`: 1..2^32. */
  below(below: number): number;
}

/** xorshift128 (Marsaglia 2003), for simulations: the same seed, the same run. Not for secrets. */
export function seededRandom(seed: number): Random {
  let x = seed >>> 0 || 0x9e3779b9;
  let y = 362436069;
  let z = 521288629;
  let w = 88675123;
  return {
    below(below) {
      const t = x ^ (x << 11);
      x = y;
      y = z;
      z = w;
      w = (w ^ (w >>> 19) ^ t ^ (t >>> 8)) >>> 0;
      return Math.floor((w / 0x1_0000_0000) * below);
    },
  };
}
