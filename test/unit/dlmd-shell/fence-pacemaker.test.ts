/** What fence_pacemaker is asked, what it says of itself, and what it takes from Pacemaker for a proof. */
import { describe, expect, it } from "vitest";
import { parseMetadata, plugOption } from "../../../dlmd/fence-agent/metadata.ts";
import { whyUnproven } from "../../../dlmd/fence-pacemaker/proof.ts";
import {
  DEFAULT_TIMEOUT_S,
  MAX_TIMEOUT_S,
  PACEMAKER_METADATA,
  type ParsedRequest,
  parsePacemakerRequest,
} from "../../../dlmd/fence-pacemaker/request.ts";

const lines = (...given: string[]): ParsedRequest => parsePacemakerRequest([], given.join("\n"));

describe("what is asked", () => {
  it("options of stdin, with the timeout and the program that it has by default", () => {
    expect(lines("action=off", "plug=node2", "nodename=x", "colour=red")).toEqual({
      kind: "request",
      request: { action: "off", plug: "node2", timeoutS: DEFAULT_TIMEOUT_S, program: "/usr/sbin/stonith_admin" },
      ignored: ["colour"],
    });
    expect(lines("action=monitor", `timeout=${MAX_TIMEOUT_S}`)).toMatchObject({ request: { timeoutS: 600 } });
    expect(parsePacemakerRequest(["-o", "reboot", "-n", "node2"], "action=off")).toMatchObject({
      request: { action: "reboot", plug: "node2" },
    });
  });

  it.each([
    [["plug=node2"], "an action is expected (off, on, reboot, monitor, metadata, validate-all), found none"],
    [["action=status", "plug=node2"], "Pacemaker does not know whether a node is on: there is no action status"],
    [["action=off"], "the action off needs the option plug, the node's name in Pacemaker"],
    [["action=off", "plug=--confirm=node2"], "a node's name is expected as plug, found --confirm=node2"],
    [["action=off", "plug=node2", `timeout=${MAX_TIMEOUT_S + 1}`], "1 to 600 seconds are expected as timeout, found 601"],
    [["action=off", "plug=node2", "timeout=soon"], "1 to 600 seconds are expected as timeout, found soon"],
    [["action=off", "plug=node2", "stonith_admin=it"], "an absolute path is expected as stonith_admin, found it"],
    [["what"], 'lines of the form key=value are expected, found "what"'],
  ])("%j is refused in words", (given, why) => {
    expect(lines(...given)).toEqual({ kind: "wrong", why });
  });

  it("its metadata is read as that of any agent, and has no status: dlmd would ask for it after an off", () => {
    const metadata = parseMetadata(PACEMAKER_METADATA);
    expect([metadata.name, plugOption(metadata)]).toEqual(["fence_pacemaker", "plug"]);
    expect([...metadata.actions]).toEqual(["off", "on", "reboot", "monitor", "metadata", "validate-all"]);
  });
});

/** As Pacemaker 2.1.5 has printed it. */
const history = (
  ...events: string[]
): string => `<pacemaker-result api-version="2.25" request="stonith_admin --history node3 --output-as xml -V">
  <list name="fencing history" count="${events.length}">
    ${events.join("\n    ")}
  </list>
  <status code="0" message="OK"/>
</pacemaker-result>
`;
const event = (pid: number, rest: string): string =>
  `<fence_event action="off" target="node3" client="stonith_admin.${pid}" origin="node1" ${rest}/>`;
const done = 'status="success" delegate="node1" completed="2026-11-22 13:27:36Z"';
const pending = 'status="pending" extended-status="1"';
const confirmed = 'status="success" delegate="a human" completed="2026-11-22 13:27:56Z"';
const made = { pid: 24934, target: "node3", action: "off" } as const;

describe("what is a proof", () => {
  it("this very request, carried out by a node", () => {
    expect(whyUnproven(history(), history(event(24934, done)), made)).toBeNull();
    expect(whyUnproven(history(), history(event(24999, confirmed), event(24934, done)), made)).toBeNull();
  });

  it("a person's word is none: stonith_admin ends with 0 while its device is still at it", () => {
    expect(whyUnproven(history(), history(event(24934, pending), event(24948, confirmed)), made)).toBe(
      "its history says pending of this request; a person has confirmed one (stonith_admin --confirm), which fences nothing: coverlay fence ack node3",
    );
    expect(whyUnproven(history(), history(event(24934, confirmed)), made)).toContain(
      "names no node that carried it out; a person has confirmed one",
    );
  });

  it("neither is another's request, an older one, or one of another node or action", () => {
    expect(whyUnproven(history(), history(event(23093, done)), made)).toBe("its history does not have this request");
    expect(whyUnproven(history(), history(), made)).toBe("its history does not have this request");
    expect(whyUnproven(history(), history(event(24934, done)), { ...made, target: "node2" })).toBe(
      "its history has off of node3 for this request of off of node2",
    );
    expect(whyUnproven(history(), history(event(24934, done)), { ...made, action: "reboot" })).toContain("has off of node3");
    expect(whyUnproven(history(), history(event(24934, 'status="success"')), made)).toBe("its history names no node that carried it out");
    expect(whyUnproven(history(), history(event(24934, 'status="failed" delegate="node1"')), made)).toBe(
      "its history says failed of this request",
    );
  });

  it("nor one of a process that had the same number before, also if it is carried out only now, or on another node", () => {
    const reused = "its history had a request of a process 24934 before: which one is meant is not known";
    for (const older of [done, pending]) {
      expect(whyUnproven(history(event(24934, older)), history(event(24934, done)), made)).toBe(reused);
      expect(whyUnproven(history(event(24934, older)), history(event(24934, done), event(24934, done)), made)).toBe(reused);
    }
    expect(whyUnproven(history(event(23093, done)), history(event(23093, done), event(24934, done)), made)).toBeNull();
    expect(whyUnproven(history(), history(event(24934, pending), event(24934, done)), made)).toBe(
      "its history has several requests of a process 24934: which one is meant is not known",
    );
  });

  it("nor what is no history", () => {
    expect(whyUnproven("", history(event(24934, done)), made)).toContain("its history cannot be read");
    expect(whyUnproven(history(), "", made)).toContain("its history cannot be read");
    expect(whyUnproven(history(), "<a><b></a>", made)).toContain("its history cannot be read");
  });
});
