/*
 * The load of the benchmark: the same system calls for every file system, at a cost of nanoseconds, so that what is
 * measured is the file system. `load OP ARG...` prints lines "name value"; every failure names the call and the
 * file, and ends with status 1. All randomness comes from one fixed seed. `load hold OP ARG...` says "ready" before what
 * is timed and "done" after it, and waits for a line on stdin each time, so that others can count in between.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, BIG_WRITE = 1 << 20, PING_BYTES = 64 };

static void die(const char *format, ...) {
  int error = errno;
  va_list args;
  va_start(args, format);
  fprintf(stderr, "load: ");
  vfprintf(stderr, format, args);
  fprintf(stderr, ": %s\n", strerror(error));
  va_end(args);
  exit(1);
}

static void wrong(const char *message) {
  fprintf(stderr, "load: %s\n", message);
  exit(1);
}

static double now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void *take(size_t bytes) {
  void *memory = NULL;
  if (posix_memalign(&memory, BLOCK, bytes) != 0) wrong("no memory");
  memset(memory, 'c', bytes);
  return memory;
}

static long number(const char *text) {
  char *end = NULL;
  long value = strtol(text, &end, 10);
  if (end == text || *end != '\0' || value < 0) {
    fprintf(stderr, "load: expected a count, found \"%s\"\n", text);
    exit(2);
  }
  return value;
}

static uint64_t seed = 88172645463325252ull;

static uint64_t next_random(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

static int compare(const void *left, const void *right) {
  double a = *(const double *)left, b = *(const double *)right;
  return a < b ? -1 : a > b;
}

static double median(double *values, long count) {
  qsort(values, (size_t)count, sizeof *values, compare);
  return values[count / 2];
}

static int open_directory(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) die("open %s", path);
  return fd;
}

/* Names are made before the clock starts. */
static char **make_names_of(char kind, long count) {
  char **names = take((size_t)count * sizeof *names + 1);
  for (long at = 0; at < count; at++) {
    if (asprintf(&names[at], "%c%ld", kind, at) < 0) wrong("no memory");
  }
  return names;
}

static char **make_names(long count) { return make_names_of('f', count); }

static int hold = 0;

static void hold_at(const char *point) {
  char line[16];
  if (!hold) return;
  printf("%s 1\n", point);
  fflush(stdout);
  if (fgets(line, sizeof line, stdin) == NULL) exit(1);
}

static void report(double ns, double ops) {
  printf("nsPerOp %.2f\nops %.0f\n", ns / ops, ops);
  hold_at("done");
}

static void make_file(int dir, const char *name, const char *data, long bytes) {
  int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) die("create %s", name);
  if (bytes > 0 && write(fd, data, (size_t)bytes) != bytes) die("write %s", name);
  if (close(fd) != 0) die("close %s", name);
}

/* mkdir PATH, rmdir PATH: here and not in the bench itself, because a child that waits for a dead mount can be killed. */
static void op_mkdir(char **args) {
  if (mkdir(args[0], 0755) != 0) die("mkdir %s", args[0]);
}

static void op_rmdir(char **args) {
  if (rmdir(args[0]) != 0) die("rmdir %s", args[0]);
}

/* make DIR COUNT BYTES: DIR/f0 ... each created, written, closed. */
static void op_make(char **args) {
  int dir = open_directory(args[0]);
  long count = number(args[1]), bytes = number(args[2]);
  char **names = make_names(count), *data = take((size_t)bytes + 1);
  double start = now_ns();
  for (long at = 0; at < count; at++) make_file(dir, names[at], data, bytes);
  report(now_ns() - start, (double)count);
}

/* make-beside DIR OTHER COUNT BYTES: as make, at once DIR/f0 ... by one process and OTHER/g0 ... by another. */
static void op_make_beside(char **args) {
  long count = number(args[2]), bytes = number(args[3]);
  char *data = take((size_t)bytes + 1);
  double start = now_ns();
  for (int at = 0; at < 2; at++) {
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child > 0) continue;
    int dir = open_directory(args[at]);
    char **names = make_names_of("fg"[at], count);
    for (long file = 0; file < count; file++) make_file(dir, names[file], data, bytes);
    _exit(0);
  }
  for (int at = 0; at < 2; at++) {
    int status = 0;
    if (wait(&status) < 0) die("wait");
    if (status != 0) exit(1);
  }
  report(now_ns() - start, 2 * (double)count);
}

