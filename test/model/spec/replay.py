"""Makes the calls of a sequence that was printed, in a directory of one or more mounts, and says where the answers differ from those that
are expected:

    python3 replay.py MOUNT [MOUNT2 ...] <<'END'

The exit status is 1 if something differs. On another file system the same lines show whether it is the expectation that is wrong. The
directory stays for a look at it."""
import json, os, subprocess, sys

mounts = sys.argv[1:]
if not mounts: sys.exit(__doc__)
name = "replay-%d" % os.getpid()
executor = os.path.join(os.path.dirname(os.path.abspath(__file__)), "executor.py")
children = [subprocess.Popen([sys.executable, "-I", "-u", executor], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in mounts]
TIMES = ("atime", "mtime", "ctime")
began, ended, numbers, differences = [], [], {}, 0


def ask(at, order):
    children[at].stdin.write(json.dumps(order) + "\n")
    children[at].stdin.flush()
    return json.loads(children[at].stdout.readline())


def wrong_time(field, expected, found, later):
    if expected is None: return None
    if "exactNs" in expected: return None if expected["exactNs"] == found else "%s %s expected, found %s" % (field, expected["exactNs"], found)
    call = expected["call"]
    if call >= len(began): return None
    if int(found) < began[call]: return "%s is before call %d" % (field, call + 1)
    if int(found) > ended[call] and not later: return "%s is after call %d" % (field, call + 1)
    return None


def wrong_stat(expected, found, later, was_read=False):
    wrong = []
    for field, value in expected.items():
        if field == "atime" and was_read: continue
        if field in TIMES: wrong.append(wrong_time(field, value, found[field], later))
        elif field == "ino":
            known = numbers.setdefault(value, found["ino"])
            if known != found["ino"]: wrong.append("the inode number was %d, and is %d" % (known, found["ino"]))
        elif value != found[field]: wrong.append("%s %s expected, found %s" % (field, value, found[field]))
    return "; ".join(one for one in wrong if one is not None) or None


def listed(entry):
    kind, _, rest = entry.partition(" ")
    return (kind if kind in ("file", "directory", "symlink") else "other") + " " + rest


def wrong_answer(op, expected, answer, later):
    found = answer.get("errno", answer.get("value"))
    shown = json.dumps(found)[:600]
    if "errno" in expected: return None if answer.get("errno") == expected["errno"] else "%s expected, found %s" % (expected["errno"], shown)
    value = expected.get("value")
    if op == "seek_data":
        if answer.get("errno") == "ENXIO" and value["most"] is None: return None
        fits = "errno" not in answer and found >= value["least"] and (value["most"] is None or found <= value["most"])
        return None if fits else "%s expected, found %s" % (json.dumps(value), shown)
    if "errno" in answer: return "%s expected, found %s" % (json.dumps(value)[:600], shown)
    if op == "stat": return wrong_stat(value, found, later)
    if op in ("readdir", "getdents"): value = sorted(map(listed, value))
    if op == "rewinddir": value = [sorted(map(listed, each)) for each in value]
    return None if value == found else "%s expected, found %s" % (json.dumps(value)[:600], shown)


def wrong_tree(expected, found, later):
    wrong, left = [], {entry["path"]: entry for entry in found}
    wrong += ["%s: its listing leaves out %s, and stat(2) finds that" % (entry["path"], json.dumps(entry["unlisted"])[:600])
              for entry in found if entry.get("unlisted")]
    for entry in expected:
        real = left.pop(entry["path"], None)
        if real is None: wrong.append(entry["path"] + " is not there")
        elif "error" in real: wrong.append("%s: it cannot be looked at: %s" % (entry["path"], real["error"]))
        else:
            # The mount that showed its tree first has read links and directories for that.
            why = [wrong_stat(entry["stat"], real["stat"], later, at > 0 and entry["stat"]["type"] != "file")]
            why += ["%s %s expected, found %s" % (key, json.dumps(entry[key])[:300], json.dumps(real.get(key))[:300])
                    for key in ("target", "data", "xattrs") if key in entry and entry[key] != real.get(key)]
            wrong += ["%s: %s" % (entry["path"], one) for one in why if one is not None]
    return "; ".join(wrong + [path + " should not be there" for path in left]) or None


def tell(why):
    global differences
    if why is None: return
    differences += 1
    print("    DIFFERS:", why)


for at, mount in enumerate(mounts):
    ask(at, {"kind": "begin", "dir": os.path.join(mount, name), "make": at == 0, "umask": 0o022})
for line in map(json.loads, sys.stdin):
    at, later = line["mount"] % len(mounts), line.get("later", False)
    if "tree" in line:
        print("%s: the whole tree" % mounts[at])
        tell(wrong_tree(line["tree"], ask(at, {"kind": "tree"}), later))
        continue
    answer = ask(at, {"kind": "calls", "calls": [line["call"]]})[0]
    began.append(int(answer["began"]))
    ended.append(int(answer["ended"]))
    uid, op, args = line["call"]
    print("%s: user %d: %s %s -> %s" % (mounts[at], uid, op, json.dumps(args)[:300], answer.get("errno", json.dumps(answer.get("value"))[:300])))
    tell(wrong_answer(op, line["expected"], answer, later))
print("what is there now:", os.path.join(mounts[0], name))
sys.exit(1 if differences else 0)
