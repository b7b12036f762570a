/** Locks in Python, for actors: `lock(fd, kind, type, start, length, wait)` gives "ok" or the error's name, `conflict` what F_GETLK says. */
export const PYTHON_LOCKS = `
OFD = {"get": 36, "set": 37, "wait": 38}
POSIX = {"get": fcntl.F_GETLK, "set": fcntl.F_SETLK, "wait": fcntl.F_SETLKW}
TYPES = {"read": fcntl.F_RDLCK, "write": fcntl.F_WRLCK, "unlock": fcntl.F_UNLCK}
def flock_struct(type, start, length): return struct.pack("hhqqi4x", TYPES[type], 0, start, length, 0)
def lock(fd, kind, type, start=0, length=0, wait=False):
    if kind == "flock":
        bits = {"read": fcntl.LOCK_SH, "write": fcntl.LOCK_EX, "unlock": fcntl.LOCK_UN}[type]
        return code(fcntl.flock, fd, bits if wait else bits | fcntl.LOCK_NB)
    commands = OFD if kind == "ofd" else POSIX
    return code(fcntl.fcntl, fd, commands["wait" if wait else "set"], flock_struct(type, start, length))
def conflict(fd, kind, type, start=0, length=0):
    commands = OFD if kind == "ofd" else POSIX
    found, _, at, size, pid = struct.unpack("hhqqi4x", fcntl.fcntl(fd, commands["get"], flock_struct(type, start, length)))
    return None if found == fcntl.F_UNLCK else [{v: k for k, v in TYPES.items()}[found], at, size, pid]
`;