/* remove DIR COUNT: unlinks DIR/f0 ... */
static void op_remove(char **args) {
  int dir = open_directory(args[0]);
  long count = number(args[1]);
  char **names = make_names(count);
  double start = now_ns();
  for (long at = 0; at < count; at++)
    if (unlinkat(dir, names[at], 0) != 0) die("unlink %s", names[at]);
  report(now_ns() - start, (double)count);
}

static void stat_all(int dir, char **names, long count) {
  struct stat found;
  for (long at = 0; at < count; at++)
    if (fstatat(dir, names[at], &found, AT_SYMLINK_NOFOLLOW) != 0) die("stat %s", names[at]);
}

/* stat DIR COUNT WARMUPS MIN_MS: passes over all files, the first WARMUPS not timed, then until MIN_MS are over; at least one. */
static void op_stat(char **args) {
  int dir = open_directory(args[0]);
  long count = number(args[1]), warmups = number(args[2]);
  double least_ns = (double)number(args[3]) * 1e6, ops = 0;
  char **names = make_names(count);
  for (long pass = 0; pass < warmups; pass++) stat_all(dir, names, count);
  hold_at("ready");
  double start = now_ns();
  do {
    stat_all(dir, names, count);
    ops += (double)count;
  } while (now_ns() - start < least_ns);
  report(now_ns() - start, ops);
}

/* create-unlink DIR COUNT: create, close, unlink. */
static void op_create_unlink(char **args) {
  int dir = open_directory(args[0]);
  long count = number(args[1]);
  char **names = make_names(count);
  double start = now_ns();
  for (long at = 0; at < count; at++) {
    make_file(dir, names[at], NULL, 0);
    if (unlinkat(dir, names[at], 0) != 0) die("unlink %s", names[at]);
  }
  report(now_ns() - start, (double)count);
}

/* move DIR COUNT: DIR/f0 ... becomes DIR/f0.moved ... */
static void op_move(char **args) {
  int dir = open_directory(args[0]);
  long count = number(args[1]);
  char **names = make_names(count), moved[64];
  double start = now_ns();
  for (long at = 0; at < count; at++) {
    snprintf(moved, sizeof moved, "%s.moved", names[at]);
    if (renameat(dir, names[at], dir, moved) != 0) die("rename %s", names[at]);
  }
  report(now_ns() - start, (double)count);
}

/* chmod DIR COUNT: of DIR/f0 ... */
static void op_chmod(char **args) {
  int dir = open_directory(args[0]);
  long count = number(args[1]);
  char **names = make_names(count);
  double start = now_ns();
  for (long at = 0; at < count; at++)
    if (fchmodat(dir, names[at], 0600, 0) != 0) die("chmod %s", names[at]);
  report(now_ns() - start, (double)count);
}

static DIR *list(const char *dir) {
  DIR *listing = opendir(dir);
  if (listing == NULL) die("opendir %s", dir);
  return listing;
}

/* The next name but . and .., and any other that is hidden; NULL: there is none. */
static const char *next_name(DIR *listing, const char *dir) {
  struct dirent *entry;
  do {
    errno = 0;
    entry = readdir(listing);
    if (entry == NULL && errno != 0) die("readdir %s", dir);
  } while (entry != NULL && entry->d_name[0] == '.');
  return entry == NULL ? NULL : entry->d_name;
}

