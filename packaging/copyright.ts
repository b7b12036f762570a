/** /usr/share/doc/coverlay/copyright: our licence, and that of each package that is carried along (Debian Policy, 12.5). */
import { existsSync, readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { type Carried, readPackage } from "./dependencies.ts";

/** Of licences that every Debian has, the text is not repeated. */
const COMMON: Readonly<Record<string, string>> = { "Apache-2.0": "/usr/share/common-licenses/Apache-2.0" };

/** The name of a file with a licence, in that folder; null: there is none. */
export function licenseFile(folder: string): string | null {
  return readdirSync(folder).find((name) => /^(licen[cs]e|copying)/i.test(name)) ?? null;
}

function licenseText(root: string, { name, version, license, folder }: Carried): string {
  const common = COMMON[license];
  if (common !== undefined) return `On Debian systems its text is in ${common}.`;
  const file = licenseFile(path.join(root, folder));
  if (file !== null) return readFileSync(path.join(root, folder, file), "utf8").trim();
  // A part of another package, published by itself.
  const whole = WHOLE[name];
  if (whole === undefined) return namedText(root, { name, version, license, folder });
  return licenseText(root, { name: whole, version, license, folder: `node_modules/${whole}` });
}

const MIT = `Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the
"Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish,
distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the
following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY
CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.`;

/** Of a package that names its licence in package.json alone. Throws Error where that is not enough. */
function namedText(root: string, { name, license, folder }: Carried): string {
  const { author } = readPackage(path.join(root, folder));
  const who = typeof author === "string" ? author : author?.name;
  if (license === "MIT" && who !== undefined) return `Copyright (c) ${who}\n\n${MIT}`;
  throw new Error(`${name} (${license}) has no text of its licence, and cannot be given away without`);
}

const WHOLE: Readonly<Record<string, string>> = { "@koromix/koffi-linux-x64": "koffi", "@koromix/koffi-linux-arm64": "koffi" };

/** `nodeVersion`: null where no Node.js is carried along. */
export function copyrightText(root: string, carried: readonly Carried[], nodeVersion: string | null): string {
  const parts = [
    `coverlay\n\n${readFileSync(path.join(root, "LICENSE"), "utf8").trim()}`,
    ...(nodeVersion === null
      ? []
      : [
          `/usr/lib/coverlay/bin/node: Node.js ${nodeVersion}, https://nodejs.org\n\n` +
            "Its licence (MIT), and those of all that it contains, are in LICENSE.nodejs.gz beside this file.",
        ]),
    ...carried.map(
      (each) => `/usr/lib/coverlay/${each.folder}: ${each.name} ${each.version} (${each.license})\n\n${licenseText(root, each)}`,
    ),
  ];
  return `${parts.join(`\n\n${"-".repeat(78)}\n\n`)}\n`;
}

/** The licences of a Node.js that was installed below `prefix`. Throws Error: it must not be given away without. */
export function nodeLicense(prefix: string): string {
  const candidates = ["LICENSE", "share/doc/nodejs/LICENSE", "share/doc/node/LICENSE"].map((name) => path.join(prefix, name));
  const found = candidates.find((file) => existsSync(file));
  if (found !== undefined) return readFileSync(found, "utf8");
  throw new Error(`Node.js cannot be carried along without its licence: ${candidates.join(" or ")} expected. Or build with --node=system.`);
}
