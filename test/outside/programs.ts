/**
 * Outside programs and what each must do: a script for bash, with the same directory of the volume through one, two or three mounts in D1, D2 and D3,
 * and a directory elsewhere in SCRATCH. It ends with 0 if all was right. On ext4 by itself, or at one node, the three are one.
 */

export interface OutsideProgram {
  readonly name: string;
  readonly what: string;
  /** Commands without which it is skipped. */
  readonly needs: readonly string[];
  /** "each": at the owner, and at another node. "nodes": on all at once, or one after the other. */
  readonly over: "each" | "nodes";
  readonly script: string;
}

/** A tree with hard links, symbolic links, ACLs, extended attributes, a hole, odd names. */
const TREE = `
mkdir -p "$SCRATCH/tree/sub/deep"
cd "$SCRATCH/tree"
for k in $(seq 40); do echo "file $k" > "sub/f$k"; done
ln sub/f1 sub/deep/hard
ln -s ../f2 sub/deep/soft
ln -s nowhere dangling
truncate -s 200000 hole; echo end >> hole
echo odd > "a name with  blanks and é"
setfacl -m u:1234:rw,g:2345:r sub/f3
setfacl -d -m u:1234:rwx sub/deep
setfattr -n user.note -v "some value" sub/f4
chmod 4711 sub/f5
chown 1234:2345 sub/f6
touch -d 2001-02-03T04:05:06 sub/f7
cd /
`;

