// Pools of threads of our own (libuv's is shared with DNS and fs, and four threads of one pool that wait
// for each other never come back: hazard F3). Each thread blocks all signals and has its own umask.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>

#include "environment.h"

namespace coverlay {

// Jobs that may wait in one pool. The kernel holds at most 65535 background requests of one mount, so
// more than this is a caller out of control: submit() refuses.
constexpr size_t kPoolQueueMax = 1u << 18;

class Pool {
 public:
  // A fixed pool starts all `threads` at the first job. A growing one starts a thread whenever all that
  // it has are busy, up to `threads`, and lets go of those which are idle for long. One more thread tries again where one cannot be made. With a finisher
  // it has no such one, and its threads have descriptors of their own, at first none but that which wakes the event loop: a thread that waits for our
  // own mount must not keep /dev/fuse open, because when the process dies, closing that is what ends the wait. The event loop of
  // another environment they can not wake, and the finisher, a pool of one thread, does.
  Pool(size_t threads, bool growing, Pool* finisher = nullptr)
      : threadsMax_(threads), growing_(growing), finisher_(finisher) {}

  // 0, or -errno: the job was not taken.
  int submit(Job* job);
  // False once the pool has started.
  bool setThreads(size_t threads);

 private:
  void enqueue(Job* job);
  static void* entry(void* pool);
  void work();
  static void* reserveEntry(void* pool);
  void keepGrowing();
  bool startThread();
  bool startReserve();
  bool start(void* (*begin)(void*));
  Job* take(std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;
  std::condition_variable wake_;
  // A growing pool could not start a thread.
  std::condition_variable starved_;
  size_t threadsMax_;
  bool const growing_;
  Pool* const finisher_;
  size_t threads_ = 0;
  size_t reserve_ = 0;
  size_t idle_ = 0;
  size_t queued_ = 0;
  Job* head_ = nullptr;
  Job* tail_ = nullptr;
};

// Created once and never destroyed: their threads outlive every environment.
Pool& metadataPool();
Pool& dataPool();
Pool& syncPool();
Pool& notifyPool();
// For calls on the own mount.
Pool& ownPool();

}  // namespace coverlay
