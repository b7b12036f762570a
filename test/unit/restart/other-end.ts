/** The other end of the channel between the two processes of a mount. */
import { Duplex } from "node:stream";

export class OtherEnd extends Duplex {
  /** What came here. */
  readonly said: { readonly say: string; readonly state?: string }[] = [];
  override _read(): void {}
  override _write(chunk: Buffer, _: string, done: () => void): void {
    for (const line of chunk.toString().split("\n")) if (line !== "") this.said.push(JSON.parse(line) as { say: string });
    done();
  }
  say(one: object): void {
    this.push(`${JSON.stringify(one)}\n`);
  }
}
