/** A man page read back: its sections, and in each of them what is explained. */

export interface PageSection {
  readonly title: string;
  readonly text: string;
  /** Tag without markup -> its words. */
  readonly items: ReadonlyMap<string, string>;
}

/** Without fonts and escapes. */
export function plain(roff: string): string {
  return roff
    .replaceAll(/\\f[BIR]/g, "")
    .replaceAll("\\-", "-")
    .replaceAll("\\(aq", "'")
    .replaceAll("\\(ga", "`")
    .replaceAll("\\(ha", "^")
    .replaceAll("\\(ti", "~")
    .replaceAll("\\&", "")
    .replaceAll("\\e", "\\");
}

/** Sections and subsections, in order. */
export function sectionsOf(page: string): readonly PageSection[] {
  return page
    .split(/^\.S[HS] /m)
    .slice(1)
    .map((part) => {
      const [title = "", ...lines] = part.split("\n");
      const body = lines.join("\n");
      const items = [...body.matchAll(/^\.TP\n(.*)\n((?:(?!\.[A-Z]|\.")[^\n]*\n?)*)/gm)].map(
        ([, tag = "", words = ""]) => [plain(tag), plain(words).trim().replaceAll("\n", " ")] as const,
      );
      return { title: plain(title).replaceAll('"', ""), text: plain(body), items: new Map(items) };
    });
}

/** The section of that title. */
export function sectionNamed(page: string, title: string): PageSection {
  const found = sectionsOf(page).find((section) => section.title === title);
  if (found === undefined) throw new Error(`the page has a section ${title}, expected`);
  return found;
}

/** "-o, --options OPTIONS" and its like -> "options". */
export function optionsOf(section: PageSection): ReadonlyMap<string, string> {
  return new Map(
    [...section.items].flatMap(([tag, words]) =>
      /^(?:-\w, )?--[a-z]/.test(tag) ? [[/--([\w-]+)/.exec(tag)?.[1] ?? "", words] as const] : [],
    ),
  );
}
