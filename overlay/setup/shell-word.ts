/** Words of commands that a person, or a program, gives to sh(1). Pure. */

/** One word of sh(1). */
export function shellWord(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
