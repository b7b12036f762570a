import { EventEmitter } from "node:events";
import { describe, expect, it, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { NotBuilt } from "../../../native/index.ts";
import { describeError, outliveReaders, printJson, table } from "../../../overlay/cli/output.ts";

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

it("a reader that goes away ends no command, and changes no exit status; another error of an output counts", () => {
  const before = process.exitCode;
  const exit = vi.spyOn(process, "exit").mockReturnValue(undefined as never);
  const streams = [new EventEmitter(), new EventEmitter()];
  outliveReaders(streams);
  for (const stream of streams) {
    stream.emit("error", Object.assign(new Error("write EPIPE"), { code: "EPIPE" }));
    expect(() => stream.emit("error", Object.assign(new Error("ENOSPC"), { code: "ENOSPC" }))).toThrow("ENOSPC");
  }
  expect([exit.mock.calls.length, process.exitCode]).toEqual([0, before]);
  vi.restoreAllMocks();
});