/* remove-listed DIR EXPECTED: unlinks each file, in the order of the listing, as rm -r does: that reads the directory first. */
static void op_remove_listed(char **args) {
  long expected = number(args[1]), entries = 0;
  char **names = calloc(expected, sizeof *names);
  if (names == NULL) die("calloc");
  double start = now_ns();
  DIR *listing = list(args[0]);
  for (const char *name; (name = next_name(listing, args[0])) != NULL;) {
    if (entries == expected) wrong("more files than expected");
    names[entries++] = strdup(name);
  }
  if (entries != expected) wrong("not as many files as expected");
  for (long at = 0; at < entries; at++)
    if (unlinkat(dirfd(listing), names[at], 0) != 0) die("unlink %s", names[at]);
  closedir(listing);
  report(now_ns() - start, (double)entries);
}

/* read-files DIR EXPECTED: opens, reads and closes each file, in the order of the listing, as tar does. */
static void op_read_files(char **args) {
  static char data[65536];
  long expected = number(args[1]), entries = 0;
  double start = now_ns();
  DIR *listing = list(args[0]);
  for (const char *name; (name = next_name(listing, args[0])) != NULL; entries++) {
    int fd = openat(dirfd(listing), name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) die("open %s", name);
    if (read(fd, data, sizeof data) < 0) die("read %s", name);
    if (close(fd) != 0) die("close %s", name);
  }
  closedir(listing);
  if (entries != expected) wrong("not as many files as expected");
  report(now_ns() - start, (double)entries);
}

/* list DIR EXPECTED WARMUPS: readdir, and stat of each entry, as ls -l does. */
static void op_list(char **args) {
  long expected = number(args[1]), warmups = number(args[2]);
  double start = 0;
  long entries = 0;
  for (long pass = 0; pass <= warmups; pass++) {
    start = now_ns();
    entries = 0;
    DIR *listing = list(args[0]);
    struct stat found;
    for (const char *name; (name = next_name(listing, args[0])) != NULL; entries++)
      if (fstatat(dirfd(listing), name, &found, AT_SYMLINK_NOFOLLOW) != 0) die("stat %s", name);
    closedir(listing);
  }
  double ns = now_ns() - start;
  if (entries != expected) {
    fprintf(stderr, "load: %s should have %ld entries, but lists %ld\n", args[0], expected, entries);
    exit(1);
  }
  report(ns, (double)entries);
}

static void read_random(int fd, char *data, long blocks, long count, const char *file) {
  for (long at = 0; at < count; at++) {
    off_t offset = (off_t)(next_random() % (uint64_t)blocks) * BLOCK;
    if (pread(fd, data, BLOCK, offset) != BLOCK) die("read %s", file);
  }
}

/*
 * read FILE BLOCKS COUNT MIN_MS cached|direct: COUNT times 4 KiB at random places, then again until MIN_MS are over. cached: the whole file and then
 * COUNT random places are read first, not timed: a server that has just given the file still cleans up for a while, and may share this processor.
 */
