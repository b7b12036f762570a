// Calls on an inode of this process's own mount (overlay/coherence/size/own-inodes.ts). The mount is reached by its path each time, so that
// nothing pins it; the inode by a file handle as fs/fuse/inode.c (fuse_encode_fh) makes them: the kernel finds it without asking the server
// as long as it has it. Else it asks, by a LOOKUP from that thread, which is ESTALE (hazard F29).
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "argument.h"
#include "call.h"

namespace coverlay {

namespace {

// include/linux/exportfs.h: a 64-bit inode number, then a 32-bit generation.
constexpr int kFileidIno64Gen = 0x81;
constexpr unsigned kHandleWords = 3;
constexpr long kPollFirstNs = 10 * 1000;
constexpr long kPollMaxNs = 1000 * 1000;

// Whose request comes from it never has that attribute: the server says so, or refuses.
constexpr const char* kBarrierName = "trusted.coverlay.barrier";

// The mount point, O_PATH, or a negative errno. EXDEV: another device is there. Arguments: n mount point, i minor number of its device.
int openOwnMount(const Call& call) {
  int mount = ::open(call.name[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (mount < 0) return -errno;
  struct statx st;
  int error = 0;
  if (::statx(mount, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &st) != 0) {
    error = -errno;
  } else if (st.stx_dev_major != 0 || st.stx_dev_minor != static_cast<uint32_t>(call.number[0])) {
    error = -EXDEV;
  }
  if (error == 0) return mount;
  ::close(mount);
  return error;
}

// On a thread with a working directory of its own (Pool::entry): a mount of which no directory is open can be named to
// open_by_handle_at(2) only as the working directory. Going there may ask the server for the root's attributes.
class OwnInode {
 public:
  // Arguments of every call here: n mount point, i minor number of its device, i nodeid, i generation.
  explicit OwnInode(const Call& call) {
    int mount = openOwnMount(call);
    if (mount < 0) {
      error_ = mount;
      return;
    }
    if (fchdir(mount) != 0) {
      error_ = -errno;
    } else {
      open(static_cast<uint64_t>(call.number[1]), static_cast<uint32_t>(call.number[2]));
      if (chdir("/") != 0) error_ = -errno;
    }
    ::close(mount);
  }
  ~OwnInode() {
    if (fd_ >= 0) ::close(fd_);
  }
  OwnInode(const OwnInode&) = delete;
  OwnInode& operator=(const OwnInode&) = delete;

  int error() const { return error_; }
  int fd() const { return fd_; }

  // AT_STATX_DONT_SYNC: as the kernel has it; FORCE_SYNC: after asking the server.
  int64_t size(int flags) const {
    struct statx st;
    if (::statx(fd_, "", AT_EMPTY_PATH | flags, STATX_SIZE, &st) != 0) return -errno;
    return static_cast<int64_t>(st.stx_size);
  }

 private:
  void open(uint64_t nodeid, uint32_t generation) {
    alignas(file_handle) uint8_t bytes[sizeof(file_handle) + kHandleWords * sizeof(uint32_t)];
    auto* handle = reinterpret_cast<file_handle*>(bytes);
    const uint32_t words[kHandleWords] = {static_cast<uint32_t>(nodeid >> 32), static_cast<uint32_t>(nodeid), generation};
    handle->handle_bytes = sizeof words;
    handle->handle_type = kFileidIno64Gen;
    memcpy(handle->f_handle, words, sizeof words);
    fd_ = open_by_handle_at(AT_FDCWD, handle, O_PATH | O_CLOEXEC);
    if (fd_ < 0) error_ = -errno;
  }

  int fd_ = -1;
  int error_ = 0;
};

// The size as the kernel has it, once it is number[3] to number[4], or after number[5] milliseconds.
int64_t lookOwnSize(const Call& call) {
  OwnInode inode(call);
  if (inode.error() != 0) return inode.error();
  int64_t leftNs = call.number[5] * 1000 * 1000;
  for (long pauseNs = kPollFirstNs;; pauseNs = pauseNs * 2 < kPollMaxNs ? pauseNs * 2 : kPollMaxNs) {
    int64_t size = inode.size(AT_STATX_DONT_SYNC);
    if (size < 0 || (size >= call.number[3] && size <= call.number[4]) || leftNs <= 0) return size;
    timespec pause = {0, pauseNs};
    nanosleep(&pause, nullptr);
    leftNs -= pauseNs;
  }
}

// The size as the kernel has it when it has asked: what it was told, unless it dropped that.
int64_t refreshOwnSize(const Call& call) {
  OwnInode inode(call);
  if (inode.error() != 0) return inode.error();
  int64_t told = inode.size(AT_STATX_FORCE_SYNC);
  return told < 0 ? told : inode.size(AT_STATX_DONT_SYNC);
}

// removexattr(2) takes the inode's lock before it asks the server, so the request is the proof that whoever had the lock before is done.
int64_t lockOwn(const Call& call) {
  OwnInode inode(call);
  if (inode.error() != 0) return inode.error();
  char path[64];
  snprintf(path, sizeof path, "/proc/thread-self/fd/%d", inode.fd());
  return resultOf(::removexattr(path, kBarrierName));
}

// Has the kernel look for that path below the mount point, which moves a directory in its cache of names to where it is found (fs/dcache.c,
// d_splice_alias). Gives the inode number that it shows there. Arguments: n mount point, i minor number of its device, n path.
int64_t walkOwn(const Call& call) {
  int mount = openOwnMount(call);
  if (mount < 0) return mount;
  // A name on the way may have become a symbolic link, or have another file system mounted on it.
  open_how how{};
  how.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  struct statx st;
  int64_t result;
  int found = static_cast<int>(syscall(SYS_openat2, mount, call.name[1], &how, sizeof how));
  if (found < 0) {
    result = -errno;
  } else {
    result = ::statx(found, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st) != 0 ? -errno : static_cast<int64_t>(st.stx_ino);
    ::close(found);
  }
  ::close(mount);
  return result;
}

const CallRow kRows[] = {
    {"lookOwnSize", "niiiiii", lookOwnSize},
    {"refreshOwnSize", "niii", refreshOwnSize},
    {"lockOwn", "niii", lockOwn},
    {"walkOwn", "nin", walkOwn},
};

}  // namespace

CallRows ownCalls() { return {kRows, sizeof kRows / sizeof kRows[0]}; }

}  // namespace coverlay
