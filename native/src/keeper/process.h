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
  // SIGKILL, and waits some time for its end. A thread of it may wait in the kernel for longer; it runs no code of a program any more.
  void end();
  bool isRunning() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }
  // Once it has ended: its exit status, or 128 and the number of the signal.
  int status() const { return status_; }

 private:
  pid_t pid_ = 0;
  int status_ = 0;
};

// Its first thread has ended, so that all others are at their end, too. One of them may wait in the kernel, and keeps the descriptors open (proc(5), "Z").
bool isZombie(pid_t pid);

// What the keeper has changed for itself alone, as it was when it was started.
void rememberOrigin();

}  // namespace keeper
