/*
 * One process that locks files of the real kernel as it is told, for kernel.test.ts. Arguments: files; each is opened twice, so that file
 * i is descriptors 2i and 2i+1 of the commands. A line "posix|ofd|flock get|set|wait read|write|unlock FD START END" is answered by
 * "ERRNO TYPE START END PID" (the last four: what GETLK found, else 0). END is inclusive. SIGUSR1 interrupts what waits.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <unistd.h>

static void interrupted(int signal) { (void)signal; }

static int flock_call(int fd, const char *op, short type) {
  int how = type == F_RDLCK ? LOCK_SH : type == F_WRLCK ? LOCK_EX : LOCK_UN;
  return flock(fd, strcmp(op, "wait") == 0 ? how : how | LOCK_NB);
}

static int fcntl_call(int fd, int ofd, const char *op, struct flock *lock) {
  int command = strcmp(op, "get") == 0 ? (ofd ? F_OFD_GETLK : F_GETLK)
                : strcmp(op, "set") == 0 ? (ofd ? F_OFD_SETLK : F_SETLK)
                                         : (ofd ? F_OFD_SETLKW : F_SETLKW);
  return fcntl(fd, command, lock);
}

int main(int count, char **files) {
  int fds[64];
  struct sigaction action = {.sa_handler = interrupted};
  sigaction(SIGUSR1, &action, NULL);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (int i = 1; i < count && i < 32; i++) {
    for (int j = 0; j < 2; j++) {
      fds[(i - 1) * 2 + j] = open(files[i], O_RDWR);
      if (fds[(i - 1) * 2 + j] < 0) {
        perror(files[i]);
        return 1;
      }
    }
  }
  char kind[8], op[8], typed[8];
  int at;
  long long start, end;
  setvbuf(stdout, NULL, _IOLBF, 0);
  while (scanf("%7s %7s %7s %d %lld %lld", kind, op, typed, &at, &start, &end) == 6) {
    short type = strcmp(typed, "read") == 0 ? F_RDLCK : strcmp(typed, "write") == 0 ? F_WRLCK : F_UNLCK;
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start};
    lock.l_len = end == 0x7fffffffffffffffLL ? 0 : end - start + 1;
    int flocks = strcmp(kind, "flock") == 0;
    int status = flocks ? flock_call(fds[at], op, type) : fcntl_call(fds[at], strcmp(kind, "ofd") == 0, op, &lock);
    int error = status == 0 ? 0 : errno;
    int found = error == 0 && strcmp(op, "get") == 0 && lock.l_type != F_UNLCK;
    long long last = lock.l_len == 0 ? 0x7fffffffffffffffLL : lock.l_start + lock.l_len - 1;
    if (found) printf("0 %s %lld %lld %d\n", lock.l_type == F_RDLCK ? "read" : "write", (long long)lock.l_start, last, lock.l_pid);
    else printf("%d none 0 0 0\n", error);
  }
  return 0;
}
