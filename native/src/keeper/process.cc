// See process.h.
#include "process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <initializer_list>

#include "descriptors.h"
#include "log.h"

namespace keeper {

namespace {

constexpr int kNotStarted = 127;
constexpr const char* kOomFile = "/proc/self/oom_score_adj";

char oomScore[16];
ssize_t oomScoreBytes = 0;

void restoreOrigin() {
  int fd = open(kOomFile, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (oomScoreBytes > 0 && write(fd, oomScore, static_cast<size_t>(oomScoreBytes)) < 0) errno = 0;
  close(fd);
}

// proc(5), stat: the state stands behind the name of the program, which may have parentheses.
bool isZombie(pid_t pid) {
  char file[32], stat[256];
  snprintf(file, sizeof file, "/proc/%d/stat", pid);
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t bytes = read(fd, stat, sizeof stat - 1);
  close(fd);
  if (bytes <= 0) return false;
  stat[bytes] = '\0';
  const char* end = strrchr(stat, ')');
  return end != nullptr && strncmp(end, ") Z", 3) == 0;
}

// Between fork and execv.
[[noreturn]] void become(char* const* words, int line) {
  restoreOrigin();
  setsid();
  if (line == kLineFd) {
    fcntl(line, F_SETFD, 0);
  } else {
    dup2(line, kLineFd);
  }
  for (int fd : {kFuseFd, kJournalFd}) fcntl(fd, F_SETFD, 0);
  for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execv(words[0], words);
  writeLog("error", "the program of the new process cannot be started", {"errno", errno});
  _exit(kNotStarted);
}

}  // namespace

int64_t nowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

void rememberOrigin() {
  int fd = open(kOomFile, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  oomScoreBytes = read(fd, oomScore, sizeof oomScore);
  constexpr const char* kNever = "-1000";
  // Without CAP_SYS_RESOURCE it stays as it is.
  if (lseek(fd, 0, SEEK_SET) == 0 && write(fd, kNever, strlen(kNever)) < 0) errno = 0;
  close(fd);
}

int Process::start(char* const* words) {
  int ends[2];
  close(kLineFd);
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return errno;
  status_ = 0;
  pid_ = fork();
  if (pid_ == 0) become(words, ends[1]);
  int failed = pid_ < 0 ? errno : 0;
  if (pid_ < 0) pid_ = 0;
  close(ends[1]);
  if (ends[0] != kLineFd) {
    dup3(ends[0], kLineFd, O_CLOEXEC);
    close(ends[0]);
  }
  return failed;
}

void Process::collect() {
  int status;
  for (pid_t ended; (ended = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (ended != pid_) continue;
    pid_ = 0;
    status_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
}

void Process::kill() {
  collect();
  if (isRunning()) ::kill(pid_, SIGKILL);
}

void Watch::open(pid_t pid) {
  if (pidfd_ >= 0) close(pidfd_);
  pid_ = pid;
  pidfd_ = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}

void Watch::openPeer() {
  ucred peer = {};
  socklen_t bytes = sizeof peer;
  if (getsockopt(kLineFd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0 || peer.pid <= 0 || peer.pid == getpid()) return;
  open(peer.pid);
  // As long as the line is open the number is not another process's.
  char next;
  if (pidfd_ < 0 || recv(kLineFd, &next, 1, MSG_PEEK | MSG_DONTWAIT) != 0) return;
  close(pidfd_);
  pidfd_ = -1;
}

bool Watch::hasEnded() const {
  pollfd polled = {pidfd_, POLLIN, 0};
  if (pidfd_ < 0) return false;
  return poll(&polled, 1, 0) == 1 || isZombie(pid_);
}

void Watch::kill() const { ::syscall(SYS_pidfd_send_signal, pidfd_, SIGKILL, nullptr, 0); }

}  // namespace keeper
