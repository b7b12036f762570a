/**
 * man(7), the language of man pages, from text with a little markup: paragraphs, `code`, **bold**, *italic*, points, examples (indented) and
 * tables of two columns. Source: groff_man(7), and what mandoc's lint says of it.
 */

/** Text without markup. A minus of a command line is one, not a hyphen; quotes stay what they are. */
export function escape(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll("'", "\\(aq")
    .replaceAll("`", "\\(ga")
    .replaceAll("^", "\\(ha")
    .replaceAll("~", "\\(ti");
}

/** `code` and **bold** in bold, *italic* and <PLACE> as they are. Ordinary text keeps its hyphens. */
export function inline(text: string): string {
  return text
    .split(/(`[^`]+`|\*\*[^*]+\*\*|\*[^*\s][^*]*\*)/)
    .map((part) => {
      if (part.startsWith("`") && part.length > 2) return `\\fB${escape(part.slice(1, -1))}\\fR`;
      if (part.startsWith("**") && part.length > 4) return `\\fB${escape(part.slice(2, -2))}\\fR`;
      if (part.startsWith("*") && part.length > 2) return `\\fI${escape(part.slice(1, -1))}\\fR`;
      return escape(part);
    })
    .join("");
}

/** A line that begins like a request must not be one. */
function guard(line: string): string {
  return /^[.']/.test(line) ? `\\&${line}` : line;
}

/** Lines of a paragraph, a sentence on each: that is what roff wants. */
export function textLines(text: string): string[] {
  return text
    .replaceAll(/\s+/g, " ")
    .trim()
    .split(/(?<=[a-z0-9)`*][.?!]) (?=[A-Z`*])/)
    .map((sentence) => guard(inline(sentence)));
}

export function section(title: string): string[] {
  return [`.SH ${title.includes(" ") ? `"${title}"` : title}`];
}

export function subsection(title: string): string[] {
  return [`.SS "${escape(title)}"`];
}

export function paragraph(text: string): string[] {
  return [".PP", ...textLines(text)];
}

/** `tag`: roff already. */
export function tagged(tag: string, text: string): string[] {
  return [".TP", guard(tag), ...textLines(text)];
}

export function point(text: string): string[] {
  return [".IP \\(bu 2", ...textLines(text)];
}

/** As it stands, indented. */
export function example(lines: readonly string[]): string[] {
  return [".PP", ".RS 4", ".nf", ...lines.map((line) => (line === "" ? "\\&" : guard(escape(line)))), ".fi", ".RE"];
}

type Kind = "indented" | "table" | "points" | "text";

function kindOf(line: string): Kind {
  if (/^( {4}|\t)/.test(line)) return "indented";
  if (line.startsWith("|")) return "table";
  return line.startsWith("* ") ? "points" : "text";
}

function tableRows(lines: readonly string[]): string[] {
  const rows = lines.slice(2).map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
  return rows.flatMap(([tag = "", ...words]) => tagged(inline(tag), words.join("; ")));
}

/** Markup to roff. A piece ends with an empty line. */
export function markup(text: string): string[] {
  const pieces = text
    .split(/\n\s*\n/)
    .map((piece) => piece.replaceAll(/^\n+|\s+$/g, ""))
    .filter((piece) => piece !== "");
  return pieces.flatMap((piece) => {
    const lines = piece.split("\n");
    switch (kindOf(lines[0] ?? "")) {
      case "indented":
        return example(lines.map((line) => line.replace(/^( {4}|\t)/, "")));
      case "table":
        return tableRows(lines);
      case "points":
        return piece.split(/^\* /m).slice(1).flatMap(point);
      case "text":
        return paragraph(piece);
    }
  });
}
