// See credential.h. All by raw system calls: glibc's wrappers change the ids of every thread.
// setfsuid(2) from 0 to another id takes the capabilities of kFilesystemCapabilities out of the
// effective set, and back to 0 adds those that are permitted (kernel: security/commoncap.c,
// cap_task_fix_setuid).
#include "credential.h"

#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace coverlay {

namespace {

constexpr uint32_t bit(int capability) { return 1u << capability; }

// CAP_FS_SET of the kernel, its first word; CAP_MAC_OVERRIDE (32) is the only one in the second.
constexpr uint32_t kFilesystemCapabilities = bit(CAP_CHOWN) | bit(CAP_MKNOD) | bit(CAP_DAC_OVERRIDE) | bit(CAP_DAC_READ_SEARCH) |
                                             bit(CAP_FOWNER) | bit(CAP_FSETID) | bit(CAP_LINUX_IMMUTABLE);

struct Capabilities {
  __user_cap_data_struct words[_LINUX_CAPABILITY_U32S_3];
};

long setCapabilities(const Capabilities& capabilities) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  return syscall(SYS_capset, &header, capabilities.words);
}

// What the thread has at its first creating call; nothing else changes it.
const Capabilities& ownCapabilities() {
  static thread_local Capabilities own;
  static thread_local bool known = false;
  if (!known) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    known = syscall(SYS_capget, &header, own.words) == 0;
  }
  return own;
}

uint32_t setFsUid(uint32_t uid) { return static_cast<uint32_t>(syscall(SYS_setfsuid, uid)); }
uint32_t setFsGid(uint32_t gid) { return static_cast<uint32_t>(syscall(SYS_setfsgid, gid)); }

}  // namespace

ActAs::ActAs(uint32_t umask, uint32_t uid, uint32_t gid, uint32_t moreCapabilities) : umask_(umask), uid_(uid), gid_(gid) {
  if (umask_ != kKeepUmask) umaskBefore_ = ::umask(umask_ & 0777);
  if (uid_ != 0 || gid_ != 0) becomeUser(moreCapabilities);
}

void ActAs::becomeUser(uint32_t moreCapabilities) {
  Capabilities capabilities = ownCapabilities();
  changed_ = true;
  gidBefore_ = setFsGid(gid_);
  uidBefore_ = setFsUid(uid_);
  // Neither call reports failure but by the id that the next one finds.
  if (setFsGid(gid_) != gid_ || setFsUid(uid_) != uid_) {
    error_ = -EPERM;
    return;
  }
  if (uid_ == 0) return;
  uint32_t kept = bit(CAP_DAC_OVERRIDE) | moreCapabilities;
  capabilities.words[0].effective = (capabilities.words[0].effective & ~kFilesystemCapabilities) | (kept & capabilities.words[0].permitted);
  capabilities.words[1].effective &= ~CAP_TO_MASK(CAP_MAC_OVERRIDE);
  if (setCapabilities(capabilities) != 0) error_ = -errno;
}

ActAs::~ActAs() {
  int saved = errno;
  if (changed_) {
    setFsUid(uidBefore_);
    setFsGid(gidBefore_);
    if (uid_ != 0) setCapabilities(ownCapabilities());
  }
  if (umask_ != kKeepUmask) ::umask(umaskBefore_);
  errno = saved;
}

}  // namespace coverlay
