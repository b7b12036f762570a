// Calls that move, place and keep data: preadv2(2), pwritev2(2), fsync(2), fallocate(2), lseek(2),
// copy_file_range(2), getdents64(2).
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "call.h"

namespace coverlay {

namespace {

int fd(const Call& call, size_t index) { return static_cast<int>(call.number[index]); }

// The part of the buffer that `at` and `bytes` name; false where it is not inside.
bool part(const Call& call, iovec* vector) {
  int64_t at = call.number[1];
  int64_t bytes = call.number[2];
  int64_t size = static_cast<int64_t>(call.dataBytes);
  if (at < 0 || bytes < 0 || at > size || bytes > size - at) return false;
  vector->iov_base = call.data + at;
  vector->iov_len = static_cast<size_t>(bytes);
  return true;
}

int64_t read(const Call& call) {
  iovec vector;
  if (!part(call, &vector)) return -EFAULT;
  return resultOf(::preadv2(fd(call, 0), &vector, 1, call.number[3], fd(call, 4)));
}

int64_t write(const Call& call) {
  iovec vector;
  if (!part(call, &vector)) return -EFAULT;
  return resultOf(::pwritev2(fd(call, 0), &vector, 1, call.number[3], fd(call, 4)));
}

int64_t fsync(const Call& call) { return resultOf(call.number[1] != 0 ? ::fdatasync(fd(call, 0)) : ::fsync(fd(call, 0))); }

int64_t syncfs(const Call& call) { return resultOf(::syncfs(fd(call, 0))); }

int64_t ftruncate(const Call& call) { return resultOf(::ftruncate(fd(call, 0), call.number[1])); }

int64_t fallocate(const Call& call) { return resultOf(::fallocate(fd(call, 0), fd(call, 1), call.number[2], call.number[3])); }

int64_t lseek(const Call& call) { return resultOf(::lseek(fd(call, 0), call.number[1], fd(call, 2))); }

int64_t copyFileRange(const Call& call) {
  loff_t from = call.number[1];
  loff_t to = call.number[3];
  return resultOf(::copy_file_range(fd(call, 0), &from, fd(call, 2), &to, static_cast<size_t>(call.number[4]), 0));
}

int64_t getdents(const Call& call) { return resultOf(syscall(SYS_getdents64, fd(call, 0), call.data, call.dataBytes)); }

const CallRow kRows[] = {
    {"read", "dbiioi", read},
    {"write", "dbiizi", write},
    {"fsync", "d?", fsync},
    {"syncfs", "d", syncfs},
    {"ftruncate", "dz", ftruncate},
    {"fallocate", "dizz", fallocate},
    {"lseek", "doi", lseek},
    {"copyFileRange", "dodzi", copyFileRange},
    {"getdents", "db", getdents},
};

}  // namespace

CallRows dataCalls() { return {kRows, sizeof kRows / sizeof kRows[0]}; }

}  // namespace coverlay