export const outsidePrograms: readonly OutsideProgram[] = [
  {
    name: "fio",
    what: "random writes of several sizes by two jobs, verified when written, and again through another mount",
    needs: ["fio"],
    over: "nodes",
    script: `
cd "$SCRATCH" # Where it leaves files of its own.
job="--name=verify --size=16m --bsrange=4k-64k --rw=randwrite --verify=crc32c --verify_fatal=1 --ioengine=psync --numjobs=2 --fallocate=none --group_reporting"
fio --directory="$D1" $job --do_verify=1 --end_fsync=1
fio --directory="$D2" $job --verify_only=1
`,
  },
  {
    name: "dbench",
    what: "the load of a file server, two clients, 5 s",
    needs: ["dbench"],
    over: "each",
    script: `dbench -D "$D1" -t 5 2`,
  },
  {
    name: "stress-ng",
    what: "stressors of file systems, verified, one after the other",
    needs: ["stress-ng"],
    over: "each",
    script: `
for stressor in chmod chown dentry dir dirdeep fallocate fcntl filename flock fstat getdent hdd lease link open rename seek symlink touch utime xattr; do
  stress-ng --temp-path "$D1" --$stressor 1 --timeout 2s --hdd-bytes 4m --fallocate-bytes 4m --seek-size 4m --verify --oomable ||
    { echo "stressor $stressor failed"; exit 1; }
done
`,
  },
  {
    name: "postgresql",
    what: "initdb, pgbench; moved to another node, pgbench there; killed, and recovered on the next node",
    needs: ["setpriv", "ipcrm", "pg_config"],
    over: "nodes",
    script: `
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
as() { (cd / && setpriv --reuid postgres --regid postgres --init-groups -- "$@"); }
install -d -o postgres -m 700 "$D1/pg" "$SCRATCH/socket"
log="$SCRATCH/socket/log"
start() { as "$bin/pg_ctl" -D "$1/pg" -l "$log" -w -o "-k $SCRATCH/socket -h ''" start || { tail -5 "$log"; exit 1; }; }
bench() { as "$bin/pgbench" -n -h "$SCRATCH/socket" -c 2 "$@" postgres; }
ask() { as "$bin/psql" -h "$SCRATCH/socket" -Atc "$1" postgres; }
right() { test "$(ask 'select sum(abalance) from pgbench_accounts')" = "$(ask 'select coalesce(sum(delta), 0) from pgbench_history')"; }
stop() { as "$bin/pg_ctl" -D "$1/pg" -w -m fast stop; }
running=
trap 'test -z "$running" || stop "$running" || kill -9 "$(head -1 "$running/pg/postmaster.pid")"' EXIT
as "$bin/initdb" -D "$D1/pg" -A trust --no-instructions
start "$D1"; running=$D1
as "$bin/pgbench" -i -q -s 1 -h "$SCRATCH/socket" postgres
bench -T 3; right
stop "$D1"; running=
start "$D2"; running=$D2
right; bench -T 3; right
committed=$(ask 'select count(*) from pgbench_history')
pid=$(head -1 "$D2/pg/postmaster.pid")
segment=$(sed -n 7p "$D2/pg/postmaster.pid" | awk '{ print $2 }')
bench -T 60 > /dev/null 2>&1 & load=$!
for k in $(seq 100); do test "$(ask 'select count(*) from pgbench_history')" -le "$committed" || break; done
kill -9 "$pid"; running=
wait $load || true
while ipcs -m -i "$segment" 2> /dev/null | grep -q 'nattch=[1-9]'; do sleep 0.1; done
ipcrm -m "$segment" || true
# As on a machine that does not run it any more: its number may still be taken here, by what nobody has waited for.
rm -f "$D2/pg/postmaster.pid" "$SCRATCH"/socket/.s.*
start "$D3"; running=$D3
right
test "$(ask 'select count(*) from pgbench_history')" -gt "$committed"
ask 'create extension amcheck' && ask "select bt_index_check('pgbench_accounts_pkey')"
stop "$D3"; running=
`,
  },
  {
    name: "sqlite",
    what: "three programs insert into one data base, each on a node of its own",
    needs: ["sqlite3"],
    over: "nodes",
    script: `
sqlite3 "$D1/db" "create table t (who, k, unique (who, k))"
insert() { for k in $(seq 12); do sqlite3 -cmd ".timeout 60000" "$2/db" "insert into t values ($1, $k)"; done; }
insert 1 "$D1" & one=$!
insert 2 "$D2" & two=$!
insert 3 "$D3" & three=$!
wait $one; wait $two; wait $three
for d in "$D1" "$D2" "$D3"; do
  test "$(sqlite3 "$d/db" "select count(*) from t")" = 36
  test "$(sqlite3 "$d/db" "pragma integrity_check")" = ok
done
`,
  },
  {
    name: "git",
    what: "commits to one repository from two nodes, gc on one, fsck on both",
    needs: ["git"],
    over: "nodes",
    script: `
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_CONFIG_GLOBAL=/dev/null
git init -q "$D1/repo"
for k in $(seq 5); do
  for d in "$D1" "$D2"; do
    echo "$d $k" >> "$d/repo/file"
    git -C "$d/repo" add file
    git -C "$d/repo" commit -q -m "$k"
  done
done
git -C "$D1/repo" gc -q
for d in "$D1" "$D2"; do
  git -C "$d/repo" fsck --strict --full
  test "$(git -C "$d/repo" rev-list --count HEAD)" = 10
  test -z "$(git -C "$d/repo" status --porcelain)"
done
`,
  },
  {
    name: "rsync",
    what: "rsync -aHAX of a tree with links, ACLs and attributes; through another mount nothing differs",
    needs: ["rsync", "setfacl", "setfattr"],
    over: "nodes",
    script: `${TREE}
rsync -aHAX "$SCRATCH/tree/" "$D1/copy/"
left=$(rsync -aHAXnc --delete --itemize-changes "$SCRATCH/tree/" "$D2/copy/")
test -z "$left" || { echo "$left"; exit 1; }
test "$(stat -c %h "$D2/copy/sub/f1")" = 2
`,
  },
  {
    name: "tar",
    what: "tar with ACLs and attributes into the volume, and out of it through another mount",
    needs: ["tar", "setfacl", "setfattr", "getfacl", "getfattr"],
    over: "nodes",
    script: `${TREE}
tar -C "$SCRATCH" --xattrs --acls -cf "$D1/in.tar" tree
mkdir "$D1/out" "$SCRATCH/back"
tar -C "$D1/out" --xattrs --acls -xpf "$D2/in.tar"
tar -C "$D2/out" --xattrs --acls -cf "$D3/back.tar" tree
tar -C "$SCRATCH/back" --xattrs --acls -xpf "$D1/back.tar"
inOrder() { find . "$@" -print0 | sort -z; }
facts() { (cd "$1/tree" && find . -printf '%p %y %m %U %G %s %T@ %n %l\\n' | sed -E 's/^(\\S+ d .*) [0-9]+ (\\S+ [0-9]+ )$/\\1 \\2/' | sort && inOrder ! -type l | xargs -0 getfacl -n -p && inOrder | xargs -0 getfattr -h -d -m user && inOrder -type f | xargs -0 sha256sum); }
facts "$SCRATCH" | grep -v '^\\S* d ' > "$SCRATCH/wanted"
facts "$SCRATCH/back" | grep -v '^\\S* d ' > "$SCRATCH/found"
diff "$SCRATCH/wanted" "$SCRATCH/found"
`,
  },
  {
    name: "maildir",
    what: "deliveries from three nodes into one Maildir, while a reader takes them out",
    needs: ["python3"],
    over: "nodes",
    script: `
mkdir -p "$D1/mail/tmp" "$D1/mail/new" "$D1/mail/cur"
cat > "$SCRATCH/deliver.py" <<'PYTHON'
import os, sys
who, mail = sys.argv[1], sys.argv[2]
for k in range(40):
    name = "%s.%d" % (who, k)
    with open(os.path.join(mail, "tmp", name), "x") as file:
        file.write("message " + name + "\\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(os.path.join(mail, "tmp", name), os.path.join(mail, "new", name))
PYTHON
cat > "$SCRATCH/take.py" <<'PYTHON'
import os, sys
mail, seen = sys.argv[1], set()
while len(seen) < 120:
    for name in os.listdir(os.path.join(mail, "new")):
        taken = os.path.join(mail, "cur", name + ":2,S")
        os.rename(os.path.join(mail, "new", name), taken)
        assert open(taken).read() == "message " + name + "\\n", name
        assert name not in seen, name
        seen.add(name)
PYTHON
timeout 120 python3 "$SCRATCH/take.py" "$D2/mail" & reader=$!
python3 "$SCRATCH/deliver.py" a "$D1/mail" & one=$!
python3 "$SCRATCH/deliver.py" b "$D2/mail" & two=$!
python3 "$SCRATCH/deliver.py" c "$D3/mail" & three=$!
wait $one; wait $two; wait $three; wait $reader
test "$(ls "$D3/mail/cur" | wc -l)" = 120
test -z "$(ls "$D1/mail/new" "$D1/mail/tmp" | grep -v :)"
`,
  },
  {
    name: "ping_pong",
    what: "byte locks and data in turn on three nodes, 5 s",
    needs: ["ping_pong", "timeout"],
    over: "nodes",
    script: `
: > "$D1/ping"
run() { timeout 5 ping_pong -rw "$1/ping" 4 > "$SCRATCH/$2" 2>&1 || test $? = 124; }
run "$D1" one & one=$!
run "$D2" two & two=$!
run "$D3" three & three=$!
wait $one; wait $two; wait $three
if grep -iE 'fail|error' "$SCRATCH/one" "$SCRATCH/two" "$SCRATCH/three"; then exit 1; fi
grep -q 'data increment = 3' "$SCRATCH/one" || { tr '\\r' '\\n' < "$SCRATCH/one" | tail -3; exit 1; }
`,
  },
  {
    name: "overlayfs",
    what: "overlayfs over a directory of the volume: read, changed above, read below",
    needs: ["mount", "umount"],
    over: "each",
    script: `
mkdir -p "$D1/below/sub" "$SCRATCH/top"
mount -t tmpfs none "$SCRATCH/top"
trap 'umount "$SCRATCH/top/merged" || true; umount "$SCRATCH/top"' EXIT
mkdir "$SCRATCH/top/upper" "$SCRATCH/top/work" "$SCRATCH/top/merged"
echo below > "$D1/below/sub/file"
mount -t overlay overlay -o "lowerdir=$D1/below,upperdir=$SCRATCH/top/upper,workdir=$SCRATCH/top/work" "$SCRATCH/top/merged"
test "$(cat "$SCRATCH/top/merged/sub/file")" = below
echo above > "$SCRATCH/top/merged/sub/file"
test "$(cat "$SCRATCH/top/merged/sub/file")" = above
test "$(cat "$D1/below/sub/file")" = below
`,
  },
];
