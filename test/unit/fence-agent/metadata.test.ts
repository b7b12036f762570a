/** What an agent says of itself is read by fast-xml-parser; what is no metadata is refused by one error. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { MetadataError, parseMetadata, plugOption } from "../../../dlmd/fence-agent/metadata.ts";

const agent = (inside: string): string => `<resource-agent name="x">${inside}</resource-agent>`;

test.each([
  ["", "no XML"],
  ["garbage", "no XML"],
  ["<a></b>", "no XML in line 1"],
  ["<a>", "no XML in line 1"],
  ["<resource-agent/><resource-agent/>", "<resource-agent> with parameters and actions expected"],
  ["<resource-agent name=1/>", "no XML in line 1"],
  ["<!DOCTYPE a [<!ENTITY x 'y'>]><resource-agent/>", "no document type expected"],
  [agent("<parameters><parameter/></parameters>"), "<resource-agent> with parameters and actions expected"],
  [agent("<actions><action/></actions>"), "<resource-agent> with parameters and actions expected"],
  [agent("<a>".repeat(200) + "</a>".repeat(200)), "no XML"],
])("%j is refused", (text, words) => {
  expect(() => parseMetadata(text)).toThrow(MetadataError);
  expect(() => parseMetadata(text)).toThrow(words);
});

test("whatever it is given, it ends: with metadata or a MetadataError", () => {
  const all = [
    "<resource-agent>",
    "</resource-agent>",
    "<b c='d'/>",
    "&amp;",
    "x",
    "<",
    ">",
    '"',
    "<!--",
    "-->",
    "<?",
    "?>",
    "<![CDATA[",
    "]]>",
  ];
  const ends = (text: string): boolean => {
    try {
      return parseMetadata(text).actions.size === 0;
    } catch (error) {
      return error instanceof MetadataError;
    }
  };
  const wrong = fc.sample(fc.array(fc.constantFrom(...all)), 2000).filter((pieces) => !ends(pieces.join("")));
  expect(wrong).toEqual([]);
});

test("what is not there is empty, and entities and comments are read as XML has them", () => {
  expect(parseMetadata("<resource-agent/>")).toEqual({ name: "", parameters: new Map(), actions: new Set() });
  const text = agent("<!-- <no> --><parameters><parameter name='a&lt;b'><content/></parameter></parameters><actions/>");
  expect([...parseMetadata(text).parameters.keys()]).toEqual(["a<b"]);
});

test("metadata: options, which are required, and actions; the plug by its newest name", () => {
  const text = (more: string): string => `<?xml version="1.0" ?>
<resource-agent name="fence_x"><parameters>
<parameter name="ip" unique="0" required="1" obsoletes="ipaddr"><content type="string"/></parameter>
<parameter name="ipaddr" required="1" deprecated="1"><content type="string" default="x"/></parameter>${more}
</parameters><actions><action name="off"/><action name="on" automatic="0"/></actions></resource-agent>`;
  const metadata = parseMetadata(text(""));
  expect(metadata).toMatchObject({ name: "fence_x", actions: new Set(["off", "on"]) });
  expect(metadata.parameters.get("ip")).toEqual({
    name: "ip",
    isRequired: true,
    isDeprecated: false,
    obsoletes: "ipaddr",
    type: "string",
    hasDefault: false,
  });
  expect(plugOption(metadata)).toBeNull();
  expect(plugOption(parseMetadata(text('<parameter name="nodename"/><parameter name="port"/>')))).toBe("port");
  expect(plugOption(parseMetadata(text('<parameter name="port"/><parameter name="plug"/>')))).toBe("plug");
  expect(() => parseMetadata("<html></html>")).toThrow("<resource-agent> with parameters and actions expected");
});
