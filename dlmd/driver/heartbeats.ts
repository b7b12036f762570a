/** The beater (membership/beater.ts) with a timer. */
import { Beater, type BeatContent, type HeardBeat } from "../membership/beater.ts";
import type { Heartbeat } from "../wire/datagram.ts";
import type { Member } from "../wire/view-id.ts";

export interface HeartbeatsOptions {
  readonly self: Member;
  readonly timeoutMs: number;
  readonly nowMs: () => number;
  readonly send: (message: Heartbeat) => void;
  readonly heard: (beat: HeardBeat) => void;
}

export interface Heartbeats {
  tell(content: BeatContent | null, now: boolean): void;
  receive(message: Heartbeat): void;
  close(): void;
}

export function startHeartbeats({ self, timeoutMs, nowMs, send, heard }: HeartbeatsOptions): Heartbeats {
  const beater = new Beater(self, timeoutMs, nowMs());
  let progress = 0;
  let timer: NodeJS.Timeout | null = null;
  const run = (): void => {
    const message = beater.beat(nowMs(), progress++);
    if (message !== null) send(message);
    if (timer !== null) clearTimeout(timer);
    timer = setTimeout(run, Math.max(0, Math.ceil(beater.nextMs - nowMs())));
  };
  run();
  return {
    tell(content, now) {
      beater.tell(content, now);
      if (now) run();
    },
    receive(message) {
      const beat = beater.receive(message, nowMs());
      if (beat !== null) heard(beat);
    },
    close() {
      if (timer !== null) clearTimeout(timer);
    },
  };
}
