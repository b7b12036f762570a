// Calls that find, open and describe a file: openat2(2), open_by_handle_at(2), statx(2), statfs(2).
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>

#include "call.h"

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20
#endif

namespace coverlay {

namespace {

// A descriptor for the length of one call; close() must not change the errno that is reported.
class Descriptor {
 public:
  explicit Descriptor(int64_t fd) : fd_(static_cast<int>(fd)) {}
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

int64_t open2(int dirfd, const char* name, uint64_t flags, uint64_t mode, uint64_t resolve) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.mode = mode;
  how.resolve = resolve;
  return resultOf(syscall(SYS_openat2, dirfd, name, &how, sizeof how));
}

// As NO_BIRTH_TIME of overlay/lower/lower.ts.
constexpr double kNoBirthTime = 4294967295.0;

int64_t statAt(int dirfd, const char* name, int flags, double* fields) {
  struct statx st;
  if (::statx(dirfd, name, flags, STATX_BASIC_STATS | STATX_BTIME, &st) != 0) return -errno;
  fields[0] = st.stx_mode;
  fields[1] = st.stx_nlink;
  fields[2] = st.stx_uid;
  fields[3] = st.stx_gid;
  fields[4] = static_cast<double>(st.stx_ino);
  fields[5] = static_cast<double>(st.stx_size);
  fields[6] = static_cast<double>(st.stx_blocks);
  fields[7] = st.stx_blksize;
  fields[8] = st.stx_rdev_major;
  fields[9] = st.stx_rdev_minor;
  fields[10] = static_cast<double>(st.stx_atime.tv_sec);
  fields[11] = st.stx_atime.tv_nsec;
  fields[12] = static_cast<double>(st.stx_mtime.tv_sec);
  fields[13] = st.stx_mtime.tv_nsec;
  fields[14] = static_cast<double>(st.stx_ctime.tv_sec);
  fields[15] = st.stx_ctime.tv_nsec;
  fields[16] = static_cast<double>(st.stx_btime.tv_sec);
  fields[17] = (st.stx_mask & STATX_BTIME) != 0 ? st.stx_btime.tv_nsec : kNoBirthTime;
  fields[18] = st.stx_dev_major;
  fields[19] = st.stx_dev_minor;
  return 0;
}

int64_t statOf(int fd, double* fields) { return statAt(fd, "", AT_EMPTY_PATH, fields); }

int64_t handleInto(int fd, uint8_t* buffer) {
  // The buffer of the caller may be unaligned, struct file_handle may not.
  alignas(file_handle) uint8_t bytes[kHandleBytes];
  auto* handle = reinterpret_cast<file_handle*>(bytes);
  handle->handle_bytes = kHandleBytes - sizeof(file_handle);
  int mountId;
  if (name_to_handle_at(fd, "", handle, &mountId, AT_EMPTY_PATH) != 0) return -errno;
  memcpy(buffer, bytes, sizeof(file_handle) + handle->handle_bytes);
  return 0;
}

// While the inode number of a handle is being taken by a new file, ext4 says ENOMEM: iget_locked (fs/inode.c) returns NULL for an inode
// under creation, and ext4_iget takes that for a lack of memory. A moment later it is ESTALE. On Linux 6.18 it was seen for 0.6 ms at most.
constexpr int kCreationLooks = 100;
constexpr timespec kCreationPause{0, 50'000};

int64_t openHandle(int mountFd, const uint8_t* buffer, int flags) {
  alignas(file_handle) uint8_t bytes[kHandleBytes];
  uint32_t handleBytes;
  memcpy(&handleBytes, buffer, sizeof handleBytes);
  memcpy(bytes, buffer, sizeof(file_handle) + handleBytes);
  int fd = -1;
  for (int look = 0; look < kCreationLooks; look++) {
    if (look > 0) nanosleep(&kCreationPause, nullptr);
    fd = open_by_handle_at(mountFd, reinterpret_cast<file_handle*>(bytes), flags | O_CLOEXEC);
    if (fd >= 0 || errno != ENOMEM) break;
  }
  return resultOf(fd);
}

int64_t closeFd(const Call& call) { return resultOf(::close(static_cast<int>(call.number[0]))); }

int64_t openat2(const Call& call) {
  return open2(static_cast<int>(call.number[0]), call.name[0], static_cast<uint64_t>(call.number[1]),
               static_cast<uint64_t>(call.number[2]), static_cast<uint64_t>(call.number[3]));
}

int64_t openByHandle(const Call& call) {
  return openHandle(static_cast<int>(call.number[0]), call.handle, static_cast<int>(call.number[1]));
}

int64_t handleOf(const Call& call) { return handleInto(static_cast<int>(call.number[0]), call.handle); }

int64_t describeFd(int fd, const Call& call) {
  int64_t result = statOf(fd, call.fields);
  return result < 0 ? result : handleInto(fd, call.handle);
}

int64_t lookup(const Call& call) {
  uint64_t resolve = RESOLVE_NO_XDEV | (call.number[1] != 0 ? RESOLVE_CACHED : 0);
  int64_t fd = open2(static_cast<int>(call.number[0]), call.name[0], O_PATH | O_NOFOLLOW, 0, resolve);
  if (fd < 0) return fd;
  Descriptor found(fd);
  return describeFd(found.fd(), call);
}

// Names end with a NUL each. What is found or not is left in the kernel's caches, and nowhere else.
int64_t warm(const Call& call) {
  const char* at = reinterpret_cast<const char*>(call.data);
  const char* end = at + call.dataBytes;
  if (at != end && end[-1] != '\0') return -EINVAL;
  int64_t found = 0;
  struct statx st;
  for (; at < end; at += strlen(at) + 1) {
    int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
    if (::statx(static_cast<int>(call.number[0]), at, flags, STATX_BASIC_STATS, &st) == 0) found++;
  }
  return found;
}

int64_t statName(const Call& call) {
  return statAt(static_cast<int>(call.number[0]), call.name[0], AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, call.fields);
}

int64_t stat(const Call& call) { return statOf(static_cast<int>(call.number[0]), call.fields); }

int64_t statHandle(const Call& call) {
  int64_t fd = openHandle(static_cast<int>(call.number[0]), call.handle, O_PATH);
  if (fd < 0) return fd;
  Descriptor found(fd);
  return statOf(found.fd(), call.fields);
}

int64_t readlink(const Call& call) {
  // As the kernel says it. An empty buffer may have no address, which the C library does not allow.
  if (call.dataBytes == 0) return -EINVAL;
  return resultOf(::readlinkat(static_cast<int>(call.number[0]), "", reinterpret_cast<char*>(call.data), call.dataBytes));
}

int64_t statfs(const Call& call) {
  struct statfs st;
  if (::fstatfs(static_cast<int>(call.number[0]), &st) != 0) return -errno;
  call.fields[0] = static_cast<double>(static_cast<uint32_t>(st.f_type));
  call.fields[1] = static_cast<double>(st.f_bsize);
  call.fields[2] = static_cast<double>(st.f_blocks);
  call.fields[3] = static_cast<double>(st.f_bfree);
  call.fields[4] = static_cast<double>(st.f_bavail);
  call.fields[5] = static_cast<double>(st.f_files);
  call.fields[6] = static_cast<double>(st.f_ffree);
  call.fields[7] = static_cast<double>(st.f_namelen);
  call.fields[8] = static_cast<double>(st.f_frsize);
  return 0;
}

const CallRow kRows[] = {
    {"close", "d", closeFd},
    {"openat2", "dniii", openat2},
    {"openByHandle", "dhi", openByHandle},
    {"handleOf", "dH", handleOf},
    {"lookup", "dn?sH", lookup},
    {"warm", "db", warm},
    {"statName", "dns", statName},
    {"stat", "ds", stat},
    {"statHandle", "dhs", statHandle},
    {"readlink", "db", readlink},
    {"statfs", "dS", statfs},
};

}  // namespace

int64_t describe(int fd, const Call& call) { return describeFd(fd, call); }

CallRows openCalls() { return {kRows, sizeof kRows / sizeof kRows[0]}; }

}  // namespace coverlay
