/** What people run: git, tar, SQLite, a program built in place. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { python, shell } from "./child.ts";
import { type SoloMount, startSolo } from "./solo-mount.ts";

describe("programs on a mount", () => {
  let solo: SoloMount;

  beforeAll(async () => {
    solo = await startSolo({ entryValidity: true, metadataCalls: "inline" });
  });
  afterAll(async () => {
    await solo?.stop();
  });

  it("git: init, commit, status, branch, checkout, gc, fsck", async () => {
    const output = await shell(
      `
git init -q repo; cd repo
git config user.email a@example.org; git config user.name A
for i in $(seq 50); do mkdir -p dir$i; echo $i > dir$i/file; done
git add .; git commit -qm one
git checkout -qb other; rm -r dir1; echo new > dir2/file; git commit -qam two
git checkout -q -; git status --porcelain
git gc -q; git fsck --full 2>&1; git log --oneline | wc -l
`,
      solo.mountpoint,
    );
    expect(output.split("\n").at(-1)?.trim()).toBe("1");
    expect(output).not.toMatch(/error|dirty|missing/);
  });

  it("tar keeps what it packs", async () => {
    const output = await shell(
      `
mkdir tree; for i in $(seq 200); do head -c $((i * 37)) /dev/urandom > tree/$i; done
ln -s 5 tree/link; ln tree/6 tree/hard; chmod 4711 tree/7
tar cf tree.tar tree; mkdir out; tar xf tree.tar -C out
diff -r tree out/tree; test "$(readlink out/tree/link)" = 5; test "$(stat -c %h out/tree/hard)" = 2; test "$(stat -c %a out/tree/7)" = 4711
cp -a tree again; diff -r tree again
`,
      solo.mountpoint,
    );
    expect(output).toBe("");
  });

  it("SQLite with a rollback journal and in WAL mode", async () => {
    const output = await python(
      `
import sqlite3
for mode in ('delete', 'wal'):
  db = sqlite3.connect(mode + '.db'); db.execute('pragma journal_mode=' + mode); db.execute('create table t (i integer primary key, v text)')
  for i in range(50):
    with db: db.execute('insert into t (v) values (?)', ('x' * 1000,))
  db.close(); db = sqlite3.connect(mode + '.db')
  assert db.execute('select count(*) from t').fetchone()[0] == 50
  assert db.execute('pragma integrity_check').fetchone()[0] == 'ok'
  db.close()
`,
      solo.mountpoint,
    );
    expect(output).toBe("");
  });

  it("a script is executed from it, and many processes work in one directory", async () => {
    const output = await shell(
      `
printf '#!/bin/sh\\necho ran\\n' > script; chmod +x script; ./script
mkdir busy; for p in 1 2 3 4; do (for i in $(seq 100); do echo $p > busy/$p.$i; mv busy/$p.$i busy/$p.$i.x; cat busy/$p.$i.x > /dev/null; done) & done; wait
ls busy | wc -l
for p in 1 2 3 4; do (for i in $(seq 200); do echo line >> log; done) & done; wait
wc -l < log
`,
      solo.mountpoint,
    );
    expect(output.split("\n")).toEqual(["ran", "400", "800"]);
    expect(solo.session.counters.bugs).toBe(0);
    expect(solo.errors).toEqual([]);
  });
});
