/**
 * A node in a container (examples/container): its entry script in namespaces of its own, with one folder that it shares with what plays the machine. Alone,
 * because its namespaces copy the mounts of all labs.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { until } from "../actor.ts";
import { type DebianRoot, debianTar, startDebianRoot } from "./debian-root.ts";

const root = path.resolve(import.meta.dirname, "../../..");
const example = path.join(root, "examples/container");

const config = `cluster: demo
version: 1
keyFile: cluster.key
multicast: { group: none }
nodes:
  - { nodeid: 1, name: node1, address: 127.0.0.1 }
`;

/** What a container engine does, but for the image: mounts, processes and IPC of its own; /shared alone is shared with the machine. */
const CONTAINER =
  "unshare --mount --propagation unchanged --pid --fork --mount-proc --ipc env COVERLAY_DEVICE=$(cat /root/device) COVERLAY_MOUNT_POINT=/shared/data sh /root/entry";

describe("a node in a container", () => {
  const output = mkdtempSync(path.join(os.tmpdir(), "coverlay-container-"));
  let tar = "";
  let machine: DebianRoot;

  beforeAll(async () => {
    const words = [path.join(root, "dist/packaging/build.js"), "--quick", "--deb-version=0.1.0", `--output=${output}`];
    const { status, stderr } = spawnSync(process.execPath, words, { encoding: "utf8", cwd: root });
    if (status !== 0) throw new Error(`the package was not built: ${stderr}`);
    tar = debianTar("bookworm");
    machine = await startDebianRoot(tar);
    const arch = execFileSync("dpkg", ["--print-architecture"], { encoding: "utf8" }).trim();
    machine.bring(path.join(output, `coverlay_0.1.0_${arch}.deb`));
    machine.bring(path.join(example, "entry"));
    machine.must(`dpkg -i /root/coverlay_0.1.0_${arch}.deb
      coverlay keygen /etc/coverlay/cluster.key
      truncate -s 64M /root/image && mkfs.ext4 -q -F /root/image
      for n in $(seq 0 63); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done
      [ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
      losetup --find --show /root/image >/root/device`);
    // Detached when its last user has gone, also if all of this is killed.
    machine.must(`device=$(cat /root/device); setsid sh -c "exec 9<$device; losetup -d $device; exec sleep infinity" </dev/null >/dev/null 2>&1 &
      while ! losetup -n -O AUTOCLEAR $(cat /root/device) | grep -q 1; do :; done`);
    const lines = machine.must("coverlay volume enable $(cat /root/device) --cluster demo --name data");
    const uuid = /uuid: ([0-9a-f-]{36})/.exec(lines)?.[1] ?? "";
    machine.must(`cat >/etc/coverlay/cluster.yaml <<'EOF'\n${config}volumes:\n  - { name: data, uuid: ${uuid}, lower: device }\nEOF`);
    machine.must("mkdir -p /shared && mount --bind /shared /shared && mount --make-rshared /shared");
  }, 300_000);
  afterAll(async () => {
    await machine?.end();
    rmSync(output, { recursive: true, force: true });
    if (tar !== "") rmSync(path.dirname(tar), { recursive: true, force: true });
  });

  const start = (): void =>
    void machine.must(`rm -f /root/status; setsid sh -c '${CONTAINER}; echo $? >/root/status' </dev/null >/root/out 2>/root/err & :`);
  /** Of the first process there, as the machine counts. */
  const entryPid = (): string =>
    machine
      .must(
        `for p in /proc/[0-9]*; do if [ "$(tr '\\0' ' ' <$p/cmdline 2>/dev/null)" = "sh /root/entry " ]; then echo \${p#/proc/}; fi; done`,
      )
      .split("\n")[0] ?? "";
  const ended = async (): Promise<string> => {
    await until("the container has ended", () => machine.run("test -s /root/status").status === 0);
    return machine.must("cat /root/status");
  };
  const words = (): string => machine.run("cat /root/out /root/err").stdout;

  it("shows its mount to the machine, and SIGTERM leaves no mount and no process", async () => {
    start();
    await until("it is mounted", () => machine.run("grep -q 'is mounted at' /root/out").status === 0, words);
    expect(machine.must("findmnt --noheadings --output FSTYPE /shared/data")).toBe("fuse.clustered\n");
    // What is written inside is seen outside, and the other way round.
    const inside = (script: string): string => machine.must(`nsenter -t ${entryPid()} --mount --pid --root sh -c '${script}'`);
    inside("echo inside >/shared/data/file");
    expect(machine.must("cat /shared/data/file; echo outside >/shared/data/file")).toBe("inside\n");
    expect(inside("cat /shared/data/file")).toBe("outside\n");

    machine.must(`kill -TERM ${entryPid()}`);
    expect([await ended(), words()]).toEqual(["0\n", expect.any(String)]);
    expect(machine.run("findmnt /shared/data").status).toBe(1);
    expect(machine.run("grep -lz '[o]verlay/main.js\\|[d]lmd/main.js' /proc/[0-9]*/cmdline").stdout).toBe("");
    expect(machine.must("coverlay volume show $(cat /root/device)")).toContain("released by node 1");
    expect(machine.must("ls /shared/data")).toBe("");
  });

  it("a mount that is refused ends it with that status", async () => {
    machine.must("mv /root/device /root/kept && echo /dev/not-there >/root/device");
    start();
    expect(await ended()).toBe("32\n");
    machine.must("mv /root/kept /root/device");
    expect(words()).toContain("/dev/not-there");
    expect(machine.run("grep -lz '[d]lmd/main.js' /proc/[0-9]*/cmdline").stdout).toBe("");
  });
});

it("the example for Kubernetes is what the README says that it needs", () => {
  const text = readFileSync(path.join(example, "daemonset.yaml"), "utf8");
  expect(parseAllDocuments(text)).toHaveLength(1);
  const { spec } = (parse(text) as { spec: { template: { spec: Record<string, unknown> } } }).spec.template;
  expect(spec).toMatchObject({
    hostNetwork: true,
    containers: [
      {
        securityContext: { privileged: true },
        volumeMounts: expect.arrayContaining([{ name: "shared", mountPath: "/shared", mountPropagation: "Bidirectional" }]),
      },
    ],
  });
});
