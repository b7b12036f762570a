import * as fc from "fast-check";
import { expect, test } from "vitest";
import { MAX_XML_DEPTH, parseXml, XmlError } from "../../../dlmd/fence-agent/xml.ts";

test("elements, attributes, text, entities, comments, CDATA", () => {
  const root = parseXml(
    `<?xml version="1.0"?>\n<!-- <no> --><a b='1 "2"' c="&lt;&#65;&#x42;&unknown;"><d/>x &amp; y<e:f>1</e:f><![CDATA[<&>]]></a>`,
  );
  expect([root.name, Object.fromEntries(root.attributes), root.text]).toEqual(["a", { b: '1 "2"', c: "<AB&unknown;" }, "x & y<&>"]);
  expect(root.children.map(({ name, text }) => [name, text])).toEqual([
    ["d", ""],
    ["e:f", "1"],
  ]);
});

test.each([
  ["", "one element expected"],
  ["garbage", "one element expected"],
  ["<a></b>", "</b> ends what did not begin"],
  ["</a>", "</a> ends what did not begin"],
  ["<a>", "<a> has no end"],
  ["<a/><b/>", "one element expected"],
  ["<a b=1/>", "no XML at character 0"],
  ["<!DOCTYPE a [<!ENTITY x 'y'>]><a/>", "no XML at character 0"],
  ["<a><", "no XML at character 3"],
])("%j is refused", (text, words) => expect(() => parseXml(text)).toThrow(words));

test("elements in each other have an end", () => {
  const deep = (depth: number): string => "<a>".repeat(depth) + "</a>".repeat(depth);
  expect(parseXml(deep(MAX_XML_DEPTH)).name).toBe("a");
  expect(() => parseXml(deep(MAX_XML_DEPTH + 1))).toThrow(`more than ${MAX_XML_DEPTH} elements`);
});

test("whatever it is given, it ends: with an element or an XmlError", () => {
  const all = ["<a>", "</a>", "<b c='d'/>", "&amp;", "x", "<", ">", '"', "<!--", "-->", "<?", "?>", "<![CDATA[", "]]>"];
  const ends = (text: string): boolean => {
    try {
      return parseXml(text).name !== "";
    } catch (error) {
      return error instanceof XmlError;
    }
  };
  const wrong = fc.sample(fc.array(fc.constantFrom(...all)), 2000).filter((pieces) => !ends(pieces.join("")));
  expect(wrong).toEqual([]);
});
