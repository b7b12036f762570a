/** Which request may see what, row by row. */
import { expect, it } from "vitest";
import { type Asked, COOKIE, cookieFor, judge, newKey } from "../../../overlay/ui/guard.ts";

const key = newKey();
const cookie = `${COOKIE}=${key.token}`;
const good: Asked = { method: "GET", url: `${key.base}snapshot`, host: "127.0.0.1:7780", cookie, site: undefined, hasBody: false };
const first: Asked = { ...good, url: `/?token=${key.token}`, cookie: undefined };
const words = (asked: Asked): string => {
  const verdict = judge(asked, key);
  return verdict.kind === "refuse" ? `${verdict.status} ${verdict.words}` : verdict.kind;
};

it("the address that is printed is welcome, and what is under its path is open with the cookie alone", () => {
  expect(judge(first, key)).toEqual({ kind: "welcome" });
  expect(judge(good, key)).toEqual({ kind: "open", name: "snapshot" });
  expect(judge({ ...good, url: key.base, cookie: `a=b; ${cookie}; c=d`, method: "HEAD" }, key)).toEqual({ kind: "open", name: "" });
  expect(judge({ ...good, url: `${key.base}page.css?v=1`, site: "same-origin", host: "LOCALHOST" }, key)).toEqual({
    kind: "open",
    name: "page.css",
  });
});

const refused: readonly [string, Asked, RegExp][] = [
  ["no token", { ...first, url: "/" }, /^403 .*address that `coverlay ui` has printed/],
  ["an empty token", { ...first, url: "/?token=" }, /^403/],
  ["a token that is one sign longer", { ...first, url: `${first.url}x` }, /^403/],
  ["the cookie where the token belongs", { ...first, url: "/", cookie }, /^403/],
  ["no cookie", { ...good, cookie: undefined }, /^403/],
  ["another cookie", { ...good, cookie: `${COOKIE}=${newKey().token}` }, /^403/],
  ["a cookie of another name", { ...good, cookie: `x${cookie}` }, /^403/],
  ["the path of another start", { ...good, url: `${newKey().base}snapshot` }, /^403/],
  ["a path without the secret part", { ...good, url: "/snapshot" }, /^403/],
  ["a part of the path", { ...good, url: key.base.slice(0, -2) }, /^403/],
  ["a name that leads here by the DNS", { ...good, host: "rebind.example:7780" }, /^403 127\.0\.0\.1 or localhost/],
  ["a name that begins like ours", { ...good, host: "127.0.0.1.rebind.example" }, /^403/],
  ["a name that ends like ours", { ...good, host: "x-localhost" }, /^403/],
  ["such a name with the token", { ...first, host: "rebind.example" }, /^403/],
  ["no name", { ...good, host: undefined }, /^403/],
  ["POST", { ...good, method: "POST" }, /^405 GET or HEAD/],
  ["OPTIONS, as of a page of another origin", { ...good, method: "OPTIONS" }, /^405/],
  ["a body", { ...good, hasBody: true }, /^400/],
  ["another page of this machine, with the cookie", { ...good, site: "same-site" }, /^403 No other page/],
  ["a page of the internet", { ...good, site: "cross-site" }, /^403 No other page/],
];

it.each(refused)("%s: is refused with words", (_, asked, expected) => {
  expect(words(asked)).toMatch(expected);
});

it("each start has another token and another path, and neither tells the other", () => {
  const other = newKey();
  expect(other.token).not.toBe(key.token);
  expect(other.base).not.toBe(key.base);
  expect(key.token).toMatch(/^[\w-]{43}$/);
  expect(key.base).toMatch(/^\/v\/[\w-]{22}\/$/);
  expect(key.token).not.toContain(key.base.slice(3, -1));
});

it("the cookie is seen by no script, by no other site, and at no other path", () => {
  expect(cookieFor(key)).toBe(`${COOKIE}=${key.token}; Path=${key.base}; HttpOnly; SameSite=Strict`);
});
