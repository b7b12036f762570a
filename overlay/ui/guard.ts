/**
 * Which request may see what. Any user of this machine can connect to a port of the loopback, and so can each page that a browser of this machine
 * shows. overlay/ui/README.md, "Attacks" names them one by one.
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";

export const COOKIE = "coverlay-ui";
const TOKEN_BYTES = 32;

export interface Key {
  /** In the address that is printed, and in the cookie. */
  readonly token: string;
  /** "/v/…/": under it is all that the cookie opens. Browsers send cookies to every port of a host, but only to this path. */
  readonly base: string;
}

export function newKey(): Key {
  const token = randomBytes(TOKEN_BYTES).toString("base64url");
  const place = createHmac("sha256", token).update("path").digest("base64url").slice(0, 22);
  return { token, base: `/v/${place}/` };
}

/** What the guard looks at of a request. */
export interface Asked {
  readonly method: string;
  /** As it came: path and query. */
  readonly url: string;
  readonly host: string | undefined;
  readonly cookie: string | undefined;
  /** Sec-Fetch-Site, which browsers set and pages cannot. */
  readonly site: string | undefined;
  readonly hasBody: boolean;
}

export type Verdict =
  | { readonly kind: "refuse"; readonly status: number; readonly words: string }
  /** The token is right: set the cookie, and go on at the base. */
  | { readonly kind: "welcome" }
  /** `name`: what follows the base. */
  | { readonly kind: "open"; readonly name: string };

const NO_KEY = "This page opens at the address that `coverlay ui` has printed, with its token. Copy the whole address into this browser.";

function refuse(status: number, words: string): Verdict {
  return { kind: "refuse", status, words };
}

export function judge(asked: Asked, key: Key): Verdict {
  if (asked.method !== "GET" && asked.method !== "HEAD") return refuse(405, "GET or HEAD expected: nothing can be changed here.");
  if (asked.hasBody) return refuse(400, "A request without a body expected.");
  // A name that leads here by a trick of the DNS is another one (DNS rebinding).
  if (!isLoopback(asked.host)) return refuse(403, "127.0.0.1 or localhost expected as the host of the address.");
  const at = asked.url.indexOf("?");
  const path = at < 0 ? asked.url : asked.url.slice(0, at);
  if (path === "/") {
    const token = at < 0 ? null : new URLSearchParams(asked.url.slice(at + 1)).get("token");
    return token !== null && isSame(token, key.token) ? { kind: "welcome" } : refuse(403, NO_KEY);
  }
  if (asked.site !== undefined && asked.site !== "same-origin" && asked.site !== "none") return refuse(403, "No other page may ask here.");
  if (!isSame(path.slice(0, key.base.length), key.base)) return refuse(403, NO_KEY);
  if (!cookiesOf(asked.cookie).some((token) => isSame(token, key.token))) return refuse(403, NO_KEY);
  return { kind: "open", name: path.slice(key.base.length) };
}

/** Any port: one may come through a tunnel of ssh. */
function isLoopback(host: string | undefined): boolean {
  return host !== undefined && /^(127\.0\.0\.1|localhost)(:\d{1,5})?$/i.test(host);
}

/** In a time that says nothing of where they differ. */
function isSame(said: string, wanted: string): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(said), digest(wanted));
}

function cookiesOf(header: string | undefined): string[] {
  const pairs = (header ?? "").split(";").map((pair) => pair.trim());
  return pairs.flatMap((pair) => (pair.startsWith(`${COOKIE}=`) ? [pair.slice(COOKIE.length + 1)] : []));
}

export function cookieFor({ token, base }: Key): string {
  return `${COOKIE}=${token}; Path=${base}; HttpOnly; SameSite=Strict`;
}
