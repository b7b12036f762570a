/**
 * The Debian package: what is in it, and its life on a clean Debian: installed, used, upgraded while a volume is mounted, removed and purged. Alone,
 * because its namespaces copy the mounts of all labs.
 */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../actor.ts";
import { type DebianRoot, debianTar, isThere, startDebianRoot } from "./debian-root.ts";

const root = path.resolve(import.meta.dirname, "../../..");
const output = mkdtempSync(path.join(os.tmpdir(), "coverlay-packages-"));
const arch = execFileSync("dpkg", ["--print-architecture"], { encoding: "utf8" }).trim();

function build(version: string, into: string = output, ...more: string[]): string {
  const words = [path.join(root, "dist/packaging/build.js"), "--quick", `--deb-version=${version}`, `--output=${into}`, ...more];
  const { status, stderr } = spawnSync(process.execPath, words, { encoding: "utf8", cwd: root });
  if (status !== 0) throw new Error(`the package was not built: ${stderr}`);
  return path.join(into, `coverlay_${version}_${arch}.deb`);
}

function field(file: string, name: string): string {
  return execFileSync("dpkg-deb", ["--field", file, name], { encoding: "utf8" }).trim();
}

/** Paths in the package, without folders; "MODE OWNER PATH". */
function contents(file: string): string[] {
  return execFileSync("dpkg-deb", ["--contents", file], { encoding: "utf8", maxBuffer: 2 ** 24 })
    .split("\n")
    .filter((line) => line.startsWith("-"))
    .map((line) => line.split(/\s+/))
    .map(([mode = "", owner = "", , , , ...name]) => `${mode} ${owner} ${name.join(" ").replace(/^\./, "")}`);
}

let first = "";
let second = "";

beforeAll(() => {
  first = build("0.1.0");
  second = build("0.1.0+next");
}, 300_000);
afterAll(() => rmSync(output, { recursive: true, force: true }));

