import { EventEmitter } from "node:events";
import { describe, expect, it, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { NotBuilt } from "../../../native/index.ts";
import { EXIT, describeError, outliveReaders, printJson, table } from "../../../overlay/cli/output.ts";

describe("an error", () => {
  const refused = new OperatingError("/dev/sdb1 should carry the clustered bit, but does not", {
    code: "no-bit",
    hint: "Run coverlay volume enable.",
    exitStatus: 32,
  });

  it("of operation is one line and a hint, without a stack", () => {
    expect(describeError(refused, false)).toEqual({
      text: "coverlay: /dev/sdb1 should carry the clustered bit, but does not\n  Run coverlay volume enable.\n",
      exitStatus: 32,
    });
  });

  it("is one object with --json", () => {
    const { text } = describeError(refused, true);
    expect(JSON.parse(text)).toEqual({ error: refused.message, code: "no-bit", hint: refused.hint });
  });

  it("of an addon that is not built is one of operation, and says what to do", () => {
    const text = describeError(new NotBuilt("the native addon"), false).text;
    expect(text).toMatch(/^coverlay: the native addon of coverlay is not built\n {2}Install a C\+\+ compiler .* npm run build\.\n$/);
    expect(JSON.parse(describeError(new NotBuilt("the keeper of mounts"), true).text)).toMatchObject({ code: "not-built" });
  });

  it("of the machine is none of ours: it is told with what helps", () => {
    const open = Object.assign(new Error("EMFILE: too many open files, open '/x'"), { code: "EMFILE", syscall: "open" });
    const { text, exitStatus } = describeError(open, false);
    expect([text.split("\n")[0], exitStatus]).toEqual(["coverlay: EMFILE: too many open files, open '/x'", 1]);
    expect(text).toContain("ulimit -n");
    expect(JSON.parse(describeError(open, true).text)).toMatchObject({
      code: "machine",
      hint: expect.stringContaining("LimitNOFILE") as string,
    });
    const ours = Object.assign(new Error("EBADF: bad file descriptor, read"), { code: "EBADF", syscall: "read" });
    expect(describeError(ours, false).text).toContain("internal error");
  });

  it("of ours shows where", () => {
    const { text, exitStatus } = describeError(new TypeError("undefined is not a node"), false);
    expect(text).toContain("internal error: TypeError: undefined is not a node");
    expect(text).toContain("output.test.ts");
    expect(exitStatus).toBe(1);
    expect(JSON.parse(describeError("thrown text", true).text)).toMatchObject({ error: "thrown text", code: "internal" });
  });
});

describe("what others have named", () => {
  const name = `a${String.fromCharCode(0x1b, 0x85, 0x202e)}b`;

  it("does not command the terminal in an error", () => {
    const bad = new OperatingError(`${name}\nc`, { code: "x", hint: name });
    expect(describeError(bad, false).text).toBe("coverlay: a\\x1b\\x85\\u202eb\nc\n  a\\x1b\\x85\\u202eb\n");
    expect(describeError(new Error(name), false).text).not.toContain("\u0085");
  });

  it("is read from JSON as it was, and stands there without commands", () => {
    const printed: string[] = [];
    vi.spyOn(process.stdout, "write").mockImplementation((text) => printed.push(String(text)) > 0);
    printJson({ name });
    vi.restoreAllMocks();
    const error = describeError(new OperatingError(name, { code: "x", hint: "" }), true).text;
    expect([printed.join(""), error].every((text) => /^[\n -~]*$/.test(text))).toBe(true);
    expect([JSON.parse(printed.join("")), (JSON.parse(error) as { error: string }).error]).toEqual([{ name }, name]);
  });
});

describe("a table", () => {
  it("aligns its columns and leaves no blanks at the end", () => {
    expect(
      table([
        ["a", "bbb", "c"],
        ["aaaa", "b", "cc"],
      ]),
    ).toBe("a     bbb  c\naaaa  b    cc");
  });

  it("shows what would command a terminal, and makes no lines of a cell", () => {
    const escape = String.fromCharCode(27);
    expect(table([["a\nb", `${escape}[2J`]])).toBe("a\\x0ab  \\x1b[2J");
  });
});

it("a reader that goes away ends no command, and changes no exit status", () => {
  const before = process.exitCode;
  const exit = vi.spyOn(process, "exit").mockReturnValue(undefined as never);
  const streams = [new EventEmitter(), new EventEmitter()];
  const failed: string[] = [];
  outliveReaders(streams, ({ message }) => failed.push(message));
  for (const stream of streams) stream.emit("error", Object.assign(new Error("write EPIPE"), { code: "EPIPE" }));
  expect([exit.mock.calls.length, process.exitCode, failed]).toEqual([0, before, []]);
  vi.restoreAllMocks();
});

it("an output that is full ends no command either, and is a failure that is told once", () => {
  const stream = new EventEmitter();
  const failed: string[] = [];
  outliveReaders([stream], ({ message }) => failed.push(message));
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  for (const error of [full, full]) stream.emit("error", error);
  expect(failed).toEqual([full.message]);
});

it("an answer that was not taken makes the exit status of a command that went well a failure, and no other", () => {
  const said: string[] = [];
  vi.spyOn(process.stderr, "write").mockImplementation((words) => said.push(String(words)) > 0);
  const atExit: ((status: number) => void)[] = [];
  vi.spyOn(process, "once").mockImplementation((_, heard) => (atExit.push(heard), process));
  const stream = new EventEmitter();
  outliveReaders([stream]);
  stream.emit("error", Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" }));
  vi.restoreAllMocks();
  const before = process.exitCode;
  const after = [EXIT.MOUNT, EXIT.OK].map((status) => {
    process.exitCode = status;
    for (const heard of atExit) heard(status);
    return process.exitCode;
  });
  process.exitCode = before;
  expect(said.join("")).toMatch(/^coverlay: the answer could not be written: ENOSPC: no space left\n {2}The command goes on all the same/);
  expect(after).toEqual([EXIT.MOUNT, EXIT.FAILURE]);
});
