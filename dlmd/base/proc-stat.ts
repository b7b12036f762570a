/** /proc/PID/stat (proc(5)). Pure. */

/** Fields 3 (state) and on, those after the name, which may itself hold spaces and parentheses. */
export function statFields(stat: string): string[] {
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}