static void op_read(char **args) {
  long blocks = number(args[1]), count = number(args[2]);
  double least_ns = (double)number(args[3]) * 1e6, ops = 0;
  int direct = strcmp(args[4], "direct") == 0;
  int fd = open(args[0], O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
  if (fd < 0) die("open %s", args[0]);
  char *data = take(BLOCK);
  if (!direct) {
    for (long at = 0; at < blocks; at++)
      if (pread(fd, data, BLOCK, (off_t)at * BLOCK) != BLOCK) die("read %s", args[0]);
    read_random(fd, data, blocks, count, args[0]);
  }
  hold_at("ready");
  double start = now_ns();
  do {
    read_random(fd, data, blocks, count, args[0]);
    ops += (double)count;
  } while (now_ns() - start < least_ns);
  report(now_ns() - start, ops);
}

/* write-big FILE MIB: 1 MiB writes, then fsync. */
static void op_write_big(char **args) {
  long count = number(args[1]);
  char *data = take(BIG_WRITE);
  int fd = open(args[0], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) die("create %s", args[0]);
  double start = now_ns();
  for (long at = 0; at < count; at++)
    if (write(fd, data, BIG_WRITE) != BIG_WRITE) die("write %s", args[0]);
  if (fsync(fd) != 0) die("fsync %s", args[0]);
  double ns = now_ns() - start;
  if (close(fd) != 0) die("close %s", args[0]);
  report(ns, (double)count);
}

/* read-big FILE MIB: 1 MiB reads. */
static void op_read_big(char **args) {
  long count = number(args[1]);
  char *data = take(BIG_WRITE);
  int fd = open(args[0], O_RDONLY | O_CLOEXEC);
  if (fd < 0) die("open %s", args[0]);
  double start = now_ns();
  for (long left = count * BIG_WRITE; left > 0;) {
    ssize_t got = read(fd, data, BIG_WRITE);
    if (got < 0) die("read %s", args[0]);
    if (got == 0) wrong("the file ended before its end");
    left -= got;
  }
  report(now_ns() - start, (double)count);
}

/*
 * handover FILE_A FILE_B COUNT: the same file, by two paths. B has it open and cached; A overwrites its 4 KiB, then B reads
 * them. Medians of the write, of the read that follows (and what nine of ten reads stay below), and of both. A read that does not see the write is counted as stale.
 */
static void op_handover(char **args) {
  long count = number(args[2]), stale = 0;
  uint64_t *out = take(BLOCK), *in = take(BLOCK);
  double *writes = take((size_t)(count + 1) * sizeof(double)), *reads = take((size_t)(count + 1) * sizeof(double)),
         *totals = take((size_t)(count + 1) * sizeof(double));
  int a = open(args[0], O_WRONLY | O_CLOEXEC);
  if (a < 0) die("open %s", args[0]);
  int b = open(args[1], O_RDONLY | O_CLOEXEC);
  if (b < 0) die("open %s", args[1]);
  if (count < 1) wrong("expected a count of at least 1");
  for (long at = 0; at < count; at++) {
    if (pread(b, in, BLOCK, 0) != BLOCK) die("read %s", args[1]);
    out[0] = out[BLOCK / sizeof *out - 1] = next_random();
    double start = now_ns();
    if (pwrite(a, out, BLOCK, 0) != BLOCK) die("write %s", args[0]);
    double written = now_ns();
    if (pread(b, in, BLOCK, 0) != BLOCK) die("read %s", args[1]);
    double end = now_ns();
    if (memcmp(in, out, BLOCK) != 0) stale++;
    writes[at] = written - start;
    reads[at] = end - written;
    totals[at] = end - start;
  }
  printf("writeNs %.0f\nreadNs %.0f\ntotalNs %.0f\nstale %ld\nops %ld\n", median(writes, count), median(reads, count),
         median(totals, count), stale, count);
  printf("read90Ns %.0f\n", reads[count * 9 / 10]);
}

enum lock_kind { OFD, POSIX, FLOCK };

/* The first byte; with flock(2), the file. */
static void set_lock_of(enum lock_kind kind, int fd, short type, const char *file) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
  int failed = kind == FLOCK ? flock(fd, type == F_UNLCK ? LOCK_UN : LOCK_EX) : fcntl(fd, kind == OFD ? F_OFD_SETLKW : F_SETLKW, &lock);
  if (failed != 0) die("lock %s", file);
}

static void set_lock(int fd, short type, const char *file) { set_lock_of(OFD, fd, type, file); }

static enum lock_kind lock_kind(const char *name) {
  if (strcmp(name, "ofd") == 0) return OFD;
  if (strcmp(name, "posix") == 0) return POSIX;
  if (strcmp(name, "flock") == 0) return FLOCK;
  wrong("expected ofd, posix or flock");
  return OFD;
}

static int open_to_lock(const char *file) {
  int fd = open(file, O_RDWR | O_CLOEXEC);
  if (fd < 0) die("open %s", file);
  return fd;
}

/* lock FILE COUNT: a write lock of its first byte, and its unlock. */
static void op_lock(char **args) {
  long count = number(args[1]);
  int fd = open_to_lock(args[0]);
  set_lock(fd, F_WRLCK, args[0]);
  set_lock(fd, F_UNLCK, args[0]);
  hold_at("ready");
  double start = now_ns();
  for (long at = 0; at < count; at++) {
    set_lock(fd, F_WRLCK, args[0]);
    set_lock(fd, F_UNLCK, args[0]);
  }
  report(now_ns() - start, (double)count);
}

