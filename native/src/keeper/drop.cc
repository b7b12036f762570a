// See drop.h (hazard F7).
#include "drop.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>

#include "descriptors.h"
#include "process.h"

namespace keeper {

// In memory that the children share. All but the last are counts of items: names, the root, and each row.
struct DropCounters {
  std::atomic<uint64_t> taken{0};
  std::atomic<uint64_t> done{0};
  std::atomic<int> refused{0};
};

static_assert(std::atomic<uint64_t>::is_always_lock_free, "it works across processes");

namespace {

// One more child, twice as many the next time, when no item was taken for so long. A test fills more than one with calls that nobody answers.
constexpr int64_t kStallMs = 5;
constexpr int kChildrenMax = 256;
// All items are taken, or all children wait: no more is waited for.
constexpr int64_t kStuckMs = 20;
// Of a connection that is ended; and of one that is not, where most of what waits goes on waiting.
constexpr int64_t kFinishMs = 10'000;
constexpr int64_t kFinishOpenMs = 500;

// overlay/crash/layout.ts
struct Table {
  off_t usedAt, at, rowBytes;
  // Of a row: a number of an inode, and a word that is 0 if the row is free.
  size_t nodeidAt, stateAt;
};

constexpr Table kInodes = {104, 65536, 40, 0, 28};
constexpr Table kHandles = {108, 65536 + 40 * 2'097'152, 32, 8, 24};
static_assert(kHandles.rowBytes <= kInodes.rowBytes, "a row of either is read into as many bytes as the longer one has");

constexpr uint64_t kNames = 0;
constexpr uint64_t kRoot = 1;
constexpr uint64_t kFirstHandle = 2;

// include/uapi/linux/fuse.h
constexpr int32_t kInvalInode = 2;
constexpr int32_t kIncEpoch = 8;
constexpr uint64_t kRootNodeid = 1;

struct OutHeader {
  uint32_t bytes;
  int32_t code;
  uint64_t unique;
};

struct InvalInode {
  OutHeader header;
  uint64_t nodeid;
  int64_t offset;
  int64_t length;
};

// False: there is nothing of that kind.
bool notify(const void* message, size_t bytes, DropCounters* counters) {
  if (write(kFuseFd, message, bytes) >= 0) return true;
  // It does not know that inode, or has no such notification; it has no mount, or none any more.
  for (int nothing : {ENOENT, EINVAL, ENOTCONN, ENODEV, EPERM}) {
    if (errno == nothing) return false;
  }
  counters->refused = errno;
  return true;
}

void dropNames(DropCounters* counters) {
  const OutHeader message = {sizeof message, kIncEpoch, 0};
  notify(&message, sizeof message, counters);
}

bool dropInode(uint64_t nodeid, DropCounters* counters) {
  const InvalInode message = {{sizeof message, kInvalInode, 0}, nodeid, 0, 0};
  return notify(&message, sizeof message, counters);
}

// 0: the row is free.
uint64_t readRow(const Table& table, uint64_t row) {
  uint8_t bytes[kInodes.rowBytes];
  const size_t wanted = static_cast<size_t>(table.rowBytes);
  if (pread(kJournalFd, bytes, wanted, table.at + static_cast<off_t>(row) * table.rowBytes) != table.rowBytes) return 0;
  uint32_t state;
  double number;
  memcpy(&state, bytes + table.stateAt, sizeof state);
  memcpy(&number, bytes + table.nodeidAt, sizeof number);
  constexpr double kMost = 9007199254740991;
  return state != 0 && number >= 1 && number <= kMost ? static_cast<uint64_t>(number) : 0;
}

// False: there are no more. A mount without its root has no inodes.
bool dropItem(uint64_t item, uint64_t handles, DropCounters* counters) {
  if (item == kNames) {
    dropNames(counters);
    return true;
  }
  if (item == kRoot) return dropInode(kRootNodeid, counters);
  const uint64_t row = item - kFirstHandle;
  const uint64_t nodeid = row < handles ? readRow(kHandles, row) : readRow(kInodes, row - handles);
  if (nodeid != 0) dropInode(nodeid, counters);
  return true;
}

void dropItems(DropCounters* counters, uint64_t handles, uint64_t items) {
  for (;;) {
    const uint64_t item = counters->taken.fetch_add(1);
    if (item >= items) return;
    if (!dropItem(item, handles, counters)) counters->taken = items;
    counters->done.fetch_add(1);
  }
}

// What holds no line, no connection to dlmd and no log: each of them may wait for this process.
[[noreturn]] void runChild(DropCounters* counters, uint64_t handles, uint64_t items) {
  ::syscall(SYS_close_range, 0U, static_cast<unsigned>(kFuseFd - 1), 0);
  ::syscall(SYS_close_range, static_cast<unsigned>(kJournalFd + 1), ~0U, 0);
  prctl(PR_SET_NAME, "coverlay-drop");
  dropItems(counters, handles, items);
  _exit(0);
}

int64_t readUsed(const Table& table) {
  uint32_t used = 0;
  struct stat found;
  if (fstat(kJournalFd, &found) != 0 || pread(kJournalFd, &used, sizeof used, table.usedAt) != sizeof used) return 0;
  return std::min<int64_t>(used, std::max<int64_t>(found.st_size - table.at, 0) / table.rowBytes);
}

void sleepShortly() {
  const timespec one = {0, 1'000'000};
  nanosleep(&one, nullptr);
}

}  // namespace

int Drop::refused() const { return counters_ == nullptr ? 0 : counters_->refused.load(); }

uint64_t Drop::items() const { return kFirstHandle + static_cast<uint64_t>(handles_ + rows_); }

bool Drop::isAllTaken() const { return counters_->taken.load() >= items(); }

bool Drop::begin() {
  // Children of another run have theirs for themselves.
  if (counters_ != nullptr) munmap(counters_, sizeof *counters_);
  void* memory = mmap(nullptr, sizeof *counters_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  counters_ = memory == MAP_FAILED ? nullptr : new (memory) DropCounters;
  handles_ = readUsed(kHandles);
  rows_ = readUsed(kInodes);
  started_ = 0;
  lost_ = false;
  return counters_ != nullptr;
}

// fork(2), but for a signal at its end: waitpid(2) has it apart from the processes of the mount (__WCLONE).
bool Drop::startOne() {
  long pid = ::syscall(SYS_clone, 0, nullptr, nullptr, nullptr, nullptr);
  if (pid == 0) runChild(counters_, static_cast<uint64_t>(handles_), items());
  if (pid < 0) return false;
  started_ += 1;
  living_ += 1;
  return true;
}

void Drop::collect() {
  int status;
  while (living_ > 0 && waitpid(-1, &status, WNOHANG | __WCLONE) > 0) {
    living_ -= 1;
    if (!WIFEXITED(status)) lost_ = true;
  }
}

bool Drop::run() {
  if (!begin() || !startOne()) return false;
  uint64_t moved = 0;
  for (int64_t movedMs = nowMs();;) {
    collect();
    const uint64_t found = counters_->taken.load() + counters_->done.load();
    if (found != moved) {
      moved = found;
      movedMs = nowMs();
    }
    const int64_t stalledMs = nowMs() - movedMs;
    if (isAllTaken()) {
      if (living_ == 0 || stalledMs >= kStuckMs) return !lost_;
    } else if (stalledMs >= kStallMs && started_ < kChildrenMax) {
      for (int more = std::min(started_, kChildrenMax - started_); more > 0 && startOne(); more--) continue;
      movedMs = nowMs();
    } else if (stalledMs >= kStuckMs) {
      return false;
    }
    sleepShortly();
  }
}

bool Drop::runHere() {
  if (!begin()) return false;
  dropItems(counters_, static_cast<uint64_t>(handles_), items());
  return true;
}

bool Drop::finish(bool isEnded) {
  for (const int64_t untilMs = nowMs() + (isEnded ? kFinishMs : kFinishOpenMs); living_ > 0 && nowMs() < untilMs; sleepShortly()) collect();
  return living_ == 0;
}

}  // namespace keeper
