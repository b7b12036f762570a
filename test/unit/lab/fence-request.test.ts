/** What the lab's fence agent is asked: the FenceAgentAPI's options on stdin, and on the command line. */
import { describe, expect, it } from "vitest";
import { FENCE_ACTIONS, FENCE_METADATA, parseFenceRequest } from "../../../overlay/lab/fence-request.ts";
import { fenceAgentScript } from "../../../overlay/lab/layout.ts";

const asked = (input: string): unknown => parseFenceRequest([], input);
const request = (action: string, plug: string, dir = "/lab"): unknown => ({ kind: "request", request: { action, plug, dir }, ignored: [] });

describe("options of the lab's fence agent", () => {
  it("come as lines of stdin", () => {
    expect(asked("# by dlmd\n\naction=off\nplug=node1\ndir=/lab\n")).toEqual(request("off", "node1"));
    expect(asked("action = status\nport = node2\ndir=/tmp/a=b\n")).toEqual(request("status", "node2", "/tmp/a=b"));
    expect(asked("action=monitor\ndir=/lab")).toEqual(request("monitor", ""));
    expect(asked("action=metadata")).toEqual(request("metadata", "", ""));
  });

  it("name the node as plug, port or nodename, in that order", () => {
    expect(asked("nodename=c\nport=b\nplug=a\naction=off\ndir=/lab")).toEqual(request("off", "a"));
    expect(asked("nodename=c\nport=b\naction=off\ndir=/lab")).toEqual(request("off", "b"));
    expect(asked("nodename=c\naction=off\ndir=/lab")).toEqual(request("off", "c"));
  });

  it("that nobody knows are named, and do no harm", () => {
    expect(asked("action=monitor\ndir=/lab\nverbose=1")).toMatchObject({ kind: "request", ignored: ["verbose"] });
  });

  it("come as words of the command line, too", () => {
    expect(parseFenceRequest(["-o", "metadata"], "")).toEqual(request("metadata", "", ""));
    expect(parseFenceRequest(["--action=off", "-n", "node1", "--dir=/lab"], "")).toEqual(request("off", "node1"));
  });

  it.each([
    ["", "an action is expected (off, on, status, monitor, list, metadata), found none"],
    ["action=reboot\ndir=/lab", "found reboot"],
    ["action=off\ndir=/lab", "the action off needs the option plug"],
    ["action=off", "the action off needs the option dir and plug"],
    ["action=monitor", "the action monitor needs the option dir"],
    ["garbage", 'lines of the form key=value are expected, found "garbage"'],
    ["=off", "lines of the form key=value"],
  ])("%j: says what is expected", (input, words) => {
    expect(asked(input)).toMatchObject({ kind: "wrong", why: expect.stringContaining(words) });
  });

  it.each([
    [["-o"], "-o needs a value"],
    [["--colour", "red"], "the options -o, -n, --action, --plug, --dir are expected, found --colour"],
  ])("words %j: says what is expected", (words, why) => {
    expect(parseFenceRequest(words, "action=off")).toEqual({ kind: "wrong", why });
  });

  it("are all in its metadata, as its actions are", () => {
    for (const name of ["action", "plug", "port", "dir"]) expect(FENCE_METADATA).toContain(`<parameter name="${name}"`);
    for (const name of FENCE_ACTIONS) expect(FENCE_METADATA).toContain(`<action name="${name}"`);
  });

  it("pass through the script, whatever the directories are called", () => {
    expect(fenceAgentScript("0a1b2c", ["/opt/it's/node", "/a b/fence-agent.js"])).toBe(
      `#!/bin/sh\nexec 'nsenter' '--net=/run/netns/coverlay-0a1b2c-home' '--' '/opt/it'\\''s/node' '/a b/fence-agent.js' "$@"\n`,
    );
  });
});