/* lock-handover KIND FILE_A FILE_B COUNT: the same file, by two paths. A locks and unlocks it, then B: the median of B's lock. */
static void op_lock_handover(char **args) {
  enum lock_kind kind = lock_kind(args[0]);
  long count = number(args[3]);
  double *locks = take((size_t)(count + 1) * sizeof(double));
  int a = open_to_lock(args[1]), b = open_to_lock(args[2]);
  if (count < 1) wrong("expected a count of at least 1");
  for (long at = 0; at < count; at++) {
    set_lock_of(kind, a, F_WRLCK, args[1]);
    set_lock_of(kind, a, F_UNLCK, args[1]);
    double start = now_ns();
    set_lock_of(kind, b, F_WRLCK, args[2]);
    locks[at] = now_ns() - start;
    set_lock_of(kind, b, F_UNLCK, args[2]);
  }
  printf("medianNs %.0f\nops %ld\n", median(locks, count), 2 * count);
}

static void tree_name(char *buffer, size_t bytes, const char *root, long at) {
  snprintf(buffer, bytes, "%s/d%ld", root, at);
}

/* tree-make DIR DIRECTORIES FILES: DIR/d0 ... each with FILES empty files. */
static void op_tree_make(char **args) {
  long directories = number(args[1]), files = number(args[2]);
  char **names = make_names(files), path[4096];
  double start = now_ns();
  for (long at = 0; at < directories; at++) {
    tree_name(path, sizeof path, args[0], at);
    if (mkdir(path, 0755) != 0) die("mkdir %s", path);
    int dir = open_directory(path);
    for (long file = 0; file < files; file++) make_file(dir, names[file], NULL, 0);
    close(dir);
  }
  report(now_ns() - start, (double)(directories * files));
}

/* tree-stat DIR DIRECTORIES FILES */
static void op_tree_stat(char **args) {
  long directories = number(args[1]), files = number(args[2]);
  char **names = make_names(files), path[4096];
  double start = now_ns();
  for (long at = 0; at < directories; at++) {
    tree_name(path, sizeof path, args[0], at);
    int dir = open_directory(path);
    stat_all(dir, names, files);
    close(dir);
  }
  report(now_ns() - start, (double)(directories * files));
}

static void exactly(int fd, char *data, int receive) {
  for (ssize_t done = 0; done < PING_BYTES;) {
    ssize_t moved = receive ? recv(fd, data + done, (size_t)(PING_BYTES - done), 0)
                            : send(fd, data + done, (size_t)(PING_BYTES - done), MSG_NOSIGNAL);
    if (moved < 0) die(receive ? "recv" : "send");
    if (moved == 0) exit(0);
    done += moved;
  }
}

static int tcp_socket(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  if (fd < 0) die("socket");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

/* tcp-serve ADDRESS: answers one client on a free port, which it prints first. */
static void op_tcp_serve(char **args) {
  int listener = tcp_socket(), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t bytes = sizeof address;
  char data[PING_BYTES];
  if (inet_pton(AF_INET, args[0], &address.sin_addr) != 1) wrong("expected an IPv4 address");
  if (bind(listener, (struct sockaddr *)&address, bytes) != 0) die("bind %s", args[0]);
  if (listen(listener, 1) != 0) die("listen");
  if (getsockname(listener, (struct sockaddr *)&address, &bytes) != 0) die("getsockname");
  printf("port %d\n", ntohs(address.sin_port));
  fflush(stdout);
  int fd = accept(listener, NULL, NULL);
  if (fd < 0) die("accept");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  for (;;) {
    exactly(fd, data, 1);
    exactly(fd, data, 0);
  }
}

/* tcp-ping ADDRESS PORT COUNT: median round trip of 64 bytes. */
static void op_tcp_ping(char **args) {
  long count = number(args[2]);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number(args[1]))};
  double *trips = take((size_t)(count + 1) * sizeof(double));
  char data[PING_BYTES] = {0};
  int fd = tcp_socket();
  if (count < 1) wrong("expected a count of at least 1");
  if (inet_pton(AF_INET, args[0], &address.sin_addr) != 1) wrong("expected an IPv4 address");
  if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) die("connect %s", args[0]);
  for (long at = 0; at < count; at++) {
    double start = now_ns();
    exactly(fd, data, 0);
    exactly(fd, data, 1);
    trips[at] = now_ns() - start;
  }
  printf("medianNs %.0f\n", median(trips, count));
}

