/**
 * Whether Pacemaker has done what one run of stonith_admin asked for. Its exit status is not enough: it is 0, too, when a person says
 * `stonith_admin --confirm` meanwhile and nothing was fenced (seen with Pacemaker 2.1.5). Its history has the request, by the process that made
 * it, with the node that carried it out. Pure.
 */
import { parseXml, XmlError, type XmlElement } from "../fence-agent/xml.ts";

export interface FenceRequestMade {
  /** Of that run of stonith_admin. */
  readonly pid: number;
  readonly target: string;
  readonly action: "off" | "on" | "reboot";
}

/** What Pacemaker writes as the one that carried it out when a person has confirmed it. */
const PERSON = "a human";

/** `history`: of `stonith_admin --history TARGET --verbose --output-as xml`. Null: it is proven; else why not. */
export function whyUnproven(history: string, { pid, target, action }: FenceRequestMade): string | null {
  let root: XmlElement;
  try {
    root = parseXml(history.trim());
  } catch (error) {
    if (!(error instanceof XmlError)) throw error;
    return `its history cannot be read: ${error.message}`;
  }
  const events = eventsOf(root).map(({ attributes }) => attributes);
  const own = events.find((event) => event.get("client") === `stonith_admin.${pid}`);
  if (own === undefined) return `its history does not have this request`;
  if (own.get("target") !== target || own.get("action") !== action)
    return `its history has ${own.get("action")} of ${own.get("target")} for this request of ${action} of ${target}`;
  const status = own.get("status") ?? "nothing";
  const delegate = own.get("delegate") ?? "";
  const confirmed = delegate === PERSON || events.some((event) => event.get("delegate") === PERSON);
  const said = confirmed
    ? `; a person has confirmed one (stonith_admin --confirm), which fences nothing: coverlay fence ack ${target}`
    : "";
  if (status !== "success") return `its history says ${status} of this request${said}`;
  if (delegate === PERSON || delegate === "") return `its history names no node that carried it out${said}`;
  return null;
}

function eventsOf(element: XmlElement): readonly XmlElement[] {
  return element.children.flatMap((child) => (child.name === "fence_event" ? [child] : eventsOf(child)));
}
