/** Questions to a person at a terminal. Lines that are typed ahead, or pasted, wait for their question; the end of the input is a no. */
import { createInterface } from "node:readline/promises";

export interface Terminal {
  /** The default is taken for an empty line; null: the input has ended. */
  readonly ask: (question: string, defaultAnswer: string) => Promise<string | null>;
  readonly close: () => void;
}

export function openTerminal(input: NodeJS.ReadableStream, output: NodeJS.WritableStream, isTerminal?: boolean): Terminal {
  const reader = createInterface({ input, output, ...(isTerminal === undefined ? {} : { terminal: isTerminal }) });
  const lines = reader[Symbol.asyncIterator]();
  let hasEnded = false;
  reader.once("close", () => (hasEnded = true));
  // While it reads, the terminal gives Ctrl-C as a character: it is the signal that it is elsewhere.
  reader.on("SIGINT", () => process.kill(process.pid, "SIGINT"));
  return {
    async ask(question, normal) {
      const words = `${question}${normal === "" ? "" : ` [${normal}]`}: `;
      reader.setPrompt(words);
      // After its end, which may come while lines still wait, prompt() would make the input flow again: the process would never end.
      if (hasEnded) output.write(words);
      else reader.prompt();
      const { value, done } = await lines.next();
      if (done === true) return null;
      const answer = value.trim();
      return answer === "" ? normal : answer;
    },
    close: () => reader.close(),
  };
}
