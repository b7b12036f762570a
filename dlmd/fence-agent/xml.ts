/**
 * Elements and attributes of a small XML document (XML 1.0, sections 2 and 3), as fence agents print it. It knows no DTD, so no entity but the
 * five of XML and numbers; a document type is refused. Pure, and bounded by the caller: each character is looked at once.
 */
export interface XmlElement {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly XmlElement[];
  /** Its own text, without that of its children. */
  readonly text: string;
}

/** Elements in each other; metadata needs 5. */
export const MAX_XML_DEPTH = 16;

export class XmlError extends Error {}

const entities: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

function decodeText(raw: string): string {
  return raw.replace(/&(?:#x([0-9a-fA-F]{1,6})|#(\d{1,7})|(\w{1,16}));/g, (whole, hex?: string, decimal?: string, name?: string) => {
    if (name !== undefined) return entities[name] ?? whole;
    const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16);
    return code > 0 && code <= 0x10_ffff ? String.fromCodePoint(code) : whole;
  });
}

interface Open {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: XmlElement[];
  text: string;
}

/** One piece of markup or of text; sticky, so that nothing is skipped. */
const piece =
  /<\?[^]*?\?>|<!--[^]*?-->|<!\[CDATA\[([^]*?)\]\]>|<\/([\w:.-]+)\s*>|<([\w:.-]+)((?:\s+[\w:.-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(\/?)>|([^<]+)/y;
const attribute = /([\w:.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g;

function attributesOf(raw: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const [, name = "", double, single] of raw.matchAll(attribute)) found.set(name, decodeText(double ?? single ?? ""));
  return found;
}

/** The root element. Throws XmlError. */
export function parseXml(text: string): XmlElement {
  const root: Open = { name: "", attributes: new Map(), children: [], text: "" };
  const open: Open[] = [root];
  const close = (name: string): void => {
    const last = open.pop();
    if (last === undefined || open.length === 0 || last.name !== name) throw new XmlError(`</${name}> ends what did not begin`);
    open.at(-1)?.children.push(last);
  };
  piece.lastIndex = 0;
  while (piece.lastIndex < text.length) {
    const at = piece.lastIndex;
    const match = piece.exec(text);
    if (match === null) throw new XmlError(`no XML at character ${at}: ${JSON.stringify(text.slice(at, at + 40))}`);
    const [, cdata, ended, begun, raw = "", isEmpty, words] = match;
    const here = open.at(-1) as Open;
    if (cdata !== undefined) here.text += cdata;
    else if (words !== undefined) here.text += decodeText(words);
    else if (ended !== undefined) close(ended);
    else if (begun !== undefined) {
      if (open.length > MAX_XML_DEPTH) throw new XmlError(`more than ${MAX_XML_DEPTH} elements in each other`);
      open.push({ name: begun, attributes: attributesOf(raw), children: [], text: "" });
      if (isEmpty === "/") close(begun);
    }
  }
  const [element, ...more] = root.children;
  if (open.length !== 1) throw new XmlError(`<${open.at(-1)?.name}> has no end`);
  if (element === undefined || more.length > 0 || root.text.trim() !== "")
    throw new XmlError("one element expected, and nothing beside it");
  return element;
}