describe("the package", () => {
  test("has what a node needs, root's, and nothing of the tests", () => {
    const all = contents(first);
    const paths = all.map((line) => line.split(" ")[2] ?? "");
    for (const wanted of [
      "/usr/sbin/coverlay",
      "/usr/sbin/dlmd",
      "/usr/sbin/fence_pacemaker",
      "/usr/sbin/mount.clustered",
      "/usr/sbin/mount.fuse.clustered",
      "/usr/sbin/umount.fuse.clustered",
      "/usr/lib/ocf/resource.d/coverlay/volume",
      "/usr/lib/coverlay/bin/node",
      "/usr/lib/coverlay/native/build/Release/coverlay-keeper",
    ])
      expect(all).toContain(`-rwxr-xr-x root/root ${wanted}`);
    for (const wanted of [
      "/usr/lib/coverlay/native/build/Release/coverlay.node",
      "/usr/lib/coverlay/overlay/ui/page/index.html",
      "/usr/lib/systemd/system/dlmd.service",
      "/etc/logrotate.d/coverlay",
      "/etc/needrestart/conf.d/coverlay.conf",
      "/usr/share/doc/coverlay/copyright",
      "/usr/share/doc/coverlay/examples/cluster.yaml",
      "/usr/share/doc/coverlay/LICENSE.nodejs.gz",
    ])
      expect(all).toContain(`-rw-r--r-- root/root ${wanted}`);
    expect(all.filter((line) => !line.includes(" root/root "))).toEqual([]);
    // Merged /usr: nothing is shipped in /sbin, /bin or /lib, which are links on Debian 12 and 13.
    expect(paths.filter((file) => !/^\/(usr|etc)\//.test(file))).toEqual([]);
    expect(
      paths.filter((file) => /dist\/(test|packaging)\/|node_modules\/(vitest|typescript|node-gyp|fast-check)\/|\.ts$/.test(file)),
    ).toEqual(paths.filter((file) => /dist\/dlmd\/.*\.d\.ts$|examples\/.*\.ts$/.test(file)));
  });

  test("names the licence of each package that is carried", () => {
    const text = execFileSync("sh", ["-c", `dpkg-deb --fsys-tarfile ${first} | tar -xO ./usr/share/doc/coverlay/copyright`], {
      encoding: "utf8",
    });
    const carried = new Set(
      contents(first).flatMap((line) => / (\/usr\/lib\/coverlay\/node_modules\/.*)\/package\.json$/.exec(line)?.[1] ?? []),
    );
    // Some have package.json files further below.
    const named = [...carried].filter((folder) => text.includes(`${folder}: `));
    expect(named.length).toBeGreaterThan(30);
    expect([...carried].filter((folder) => !named.some((one) => folder.startsWith(one)))).toEqual([]);
    expect(text).toContain("Redistribution and use in source and binary forms");
  });

  test("is the same when it is built again, with another umask, and beside what was compiled from a file that is gone", () => {
    const again = mkdtempSync(path.join(output, "again-"));
    const gone = path.join(root, `dist/overlay/gone-${process.pid}.js`);
    const umask = process.umask(0o077);
    try {
      writeFileSync(gone, "");
      expect(readFileSync(build("0.1.0", again)).equals(readFileSync(first))).toBe(true);
    } finally {
      process.umask(umask);
      rmSync(gone, { force: true });
    }
    const control = execFileSync("sh", ["-c", `dpkg-deb --ctrl-tarfile ${first} | tar -tv`], { encoding: "utf8" });
    const modes = control.split("\n").flatMap((line) => /^(\S+) .* \.\/(\w+)$/.exec(line)?.slice(1).join(" ") ?? []);
    const [plain, script] = [(name: string) => `-rw-r--r-- ${name}`, (name: string) => `-rwxr-xr-x ${name}`];
    expect(modes.toSorted()).toEqual([...["conffiles", "control", "md5sums"].map(plain), ...["postinst", "postrm", "prerm"].map(script)]);
  });

  test("depends on nodejs instead, where that is wanted", () => {
    const file = build("0.1.0+system", output, "--node=system");
    expect(field(file, "Depends")).toMatch(/\bnodejs \(>= 20\.19\)/);
    expect(contents(file).filter((line) => line.endsWith("/bin/node"))).toEqual([]);
    expect(field(first, "Depends")).not.toContain("nodejs");
    expect(field(first, "Depends")).toMatch(/\blibc6 \(>= /);
  });

  test("has no error that lintian finds", () => {
    // It leaves files behind in its folder for such.
    const env = { ...process.env, TMPDIR: output };
    const { stdout, stderr } = spawnSync("lintian", ["--fail-on", "error", first], { encoding: "utf8", env });
    expect([...stdout.split("\n"), ...stderr.split("\n")].filter((line) => line.startsWith("E:"))).toEqual([]);
    expect(stdout).toContain("W: ");
  });
});

const config = `cluster: demo
version: 1
keyFile: cluster.key
multicast: { group: none }
peerPort: 7701
engine: builtin
timeoutMs: 3000
nodes:
  - { nodeid: 1, name: node1, address: 127.0.0.1 }
`;

/** All files there that dpkg itself does not keep. */
const LIST =
  "find / -xdev ! -path '/dev/*' ! -path '/var/lib/dpkg*' ! -path '/var/log/*' ! -path '/root*' ! -path '/tmp*' ! -path '/var/cache/*' | sort";

describe.each(["bookworm", "trixie"])("on a clean Debian: %s", (suite) => {
  let tar = "";
  let debian: DebianRoot;
  let before = "";

  beforeAll(async () => {
    tar = debianTar(suite);
    debian = await startDebianRoot(tar);
    debian.bring(first);
    debian.bring(second);
    before = debian.must(LIST);
  }, 300_000);
  afterAll(async () => {
    await debian?.end();
    if (tar !== "") rmSync(path.dirname(tar), { recursive: true, force: true });
  });

  test("is installed, and starts nothing", () => {
    const said = debian.must(`dpkg -i /root/coverlay_0.1.0_${arch}.deb`);
    expect(said).not.toContain("runs version");
    expect(debian.must("coverlay --version")).toBe("0.1.0\n");
    expect(debian.must("dlmd --help")).toContain("The lock manager daemon of a node");
    expect(debian.must("stat -c %a /etc/coverlay")).toBe("700\n");
    expect(debian.must("ls /etc/coverlay; ls /etc/systemd/system/*.wants 2>/dev/null | grep dlmd || true")).toBe("");
    expect(debian.run("pgrep -x node || ls /proc/*/exe -l 2>/dev/null | grep coverlay").stdout).toBe("");
    expect(debian.must("dpkg --verify coverlay")).toBe("");
    // As needrestart reads it: Perl, with a regular expression for each service.
    const judged = `our %nrconf = (override_rc => {}); do "/etc/needrestart/conf.d/coverlay.conf" // die "$@$!";
      for my $unit ("dlmd.service", "ssh.service") { print join(" ", $unit, map { $nrconf{override_rc}{$_} } grep { $unit =~ /$_/ } keys %{$nrconf{override_rc}}), "\n" }`;
    expect(debian.must(`perl -e '${judged}'`)).toBe("dlmd.service 0\nssh.service\n");
  });

  test("mount(8) finds the helper, which refuses with words and status 32", () => {
    const { status, stderr } = debian.run("mount -t clustered /srv /media");
    expect([status, stderr]).toEqual([32, expect.stringContaining("coverlay volume enable")]);
    expect(debian.run("mount -t clustered /dev/not-there /media").status).toBe(32);
    expect(debian.run("mount -t clustered -o nonsense /srv /media").status).toBe(1);
    expect(debian.must("coverlay install-mount-helper")).toBe("the package coverlay has them in /sbin already\n");
  });

  test("a cluster of one node is brought up, and a volume mounted", async () => {
    debian.must(`coverlay keygen /etc/coverlay/cluster.key
      truncate -s 64M /root/image && mkfs.ext4 -q -F /root/image
      for n in $(seq 0 63); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done
      [ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
      losetup --find --show /root/image >/root/device`);
    // Detached when its last user has gone, also if all of this is killed: the program that has it open lives no longer than this root.
    debian.must(`device=$(cat /root/device); setsid sh -c "exec 9<$device; losetup -d $device; exec sleep infinity" </dev/null >/dev/null 2>&1 &
      while ! losetup -n -O AUTOCLEAR $(cat /root/device) | grep -q 1; do :; done`);
    const lines = debian.must("coverlay volume enable $(cat /root/device) --cluster demo --name data");
    const uuid = /uuid: ([0-9a-f-]{36})/.exec(lines)?.[1] ?? "";
    debian.must(`cat >/etc/coverlay/cluster.yaml <<'EOF'\n${config}volumes:\n  - { name: data, uuid: ${uuid}, lower: device }\nEOF`);
    debian.must("setsid dlmd </dev/null >/root/dlmd.out 2>/root/dlmd.log &");
    await until("dlmd is ready", () => debian.run("grep -q ready /root/dlmd.out").status === 0);
    await until("the node has the quorum", () => debian.run("coverlay nodes --json | grep -q member").status === 0);
    debian.must("mount -t clustered -o wait $(cat /root/device) /media && echo hello >/media/file");
    expect(debian.must("coverlay status")).toContain("/media");
  });

  test("an upgrade stops nothing, and says what runs the version before", () => {
    const said = debian.must(`dpkg -i /root/coverlay_0.1.0+next_${arch}.deb`);
    expect(said).toMatch(/dlmd \(process \d+\) runs version 0\.1\.0 until it is restarted/);
    expect(said).toContain("so does the mount at /media");
    expect(debian.must("cat /media/file; coverlay status")).toMatch(/^hello\n/);
    expect(debian.must("grep debianVersion /usr/lib/coverlay/package.json")).toContain("0.1.0+next");
  });

  /** What dpkg says, on one line, and that it refuses. */
  const refusal = (words: string): string => {
    const { status, stderr } = debian.run(`dpkg ${words} coverlay`);
    expect(status).toBe(1);
    return stderr.split("\n").find((line) => line.startsWith("coverlay: not ")) ?? stderr;
  };

  test("a removal is refused while a volume is mounted or in use", async () => {
    expect(refusal("-r")).toContain("not removed: /media is mounted");
    expect(debian.must("cat /media/file")).toBe("hello\n");
    // Not in /proc/mounts any more, and its overlay serves who has a file open.
    debian.must(
      "setsid sh -c 'exec 9</media/file; echo $$ >/root/holder; exec sleep infinity' >/dev/null 2>&1 & until test -s /root/holder; do :; done",
    );
    debian.must("umount -i -l /media");
    expect(refusal("-r")).toMatch(/not removed: the overlay of \/media, process \d+, still uses its volume/);
    debian.must("kill $(cat /root/holder)");
    await until("the overlay has ended", () => debian.run("ls /run/coverlay-mounts/*.json").status !== 0);
  });

  test("a removal is refused while dlmd runs, or a mount waits for it", async () => {
    expect(refusal("-r")).toMatch(/not removed: dlmd runs \(process \d+\)/);
    debian.must("mv /run/coverlay/dlmd.pid /root/dlmd.pid");
    expect(refusal("-r")).toContain("not removed: dlmd runs (a process that listens on /run/coverlay/dlmd.sock)");
    debian.must("kill $(cat /root/dlmd.pid)");
    await until("dlmd has ended", () => debian.run("grep dlmd.sock /proc/net/unix").status === 1);
    debian.must("setsid mount -t clustered -o wait $(cat /root/device) /media </dev/null >/dev/null 2>/root/waiting &");
    await until("the mount waits", () => debian.run("grep waiting /root/waiting").status === 0);
    const waits = refusal("-r");
    expect(waits).toContain("waits for a volume. End it first");
    debian.must(`kill ${/kill (\d+)/.exec(waits)?.[1]}`);
    await until("the mount has ended", () => debian.run("grep -lz '[o]verlay/main.js' /proc/[0-9]*/cmdline").status === 1);
  });

  test("what is stale holds up no removal; a purge is refused while a dlmd of another installation runs", async () => {
    debian.must("coverlay install-mount-helper --ext4 && test -e /sbin/mount.ext4");
    debian.must("cp -a /usr/lib/coverlay /root/other");
    // Numbers that another process has by now, and the record of an overlay that was killed.
    debian.must(`echo 1 >/run/coverlay/dlmd.pid; mkdir -p /run/coverlay-mounts
      echo '{"pid":1,"startTime":"0","source":"/dev/x","mountPoint":"/media","runDir":"/run/coverlay"}' >/run/coverlay-mounts/0:9999.json`);
    debian.must("dpkg -r coverlay");
    expect(debian.must("ls /etc/coverlay /etc/logrotate.d/coverlay")).toBe(
      "/etc/logrotate.d/coverlay\n\n/etc/coverlay:\ncluster.key\ncluster.yaml\n",
    );
    expect(debian.run("test -e /usr/lib/coverlay || test -e /sbin/mount.ext4").status).toBe(1);
    debian.must("setsid /root/other/bin/node /root/other/dist/dlmd/main.js </dev/null >/root/other.out 2>&1 &");
    await until("the other dlmd is ready", () => debian.run("grep -q ready /root/other.out").status === 0);
    expect(refusal("-P")).toMatch(/not purged: dlmd runs \(process \d+\)/);
    debian.must("test -s /etc/coverlay/cluster.key && test -s /etc/coverlay/cluster.yaml && ls /var/lib/coverlay/state.json");
    debian.must("kill $(cat /run/coverlay/dlmd.pid)");
    await until("it has ended", () => debian.run("test -e /run/coverlay/dlmd.pid").status === 1);
  });

  test("a purge leaves nothing", () => {
    debian.must("touch /etc/coverlay/site");
    expect(debian.must("dpkg -P coverlay")).toContain("left in /etc/coverlay, for the package did not make it: site");
    debian.must("rm -r /etc/coverlay");
    expect(debian.must(LIST)).toBe(before);
  });
});

test("a test that is killed leaves nothing", async () => {
  const program = JSON.stringify(path.join(root, "dist/test/e2e/package/debian-root.js"));
  const script = `import { startDebianRoot } from ${program};
    const { pid } = await startDebianRoot(process.argv[1]);
    console.log(pid);
    setInterval(() => {}, 1000);`;
  const { tmp, tar } = emptyTar();
  try {
    const child = spawn(process.execPath, ["--input-type=module", "-e", script, tar], { stdio: ["ignore", "pipe", "inherit"] });
    const [bytes] = (await once(child.stdout, "data")) as [Buffer];
    const pid = Number(bytes.toString());
    expect(isThere(pid)).toBe(true);
    child.kill("SIGKILL");
    await until("its processes have ended", () => !isThere(pid));
    expect(existsSync("/mnt/proc/self")).toBe(false);
  } finally {
    rmSync(tmp, { recursive: true, force: true });
  }
});

/** A root with the folders that are mounted over, and no program. */
function emptyTar(): { tmp: string; tar: string } {
  const tmp = mkdtempSync(path.join(output, "empty-"));
  const tar = path.join(tmp, "root.tar");
  execFileSync("sh", ["-c", `cd ${tmp} && mkdir -p root/proc root/sys root/run root/dev && tar -C root -cf ${tar} .`]);
  return { tmp, tar };
}
