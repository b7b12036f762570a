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

#include "connection.h"
#include "descriptors.h"
#include "drop.h"
#include "lease.h"
#include "log.h"
#include "process.h"

namespace keeper {

namespace {

constexpr int kWell = 0;
constexpr int kGivenUp = 1;
constexpr int kUsage = 2;

// A process that has served for so long was well: what made the one before crash is not what makes this one.
constexpr int64_t kServedMs = 1000;
constexpr int64_t kPauseMs = 200;
constexpr int64_t kPauseMaxMs = 2000;
// The kernel wakes each poller of /dev/fuse for each request. So while a process serves, which sees the end of the mount by itself, the keeper only looks.
constexpr int64_t kLookMs = 1000;
// While no process serves: at the lease, and whether the process that was started is at its end.
constexpr int64_t kCrashLookMs = 10;
// While one serves, which drops what is cached as soon as the lease ends: the keeper does it so long after that. It is less than the margin of any lease.
constexpr int64_t kBesideMs = 20;
// A process that was killed has ended, but for threads that wait in the kernel.
constexpr int64_t kEndMs = 2000;
// The same of threads whose first one has ended: of all that can end.
constexpr int64_t kRestMs = 200;
constexpr int64_t kNumberMax = INT32_MAX;

constexpr off_t kResumableAt = 64;
constexpr uint8_t kResumable[4] = {1, 0, 0, 0};

constexpr char kAfterCrash[] = "--after-crash";

enum class Event { kNothing, kLate, kUnmounted, kGone, kFarewell, kServes, kFinal };

volatile sig_atomic_t shallEnd = 0;
void handleTerm(int) { shallEnd = 1; }
// Does nothing, but ends ppoll(2).
void handleChild(int) {}

// What wait() looks at.
constexpr unsigned kLine = 1;
constexpr unsigned kMount = 2;
constexpr unsigned kProcess = 4;

// The mount ends before dlmd gives the locks away. At the end of a process the kernel closes in an order of its own.
[[noreturn]] void leave(int status) {
  close(kFuseFd);
  _exit(status);
}

bool isResumable() {
  uint8_t found[sizeof kResumable] = {};
  return pread(kJournalFd, found, sizeof found, kResumableAt) == sizeof found && memcmp(found, kResumable, sizeof found) == 0;
}

// Nothing: there is no more.
Event readLine() {
  for (;;) {
    char said;
    ssize_t got = recv(kLineFd, &said, 1, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return Event::kNothing;
    if (got <= 0) return Event::kGone;
    switch (said) {
      case 'b':
        return Event::kFarewell;
      case 's':
        return Event::kServes;
      case 'f':
        return Event::kFinal;
      default:
        continue;
    }
  }
}

class Keeper {
 public:
  Keeper(int64_t limitMs, int64_t tries, char* const* words, Lease lease) : limitMs_(limitMs), tries_(tries), words_(words), lease_(lease) { watch_.openPeer(); }

  [[noreturn]] void run() {
    for (;;) {
      waitForCrash();
      resume();
    }
  }

 private:
  // What comes first until then; nothing: a signal came. What the line says comes before the end of the process, and that before the end of the mount.
  Event wait(int64_t untilMs, unsigned watched) {
    sigset_t none;
    sigemptyset(&none);
    for (;;) {
      if (shallEnd != 0) leaveBySignal();
      process_.collect();
      drop_.collect();
      const int64_t leftMs = std::max<int64_t>(std::min(untilMs - nowMs(), lookAtLease()), 0);
      const timespec left = {leftMs / 1000, leftMs % 1000 * 1'000'000};
      pollfd polled[2] = {{(watched & kLine) != 0 ? kLineFd : -1, POLLIN, 0}, {(watched & kMount) != 0 ? kFuseFd : -1, 0, 0}};
      if (ppoll(polled, 2, &left, &none) < 0) return Event::kNothing;
      const bool isGone = (watched & kProcess) != 0 && watch_.hasEnded();
      const Event said = polled[0].revents != 0 || (isGone && (watched & kLine) != 0) ? readLine() : Event::kNothing;
      if (said != Event::kNothing) return said;
      if (isGone) return Event::kGone;
      if (polled[1].revents != 0) return Event::kUnmounted;
      if (nowMs() >= untilMs) return Event::kLate;
    }
  }

  void waitForCrash() {
    for (;;) {
      switch (wait(nowMs() + kLookMs, kLine | kProcess)) {
        case Event::kFarewell:
          leave(kWell);
        case Event::kFinal:
          letGo(true);
          leave(kGivenUp);
        case Event::kGone:
          return;
        default:
          if (isUnmounted()) leave(kWell);
      }
    }
  }

  // Returns when a process serves.
  void resume() {
    const int64_t beganMs = nowMs();
    isCrashed_ = true;
    // What was cached since a lapse of an earlier crash is not dropped.
    hasLapsed_ = false;
    if (isUnmounted()) endWithMount();
    if (servesSinceMs_ >= 0 && beganMs - servesSinceMs_ >= std::min(limitMs_, kServedMs)) begun_ = spentMs_ = 0;
    const int64_t untilMs = beganMs + limitMs_ - spentMs_;
    writeLog("warn", "the process of the mount has ended without a farewell");
    if (!process_.isRunning() && watch_.hasEnded()) awaitRest();
    // If it lives on, another one beside it would destroy data.
    if (!awaitEnd(untilMs, kMount)) giveUp("the process has left its line, and still runs: no other one is started", true);
    for (;;) {
      if (!isResumable()) giveUp("no other process can go on with the mount: the mount ends");
      if (begun_ >= tries_) giveUp("no process has gone on with the mount, and no more are started: the mount ends");
      if (begun_ > 0) pause(untilMs);
      if (nowMs() >= untilMs) giveUpLate();
      if (tryOnce(untilMs)) break;
    }
    isCrashed_ = false;
    servesSinceMs_ = nowMs();
    spentMs_ += servesSinceMs_ - beganMs;
    writeLog("info", "a new process serves the mount", {"pid", process_.pid()}, {"afterMs", servesSinceMs_ - beganMs});
  }

  // Of the process that has started this one: all that can end.
  void awaitRest() {
    watch_.kill();
    for (const int64_t untilMs = nowMs() + kRestMs; nowMs() < untilMs;) {
      switch (wait(untilMs, kLine | kMount)) {
        case Event::kGone:
          return;
        case Event::kUnmounted:
          endWithMount();
        default:
          break;
      }
    }
  }

  // Of the process that this one has started. True: it has ended, but for threads that wait in the kernel.
  bool awaitEnd(int64_t untilMs, unsigned watched) {
    bool hasEnded = false;
    for (process_.collect(); process_.isRunning(); process_.collect()) {
      if (!hasEnded && watch_.hasEnded()) {
        hasEnded = true;
        watch_.kill();
        untilMs = nowMs() + kRestMs;
      }
      if (nowMs() >= untilMs) return hasEnded;
      if (wait(untilMs, watched | (hasEnded ? 0 : kProcess)) == Event::kUnmounted) endWithMount();
    }
    return true;
  }

  // It does not serve yet.
  void endProcess() {
    process_.kill();
    awaitEnd(nowMs() + kEndMs, 0);
  }

  void pause(int64_t untilMs) {
    // 200, 400, ..: no more than the longest one after the fifth try.
    const int64_t pauseMs = std::min(kPauseMs << std::min<int64_t>(begun_ - 1, 4), kPauseMaxMs);
    const int64_t endMs = std::min(nowMs() + pauseMs, untilMs);
    while (nowMs() < endMs) {
      if (wait(endMs, kMount) == Event::kUnmounted) endWithMount();
    }
  }

  bool tryOnce(int64_t untilMs) {
    begun_ += 1;
    int failed = process_.start(words_);
    if (failed != 0) {
      writeLog("warn", "no new process of the mount can be made", {"errno", failed});
      return false;
    }
    watch_.open(process_.pid());
    writeLog("info", "a new process of the mount is started", {"pid", process_.pid()}, {"try", begun_});
    for (;;) {
      switch (wait(untilMs, kLine | kMount | kProcess)) {
        case Event::kServes:
          return true;
        case Event::kFarewell:
          leave(kWell);
        case Event::kFinal:
          giveUp("the new process says that it cannot go on: the mount ends", true);
        case Event::kUnmounted:
          endProcess();
          endWithMount();
        case Event::kLate:
          endProcess();
          giveUpLate();
        case Event::kGone:
          // It may have closed its line only: never two of them.
          endProcess();
          writeLog("warn", "the new process has ended before it served", {"status", process_.status()}, {"try", begun_});
          return false;
        case Event::kNothing:
          break;
      }
    }
  }

  // It matters while no process looks at it; and when it ends, whether one does. Gives how soon that must be done again.
  int64_t lookAtLease() {
    const int64_t leftMs = lease_.leftMs();
    if (!isCrashed_) return lookBesideProcess(leftMs);
    if (leftMs > 0) {
      if (hasLapsed_) writeLog("info", "the lease of this node holds again");
      hasLapsed_ = false;
    } else if (!hasLapsed_) {
      hasLapsed_ = true;
      dropAtLapse();
    }
    return leftMs > 0 ? std::min(leftMs, kCrashLookMs) : kCrashLookMs;
  }

  // The process that serves drops what is cached, too, if it does not stand still. What waits for it here is dropped when it goes on.
  int64_t lookBesideProcess(int64_t leftMs) {
    if (leftMs > 0) {
      lapsedAtMs_ = -1;
      hasLapsed_ = false;
      return leftMs;
    }
    if (hasLapsed_) return kLookMs;
    if (lapsedAtMs_ < 0) lapsedAtMs_ = nowMs();
    const int64_t restMs = lapsedAtMs_ + kBesideMs - nowMs();
    if (restMs > 0) return restMs;
    hasLapsed_ = true;
    drop_.run();
    writeLog("info", "the lease of this node ended: what the kernel caches is dropped beside the process that serves", {"inodes", drop_.rows()});
    return kLookMs;
  }

  void dropAtLapse() {
    const int64_t beganMs = nowMs();
    const bool isDropped = drop_.run();
    writeLog("warn", "the lease of this node ended: what the kernel caches is dropped", {"inodes", drop_.rows()}, {"tookMs", nowMs() - beganMs});
    if (isDropped) return;
    process_.kill();
    giveUp("what the kernel caches cannot be dropped: the mount ends", true);
  }

  // Nothing that was cached is seen any more when dlmd gives the locks away. `lives`: a process may have answered meanwhile.
  void letGo(bool lives) {
    isCrashed_ = false;
    bool isDropped = drop_.run();
    const int failed = isUnmounted() ? 0 : abortConnection();
    isDropped = drop_.finish(failed == 0) && isDropped;
    // After its end nothing is answered, and nothing waits.
    if (failed == 0 && (lives || !isDropped)) isDropped = (drop_.run() && drop_.finish(true)) || (drop_.waiting() == 0 && drop_.runHere());
    if (failed != 0 && failed != ENODATA) writeLog("warn", "the connection of the mount cannot be ended", {"errno", failed});
    if (drop_.refused() != 0) writeLog("error", "the kernel has refused to drop what it caches", {"errno", drop_.refused()});
    if (!isDropped) writeLog("error", "not all that the kernel caches is dropped", {"waiting", drop_.waiting()}, {"inodes", drop_.rows()});
  }

  // While no process serves nobody has dropped what is cached, and dlmd gives the locks away when this one is gone. A process that it has started may go on,
  // if all is dropped.
  [[noreturn]] void leaveBySignal() {
    if (isCrashed_ && !drop_.run()) letGo(true);
    leave(kWell);
  }

  // Of a mount whose connection was ended, and which is still there, the caches are, too.
  [[noreturn]] void endWithMount() {
    letGo(false);
    leave(kWell);
  }

  [[noreturn]] void giveUpLate() { giveUp("no process serves the mount in time: the mount ends"); }

  [[noreturn]] void giveUp(const char* why, bool lives = false) {
    letGo(lives);
    writeLog("error", why, {"tries", begun_});
    leave(kGivenUp);
  }

  const int64_t limitMs_;
  const int64_t tries_;
  char* const* const words_;
  const Lease lease_;
  Drop drop_;
  Process process_;
  // Of the process that serves, or is to serve.
  Watch watch_;
  // No process serves.
  bool isCrashed_ = false;
  // Since then the lease has not been seen to hold.
  bool hasLapsed_ = false;
  // While a process serves: when that was seen first; -1: it holds.
  int64_t lapsedAtMs_ = -1;
  // Since a process has served for kServedMs: how many were started, and for how long none served.
  int64_t begun_ = 0;
  int64_t spentMs_ = 0;
  // -1: no process of this keeper has served yet.
  int64_t servesSinceMs_ = -1;
};

// What is open, blocked, ignored, and where this process stands.
void settle() {
  prctl(PR_SET_NAME, "coverlay-keeper");
  rememberOrigin();
  // Linux 5.9; no older kernel has a mount that could go on.
  ::syscall(SYS_close_range, kLeaseFd + 1, ~0U, 0);
  for (int fd : {kLineFd, kFuseFd, kJournalFd, kDlmdFd, kLeaseFd}) fcntl(fd, F_SETFD, FD_CLOEXEC);
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
  Lease lease;
  if (!lease.open()) refuse("expected a lease page as descriptor 7, if there is one");
  const size_t kept = static_cast<size_t>(count - kProgramAt);
  auto** program = static_cast<char**>(calloc(kept + 2, sizeof(char*)));
  if (program == nullptr) refuse("no memory");
  std::copy_n(words + kProgramAt, kept, program);
  program[kept] = const_cast<char*>(kAfterCrash);
  settle();
  Keeper keeper(limitMs, tries, program, lease);
  // Last: a test waits for that.
  setsid();
  keeper.run();
}
