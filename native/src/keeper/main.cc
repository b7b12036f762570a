// coverlay-keeper LIMIT_MS TRIES -- PROGRAM ARG...: holds /dev/fuse and the journal of a mount, and starts a process that goes on with it when the one that
// serves has died without a farewell. README.md beside this file has the line, the journal, the limits and the exit statuses.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "descriptors.h"
#include "log.h"
#include "process.h"

namespace keeper {

namespace {

constexpr int kWell = 0;
constexpr int kGivenUp = 1;
constexpr int kUsage = 2;

constexpr int64_t kPauseMs = 200;
constexpr int64_t kPauseMaxMs = 2000;
// The kernel wakes each poller of /dev/fuse for each request. So while a process serves, which sees the end of the mount by itself, the keeper only looks.
constexpr int64_t kLookMs = 1000;
constexpr int64_t kNumberMax = INT32_MAX;

constexpr off_t kResumableAt = 64;
constexpr uint8_t kResumable[4] = {1, 0, 0, 0};

constexpr char kAfterCrash[] = "--after-crash";

enum class Event { kNothing, kLate, kUnmounted, kGone, kFarewell, kServes, kFinal };

volatile sig_atomic_t shallEnd = 0;
void handleTerm(int) { shallEnd = 1; }
// Does nothing, but ends ppoll(2).
void handleChild(int) {}

// Descriptors are closed by the kernel.
[[noreturn]] void leave(int status) { _exit(status); }

bool isUnmounted() {
  // Asks for nothing, so only an error comes.
  pollfd polled = {kFuseFd, 0, 0};
  return poll(&polled, 1, 0) == 1 && polled.revents != 0;
}

bool isResumable() {
  uint8_t found[sizeof kResumable] = {};
  return pread(kJournalFd, found, sizeof found, kResumableAt) == sizeof found && memcmp(found, kResumable, sizeof found) == 0;
}

Event readLine() {
  char said;
  ssize_t got = recv(kLineFd, &said, 1, MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR ? Event::kNothing : Event::kGone;
  if (got == 0) return Event::kGone;
  switch (said) {
    case 'b':
      return Event::kFarewell;
    case 's':
      return Event::kServes;
    case 'f':
      return Event::kFinal;
    default:
      return Event::kNothing;
  }
}

class Keeper {
 public:
  Keeper(int64_t limitMs, int64_t tries, char* const* words) : limitMs_(limitMs), tries_(tries), words_(words) {}

  [[noreturn]] void run() {
    for (;;) {
      waitForCrash();
      resume();
    }
  }

 private:
  // What comes first until then; nothing: a signal came. What the line says comes before the end of the mount.
  Event wait(int64_t untilMs, bool hearsLine, bool seesMount) {
    sigset_t none;
    sigemptyset(&none);
    for (;;) {
      if (shallEnd != 0) leave(kWell);
      process_.collect();
      int64_t leftMs = std::max<int64_t>(untilMs - nowMs(), 0);
      timespec left = {leftMs / 1000, leftMs % 1000 * 1'000'000};
      pollfd polled[2] = {{hearsLine ? kLineFd : -1, POLLIN, 0}, {seesMount ? kFuseFd : -1, 0, 0}};
      int ready = ppoll(polled, 2, &left, &none);
      if (ready < 0) return Event::kNothing;
      Event said = polled[0].revents == 0 ? Event::kNothing : readLine();
      if (said != Event::kNothing) return said;
      if (polled[1].revents != 0) return Event::kUnmounted;
      if (ready == 0 && nowMs() >= untilMs) return Event::kLate;
    }
  }

  void waitForCrash() {
    for (;;) {
      switch (wait(nowMs() + kLookMs, true, false)) {
        case Event::kFarewell:
          leave(kWell);
        case Event::kFinal:
          leave(kGivenUp);
        case Event::kGone:
          return;
        default:
          if (isUnmounted()) leave(kWell);
          if (hasDiedSilently()) return;
      }
    }
  }

  // Its line ends only with its last thread, and that may wait for a page that nobody sends any more.
  bool hasDiedSilently() {
    if (process_.isRunning()) return isZombie(process_.pid());
    return begun_ == 0 && getppid() == parent_ && isZombie(parent_);
  }

  // Returns when a process serves.
  void resume() {
    const int64_t beganMs = nowMs();
    if (isUnmounted()) leave(kWell);
    if (servesSinceMs_ >= 0 && beganMs - servesSinceMs_ >= limitMs_) begun_ = spentMs_ = 0;
    const int64_t untilMs = beganMs + limitMs_ - spentMs_;
    writeLog("warn", "the process of the mount has ended without a farewell");
    awaitEnd(untilMs);
    for (;;) {
      if (!isResumable()) giveUp("no other process can go on with the mount: the mount ends");
      if (begun_ >= tries_) giveUp("no process has gone on with the mount, and no more are started: the mount ends");
      if (begun_ > 0) pause(untilMs);
      if (nowMs() >= untilMs) giveUpLate();
      if (tryOnce(untilMs)) break;
    }
    servesSinceMs_ = nowMs();
    spentMs_ += servesSinceMs_ - beganMs;
    writeLog("info", "a new process serves the mount", {"pid", process_.pid()}, {"afterMs", servesSinceMs_ - beganMs});
  }

  // A process whose line has ended is at its end. If it is not, another one beside it would destroy data.
  void awaitEnd(int64_t untilMs) {
    for (process_.collect(); process_.isRunning() && !isZombie(process_.pid()); process_.collect()) {
      if (nowMs() >= untilMs) giveUp("the process has left its line, and still runs: no other one is started");
      if (wait(untilMs, false, true) == Event::kUnmounted) leave(kWell);
    }
  }

  void pause(int64_t untilMs) {
    // 200, 400, ..: no more than the longest one after the fifth try.
    const int64_t pauseMs = std::min(kPauseMs << std::min<int64_t>(begun_ - 1, 4), kPauseMaxMs);
    const int64_t endMs = std::min(nowMs() + pauseMs, untilMs);
    while (nowMs() < endMs) {
      if (wait(endMs, false, true) == Event::kUnmounted) leave(kWell);
    }
  }

  bool tryOnce(int64_t untilMs) {
    begun_ += 1;
    int failed = process_.start(words_);
    if (failed != 0) {
      writeLog("warn", "no new process of the mount can be made", {"errno", failed});
      return false;
    }
    writeLog("info", "a new process of the mount is started", {"pid", process_.pid()}, {"try", begun_});
    for (;;) {
      switch (wait(untilMs, true, true)) {
        case Event::kServes:
          return true;
        case Event::kFarewell:
          leave(kWell);
        case Event::kFinal:
          giveUp("the new process says that it cannot go on: the mount ends");
        case Event::kUnmounted:
          process_.end();
          leave(kWell);
        case Event::kLate:
          process_.end();
          giveUpLate();
        case Event::kGone:
          // It may have closed its line only: never two of them.
          process_.end();
          writeLog("warn", "the new process has ended before it served", {"status", process_.status()}, {"try", begun_});
          return false;
        case Event::kNothing:
          break;
      }
    }
  }

  [[noreturn]] void giveUpLate() { giveUp("no process serves the mount in time: the mount ends"); }

  [[noreturn]] void giveUp(const char* why) {
    writeLog("error", why, {"tries", begun_});
    leave(kGivenUp);
  }

  const int64_t limitMs_;
  const int64_t tries_;
  char* const* const words_;
  // The process that serves first.
  const pid_t parent_ = getppid();
  Process process_;
  // Since a process has served for limitMs: how many were started, and for how long none served.
  int64_t begun_ = 0;
  int64_t spentMs_ = 0;
  // -1: no process of this keeper has served yet.
  int64_t servesSinceMs_ = -1;
};

// What is open, blocked, ignored, and where this process stands. In a session of its own last: a test waits for that.
void settle() {
  prctl(PR_SET_NAME, "coverlay-keeper");
  rememberOrigin();
  // Linux 5.9; no older kernel has a mount that could go on.
  ::syscall(SYS_close_range, kLogFd + 1, ~0U, 0);
  for (int fd : {kLineFd, kFuseFd, kJournalFd, kLogFd}) fcntl(fd, F_SETFD, FD_CLOEXEC);
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null > STDIN_FILENO) {
    dup2(null, STDIN_FILENO);
    close(null);
  }
  if (chdir("/") != 0) errno = 0;
  for (int number : {SIGHUP, SIGINT, SIGPIPE}) signal(number, SIG_IGN);
  sigset_t handled;
  sigemptyset(&handled);
  for (int number : {SIGTERM, SIGCHLD}) sigaddset(&handled, number);
  sigprocmask(SIG_SETMASK, &handled, nullptr);
  struct sigaction action = {};
  action.sa_handler = handleTerm;
  sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = handleChild;
  sigaction(SIGCHLD, &action, nullptr);
  setsid();
}

bool readNumber(const char* text, int64_t* number) {
  char* end = nullptr;
  errno = 0;
  *number = text[0] >= '0' && text[0] <= '9' ? strtoll(text, &end, 10) : 0;
  return end != nullptr && *end == '\0' && errno == 0 && *number >= 1 && *number <= kNumberMax;
}

[[noreturn]] void refuse(const char* why) {
  fprintf(stderr, "coverlay-keeper: %s\nusage: coverlay-keeper LIMIT_MS TRIES -- PROGRAM ARG...\n", why);
  leave(kUsage);
}

}  // namespace

}  // namespace keeper

int main(int count, char** words) {
  using namespace keeper;
  constexpr int kProgramAt = 4;
  int64_t limitMs, tries;
  if (count <= kProgramAt || strcmp(words[3], "--") != 0) refuse("expected two numbers, and a program after --");
  if (!readNumber(words[1], &limitMs) || !readNumber(words[2], &tries)) refuse("expected numbers from 1 to 2147483647");
  for (int fd : {kLineFd, kFuseFd, kJournalFd}) {
    if (fcntl(fd, F_GETFD) < 0) refuse("expected descriptors 3 (line), 4 (/dev/fuse) and 5 (journal)");
  }
  const size_t kept = static_cast<size_t>(count - kProgramAt);
  auto** program = static_cast<char**>(calloc(kept + 2, sizeof(char*)));
  if (program == nullptr) refuse("no memory");
  std::copy_n(words + kProgramAt, kept, program);
  program[kept] = const_cast<char*>(kAfterCrash);
  settle();
  Keeper(limitMs, tries, program).run();
}
