/** Names that other nodes and programs chose must not command a terminal, nor begin a line of ours. Pure. */

/** What commands a terminal: control characters, and those that turn the direction of a line or end it (Unicode, Bidi_Control and line separators). */
// oxlint-disable-next-line no-control-regex
const COMMANDS = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
const hexOf = (sign: string, digits: number): string => sign.charCodeAt(0).toString(16).padStart(digits, "0");

/** They are shown as \x1b; `keep`: line ends of our own. */
export function visible(text: string, keep: "" | "\n"): string {
  return text.replace(COMMANDS, (sign) => (sign === keep ? sign : sign < "\u0100" ? `\\x${hexOf(sign, 2)}` : `\\u${hexOf(sign, 4)}`));
}

/** In a text of JSON, where a reader gets each sign back. */
export function visibleInJson(json: string): string {
  return json.replace(COMMANDS, (sign) => `\\u${hexOf(sign, 4)}`);
}
