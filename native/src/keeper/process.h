// The process that a keeper has started: one at a time.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace keeper {

int64_t nowMs();

class Process {
 public:
  // fork, execv: it has its end of a new line, /dev/fuse and the journal, and nothing else of the keeper but stdout and stderr. The other end of the
  // line is at kLineFd then. 0, or an errno.
  int start(char* const* words);
  // Takes the status of each child that has ended, so that none stays a zombie. waitpid(2) never waits here.
  void collect();
  // SIGKILL, if it runs.
  void kill();
  bool isRunning() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }
  // Once it has ended: its exit status, or 128 and the number of the signal.
  int status() const { return status_; }

 private:
  pid_t pid_ = 0;
  int status_ = 0;
};

// Whether a process is at its end. After SIGKILL a thread of it may wait in the kernel, for a page that nobody sends any more, and keep all descriptors open: so
// the line does not say it. Nor does a pidfd: with PIDFD_THREAD it tells of the end of a first thread only when all others have ended, too (Linux 6.18).
class Watch {
 public:
  void open(pid_t pid);
  // The process that has made the other end of the line.
  void openPeer();
  // Its first thread has ended, and with it all that can.
  bool hasEnded() const;
  // So that no thread of it returns to a program.
  void kill() const;

 private:
  pid_t pid_ = 0;
  // As long as it is not readable the number is that of the process.
  int pidfd_ = -1;
};

// What the keeper has changed for itself alone, as it was when it was started.
void rememberOrigin();

}  // namespace keeper
