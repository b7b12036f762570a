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

/**
 * `before` and `history`: of `stonith_admin --history TARGET --verbose --output-as xml`, from before that run and from after it. Null: it is
 * proven; else why not. A process number is given again: a request that has it is this one only if it is the one that is new.
 */
export function whyUnproven(before: string, history: string, { pid, target, action }: FenceRequestMade): string | null {
  let [older, events]: [Events, Events] = [[], []];
  try {
    [older, events] = [eventsIn(before), eventsIn(history)];
  } catch (error) {
    if (!(error instanceof XmlError)) throw error;
    return `its history cannot be read: ${error.message}`;
  }
  const isOfPid = (event: Events[number]): boolean => event.get("client") === `stonith_admin.${pid}`;
  if (older.some(isOfPid)) return `its history had a request of a process ${pid} before: which one is meant is not known`;
  const [own, ...others] = events.filter(isOfPid);
  if (own === undefined) return `its history does not have this request`;
  if (others.length > 0) return `its history has several requests of a process ${pid}: which one is meant is not known`;
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

type Events = readonly XmlElement["attributes"][];

/** Throws XmlError. */
function eventsIn(text: string): Events {
  return eventsOf(parseXml(text.trim())).map(({ attributes }) => attributes);
}

function eventsOf(element: XmlElement): readonly XmlElement[] {
  return element.children.flatMap((child) => (child.name === "fence_event" ? [child] : eventsOf(child)));
}
