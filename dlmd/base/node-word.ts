/** How a node is named in a command that people are to type: one that the configuration has no name for any more is "node 3" in words, and its number there. */
export function nodeWord(name: string): string {
  return name.replace(/^node (\d+)$/, "$1");
}
