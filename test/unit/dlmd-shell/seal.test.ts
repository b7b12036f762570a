import { expect, test } from "vitest";
import { REPLAY_WINDOW, SEAL_BYTES, createOpener, createSealer, overlaySecretOf } from "../../../dlmd/driver/seal.ts";

const key = Buffer.alloc(32, 7);
const salt = Buffer.alloc(16, 3);
const body = Buffer.from("heartbeat");

function pair(): { sealer: ReturnType<typeof createSealer>; opener: ReturnType<typeof createOpener> } {
  const opener = createOpener(key, "lab", 2, [1, 2, 3]);
  opener.confirm(1, salt);
  return { sealer: createSealer(key, "lab", 1, salt), opener };
}

test("golden vector: fixed key, salt and counter", () => {
  const { sealer } = pair();
  sealer.seal(body);
  expect(sealer.seal(body).toString("hex")).toBe(
    "43564447010001000303030303030303030303030303030302000000000000008dd58ffdb3ba51f3636bb20cdf089c029145ffb0fa2d40d2a2",
  );
  expect(overlaySecretOf(key, "lab").toString("hex")).toBe("cb24e76c1df5b59aef4c7387ba31e1f7c4b80e588a1fed8facea2e008a095abd");
});

test("what was sealed opens, once", () => {
  const { sealer, opener } = pair();
  const datagram = sealer.seal(body);
  expect(datagram).toHaveLength(body.length + SEAL_BYTES);
  const opened = opener.open(datagram);
  expect(opened.kind === "body" && Buffer.from(opened.body).toString()).toBe("heartbeat");
  expect(opener.open(datagram)).toEqual({ kind: "dropped", reason: "replayed" });
});

test("out of order inside the window, each once; older ones are replays", () => {
  const { sealer, opener } = pair();
  const datagrams = Array.from({ length: REPLAY_WINDOW + 2 }, () => sealer.seal(body));
  const open = (at: number): string => {
    const opened = opener.open(datagrams[at] as Buffer);
    return opened.kind === "dropped" ? opened.reason : opened.kind;
  };
  expect([open(5), open(3), open(5), open(3), open(4)]).toEqual(["body", "body", "replayed", "replayed", "body"]);
  expect([open(REPLAY_WINDOW + 1), open(1), open(2), open(2), open(5)]).toEqual(["body", "replayed", "body", "replayed", "replayed"]);
});

test("a datagram with any bit changed is not heard", () => {
  const datagram = pair().sealer.seal(body);
  for (let bit = 0; bit < datagram.length * 8; bit++) {
    const damaged = Buffer.from(datagram);
    damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
    expect(pair().opener.open(damaged).kind).not.toBe("body");
  }
  for (let bytes = 0; bytes < datagram.length; bytes++) expect(pair().opener.open(datagram.subarray(0, bytes)).kind).toBe("dropped");
});

test("a forged counter does not move the window", () => {
  const { sealer, opener } = pair();
  const real = sealer.seal(body);
  const forged = Buffer.from(real);
  forged.writeBigUInt64LE(1_000_000n, 24);
  expect(opener.open(forged)).toEqual({ kind: "dropped", reason: "damaged" });
  expect(opener.open(real).kind).toBe("body");
});

test("foreign, own and unknown", () => {
  const { opener } = pair();
  expect(opener.open(Buffer.alloc(100, 1))).toEqual({ kind: "dropped", reason: "foreign" });
  expect(opener.open(createSealer(key, "lab", 2, salt).seal(body))).toEqual({ kind: "own" });
  expect(opener.open(createSealer(key, "lab", 4, salt).seal(body))).toEqual({ kind: "dropped", reason: "unknown-node" });
});

test("another key or another cluster under the confirmed salt", () => {
  const { opener } = pair();
  expect(opener.open(createSealer(Buffer.alloc(32, 8), "lab", 1, salt).seal(body))).toEqual({ kind: "dropped", reason: "damaged" });
  expect(opener.open(createSealer(key, "lab2", 1, salt).seal(body))).toEqual({ kind: "dropped", reason: "damaged" });
});

test("a salt is heard only while it is the confirmed one, so nothing of an earlier incarnation is", () => {
  const { sealer, opener } = pair();
  const early = sealer.seal(body);
  const restarted = createSealer(key, "lab", 1, Buffer.alloc(16, 4));
  expect(opener.open(restarted.seal(body))).toEqual({ kind: "unconfirmed", nodeid: 1 });
  opener.confirm(1, restarted.salt);
  expect(opener.open(restarted.seal(body)).kind).toBe("body");
  expect(opener.open(early)).toEqual({ kind: "unconfirmed", nodeid: 1 });
});

test("confirming the same salt again keeps the window", () => {
  const { sealer, opener } = pair();
  const datagram = sealer.seal(body);
  opener.open(datagram);
  opener.confirm(1, Buffer.from(salt));
  expect(opener.open(datagram)).toEqual({ kind: "dropped", reason: "replayed" });
});
