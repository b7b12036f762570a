// See connection.h.
#include "connection.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>

#include "../fsopen.h"
#include "descriptors.h"

namespace keeper {

namespace {

// overlay/crash/layout.ts
constexpr off_t kConnectionAt = 120;

constexpr const char* kControl = "/sys/fs/fuse/connections";

// fusectl as it is mounted nowhere: a descriptor, or -1.
int openControl() {
  int context = static_cast<int>(::syscall(SYS_fsopen, "fusectl", kFsopenCloexec));
  if (context < 0) return -1;
  int root = -1;
  if (::syscall(SYS_fsconfig, context, kFsconfigCmdCreate, nullptr, nullptr, 0) == 0) {
    root = static_cast<int>(::syscall(SYS_fsmount, context, kFsmountCloexec, 0));
  }
  int failed = errno;
  close(context);
  errno = failed;
  return root;
}

int openAbort(const char* name) {
  int root = open(kControl, O_PATH | O_DIRECTORY | O_CLOEXEC);
  int fd = root < 0 ? -1 : openat(root, name, O_WRONLY | O_CLOEXEC);
  if (root >= 0) close(root);
  if (fd >= 0) return fd;
  root = openControl();
  if (root < 0) return -1;
  fd = openat(root, name, O_WRONLY | O_CLOEXEC);
  int failed = errno;
  close(root);
  errno = failed;
  return fd;
}

}  // namespace

bool isUnmounted() {
  // Asks for nothing, so only an error comes.
  pollfd polled = {kFuseFd, 0, 0};
  return poll(&polled, 1, 0) == 1 && polled.revents != 0;
}

int abortConnection() {
  uint32_t number = 0;
  char name[24];
  if (pread(kJournalFd, &number, sizeof number, kConnectionAt) != sizeof number || number == 0) return ENODATA;
  snprintf(name, sizeof name, "%u/abort", number);
  int fd = openAbort(name);
  if (fd < 0) return errno;
  int failed = write(fd, "1", 1) == 1 ? 0 : errno;
  close(fd);
  return failed;
}

}  // namespace keeper
