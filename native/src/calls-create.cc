// Calls that make a file as the caller of a request: open(2) O_CREAT and O_TMPFILE, mkdir(2), mknod(2), symlink(2).
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "call.h"
#include "credential.h"

namespace coverlay {

namespace {

uint32_t word(int64_t number) { return static_cast<uint32_t>(number); }

int64_t createFile(const Call& call) {
  ActAs caller(word(call.number[3]), word(call.number[4]), word(call.number[5]));
  if (caller.error() != 0) return caller.error();
  int flags = static_cast<int>(call.number[1]) | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
  return resultOf(::openat(static_cast<int>(call.number[0]), call.name[0], flags, word(call.number[2])));
}

int64_t createNameless(const Call& call) {
  ActAs caller(word(call.number[3]), word(call.number[4]), word(call.number[5]));
  if (caller.error() != 0) return caller.error();
  int flags = static_cast<int>(call.number[1]) | O_TMPFILE | O_CLOEXEC;
  return resultOf(::openat(static_cast<int>(call.number[0]), ".", flags, word(call.number[2])));
}

// Takes over `fd`.
int64_t described(int64_t fd, const Call& call) {
  if (fd < 0) return fd;
  int64_t result = describe(static_cast<int>(fd), call);
  if (result == 0) return fd;
  ::close(static_cast<int>(fd));
  return result;
}

int64_t create(const Call& call) { return described(createFile(call), call); }
int64_t tmpfile(const Call& call) { return described(createNameless(call), call); }

int64_t mkdir(const Call& call) {
  ActAs caller(word(call.number[2]), word(call.number[3]), word(call.number[4]));
  if (caller.error() != 0) return caller.error();
  return resultOf(::mkdirat(static_cast<int>(call.number[0]), call.name[0], word(call.number[1])));
}

int64_t mknod(const Call& call) {
  // The kernel has asked for CAP_MKNOD where the caller needs it.
  ActAs caller(word(call.number[2]), word(call.number[5]), word(call.number[6]), 1u << CAP_MKNOD);
  if (caller.error() != 0) return caller.error();
  dev_t device = makedev(word(call.number[3]), word(call.number[4]));
  return resultOf(::mknodat(static_cast<int>(call.number[0]), call.name[0], word(call.number[1]), device));
}

int64_t symlink(const Call& call) {
  ActAs caller(ActAs::kKeepUmask, word(call.number[1]), word(call.number[2]));
  if (caller.error() != 0) return caller.error();
  return resultOf(::symlinkat(call.name[0], static_cast<int>(call.number[0]), call.name[1]));
}

const CallRow kRows[] = {
    {"create", "dniiiiisH", create},
    {"tmpfile", "diiiiisH", tmpfile},
    {"mkdir", "dniiii", mkdir},
    {"mknod", "dniiiiii", mknod},
    {"symlink", "ndnii", symlink},
};

}  // namespace

CallRows createCalls() { return {kRows, sizeof kRows / sizeof kRows[0]}; }

}  // namespace coverlay
