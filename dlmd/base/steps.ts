/** Long work in short turns: a generator whose yields are the places at which it may stop. */

/** So many steps more. True: it is done. */
export function takeSteps(work: Iterator<void>, budget: number): boolean {
  for (let left = budget; left > 0; left--) if (work.next().done === true) return true;
  return false;
}
