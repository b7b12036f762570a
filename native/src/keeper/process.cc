// See process.h.
#include "process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
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
constexpr int64_t kEndMs = 2000;
constexpr const char* kOomFile = "/proc/self/oom_score_adj";

char oomScore[16];
ssize_t oomScoreBytes = 0;

void restoreOrigin() {
  int fd = open(kOomFile, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (oomScoreBytes > 0 && write(fd, oomScore, static_cast<size_t>(oomScoreBytes)) < 0) errno = 0;
  close(fd);
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

bool isZombie(pid_t pid) {
  char file[32], stat[256];
  snprintf(file, sizeof file, "/proc/%d/stat", pid);
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t bytes = read(fd, stat, sizeof stat - 1);
  close(fd);
  if (bytes <= 0) return false;
  stat[bytes] = '\0';
  // Behind its name, which may have parentheses.
  const char* end = strrchr(stat, ')');
  return end != nullptr && strncmp(end, ") Z", 3) == 0;
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

void Process::end() {
  collect();
  if (!isRunning()) return;
  kill(pid_, SIGKILL);
  sigset_t none;
  sigemptyset(&none);
  for (int64_t untilMs = nowMs() + kEndMs; isRunning(); collect()) {
    int64_t leftMs = untilMs - nowMs();
    if (leftMs <= 0) break;
    timespec left = {leftMs / 1000, leftMs % 1000 * 1'000'000};
    ppoll(nullptr, 0, &left, &none);
  }
}

}  // namespace keeper
