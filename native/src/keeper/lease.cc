// See lease.h (hazard F7).
#include "lease.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "descriptors.h"

namespace keeper {

namespace {

// dlmd/wire/lease-page.ts
constexpr size_t kPageBytes = 48;
constexpr uint32_t kMagic = 0x31534c43;
constexpr uint32_t kVersion = 2;
constexpr size_t kEndsAt = 24;

constexpr int64_t kMostMs = INT32_MAX;

double readEnd(const uint8_t* at) {
  // Another process writes it.
  uint64_t bits = __atomic_load_n(reinterpret_cast<const uint64_t*>(at), __ATOMIC_ACQUIRE);
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

double bootTimeMs() {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

}  // namespace

bool Lease::open() {
  struct stat found;
  if (fstat(kLeaseFd, &found) != 0 || S_ISCHR(found.st_mode)) return true;
  if (!S_ISREG(found.st_mode) || found.st_size < static_cast<off_t>(kPageBytes)) return false;
  void* memory = mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, kLeaseFd, 0);
  if (memory == MAP_FAILED) return false;
  page_ = static_cast<const uint8_t*>(memory);
  uint32_t head[2];
  memcpy(head, page_, sizeof head);
  return head[0] == kMagic && head[1] == kVersion;
}

// Of the two ends the lower one: half of a number is never seen. One that is no number has come.
int64_t Lease::leftMs() const {
  if (page_ == nullptr) return kMostMs;
  const double leftMs = std::min(readEnd(page_ + kEndsAt), readEnd(page_ + kEndsAt + sizeof(double))) - bootTimeMs();
  return leftMs > 0 ? static_cast<int64_t>(std::ceil(std::min<double>(leftMs, kMostMs))) : 0;
}

}  // namespace keeper
