// Calls that change names and attributes: unlink(2), rename(2), link(2), chmod(2), chown(2),
// utimensat(2), and extended attributes (xattr(7)). An O_PATH descriptor is refused by fchmod(2) and
// fgetxattr(2), so those go through /proc/self/fd.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "call.h"

namespace coverlay {

namespace {

class FdPath {
 public:
  explicit FdPath(int64_t fd) { snprintf(text_, sizeof text_, "/proc/self/fd/%d", static_cast<int>(fd)); }
  const char* text() const { return text_; }
  // The path is missing where the descriptor is not open.
  static int64_t result(long returned) { return returned < 0 && errno == ENOENT ? -EBADF : resultOf(returned); }

 private:
  char text_[32];
};

int fd(const Call& call, size_t index) { return static_cast<int>(call.number[index]); }

int64_t unlink(const Call& call) { return resultOf(::unlinkat(fd(call, 0), call.name[0], fd(call, 1))); }

int64_t rename(const Call& call) {
  return resultOf(::renameat2(fd(call, 0), call.name[0], fd(call, 1), call.name[1], static_cast<unsigned>(call.number[2])));
}

int64_t link(const Call& call) { return resultOf(::linkat(fd(call, 0), "", fd(call, 1), call.name[0], AT_EMPTY_PATH)); }

int64_t chmod(const Call& call) {
  return FdPath::result(::chmod(FdPath(call.number[0]).text(), static_cast<mode_t>(call.number[1])));
}

int64_t chown(const Call& call) {
  return resultOf(
      ::fchownat(fd(call, 0), "", static_cast<uid_t>(call.number[1]), static_cast<gid_t>(call.number[2]), AT_EMPTY_PATH));
}

int64_t utimens(const Call& call) {
  struct timespec times[2];
  for (int index = 0; index < 2; index++) {
    times[index].tv_sec = call.number[1 + 2 * index];
    times[index].tv_nsec = static_cast<long>(call.number[2 + 2 * index]);
  }
  long returned = syscall(SYS_utimensat, fd(call, 0), "", times, AT_EMPTY_PATH);
  // AT_EMPTY_PATH came with Linux 5.8.
  if (returned == 0 || errno != EINVAL) return resultOf(returned);
  return FdPath::result(::utimensat(AT_FDCWD, FdPath(call.number[0]).text(), times, 0));
}

int64_t getxattr(const Call& call) {
  return FdPath::result(::getxattr(FdPath(call.number[0]).text(), call.name[0], call.data, call.dataBytes));
}

int64_t setxattr(const Call& call) {
  return FdPath::result(::setxattr(FdPath(call.number[0]).text(), call.name[0], call.data, call.dataBytes, fd(call, 1)));
}

int64_t listxattr(const Call& call) {
  return FdPath::result(::listxattr(FdPath(call.number[0]).text(), reinterpret_cast<char*>(call.data), call.dataBytes));
}

int64_t removexattr(const Call& call) { return FdPath::result(::removexattr(FdPath(call.number[0]).text(), call.name[0])); }

const CallRow kRows[] = {
    {"unlink", "dni", unlink},
    {"rename", "dndni", rename},
    {"link", "ddn", link},
    {"chmod", "di", chmod},
    {"chown", "dii", chown},
    {"utimens", "diiii", utimens},
    {"getxattr", "dnb", getxattr},
    {"setxattr", "dnbi", setxattr},
    {"listxattr", "db", listxattr},
    {"removexattr", "dn", removexattr},
};

}  // namespace

CallRows nameCalls() { return {kRows, sizeof kRows / sizeof kRows[0]}; }

}  // namespace coverlay
