// Acting as the caller of a request while a file is made (credentials(7), setfsuid(2), umask(2)).
#pragma once

#include <cstdint>

namespace coverlay {

// For the life of the object the calling thread has this umask and these filesystem ids. The kernel
// has checked the caller's permission with all of its groups, which setfsuid(2) knows nothing of, so
// CAP_DAC_OVERRIDE stays (hazard F15); all else that setfsuid takes from root is taken.
class ActAs {
 public:
  static constexpr uint32_t kKeepUmask = 0xffffffff;

  // `moreCapabilities`: a mask of capabilities 0..31 to keep besides CAP_DAC_OVERRIDE.
  ActAs(uint32_t umask, uint32_t uid, uint32_t gid, uint32_t moreCapabilities = 0);
  ~ActAs();
  ActAs(const ActAs&) = delete;
  ActAs& operator=(const ActAs&) = delete;

  // 0, or -errno: the thread could not become that user, and nothing may be made.
  int64_t error() const { return error_; }

 private:
  void becomeUser(uint32_t moreCapabilities);

  uint32_t const umask_;
  uint32_t const uid_;
  uint32_t const gid_;
  uint32_t umaskBefore_ = 0;
  uint32_t uidBefore_ = 0;
  uint32_t gidBefore_ = 0;
  bool changed_ = false;
  int64_t error_ = 0;
};

}  // namespace coverlay