static void one_held(int fd, const char *name, char *data) {
  struct stat status;
  if (pwrite(fd, data, BLOCK, 0) != BLOCK) die("pwrite %s", name);
  if (pread(fd, data, BLOCK, 0) != BLOCK) die("pread %s", name);
  if (stat(name, &status) != 0) die("stat %s", name);
}

static void one_new(const char *name) {
  int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) die("create %s", name);
  if (close(fd) != 0) die("close %s", name);
  if (unlink(name) != 0) die("unlink %s", name);
}

/* The kernel keeps no answer to it. */
static void one_asked(int fd) {
  struct statvfs status;
  if (fstatvfs(fd, &status) != 0) die("fstatvfs");
}

static double unix_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* gaps DIRECTORY FILE held|new|asked: until FILE is there, the longest time between the ends of two rounds, and its end (Unix time). held: of a
 * file that only this program uses; new: each round makes a file and removes it; asked: each asks the owner, and changes nothing. */
static void op_gaps(char **args) {
  int held = strcmp(args[2], "held") == 0, asked = strcmp(args[2], "asked") == 0;
  double last, longest = 0, longest_end_ms = 0;
  long rounds = 0;
  char *data = take(BLOCK);
  int fd;
  if (chdir(args[0]) != 0) die("chdir %s", args[0]);
  fd = open("held", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) die("open held");
  /* Its locks come before the clock starts. */
  one_held(fd, "held", data);
  if (!held && !asked) one_new("new");
  hold_at("ready");
  last = now_ns();
  while (access(args[1], F_OK) != 0) {
    double end;
    if (held) one_held(fd, "held", data);
    else if (asked) one_asked(fd);
    else one_new("new");
    end = now_ns();
    if (end - last > longest) {
      longest = end - last;
      longest_end_ms = unix_ms();
    }
    last = end;
    rounds++;
  }
  hold_at("done");
  printf("longestNs %.0f\nlongestEndMs %.3f\nrounds %ld\n", longest, longest_end_ms, rounds);
}

static const struct {
  const char *name;
  int args;
  void (*run)(char **args);
} operations[] = {
    {"mkdir", 1, op_mkdir},         {"rmdir", 1, op_rmdir},
    {"make-beside", 4, op_make_beside},
    {"make", 3, op_make},           {"remove", 2, op_remove},       {"stat", 4, op_stat},
    {"create-unlink", 2, op_create_unlink}, {"list", 3, op_list},   {"read", 5, op_read},
    {"write-big", 2, op_write_big}, {"read-big", 2, op_read_big},   {"handover", 3, op_handover},
    {"tree-make", 3, op_tree_make}, {"tree-stat", 3, op_tree_stat}, {"tcp-serve", 1, op_tcp_serve},
    {"tcp-ping", 3, op_tcp_ping},   {"lock", 2, op_lock},           {"lock-handover", 4, op_lock_handover},
    {"gaps", 3, op_gaps},           {"move", 2, op_move},           {"chmod", 2, op_chmod},
    {"read-files", 2, op_read_files}, {"remove-listed", 2, op_remove_listed},
};

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "hold") == 0) {
    hold = 1;
    argc--;
    argv++;
  }
  for (size_t at = 0; argc > 1 && at < sizeof operations / sizeof *operations; at++) {
    if (strcmp(argv[1], operations[at].name) != 0) continue;
    if (argc - 2 != operations[at].args) {
      fprintf(stderr, "load: %s takes %d arguments, found %d\n", argv[1], operations[at].args, argc - 2);
      return 2;
    }
    operations[at].run(argv + 2);
    return 0;
  }
  fprintf(stderr, "load: unknown operation %s\n", argc > 1 ? argv[1] : "(none)");
  return 2;
}
