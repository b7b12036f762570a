// See pool.h.
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

namespace coverlay {

namespace {

constexpr size_t kThreadsDefault = 4;
// A notification may be blocked for as long as another node takes; this many at once.
constexpr size_t kNotifyThreadsMax = 4096;
// Each waits for a request that the serving thread answers at once, or for a page of one reader.
constexpr size_t kOwnThreadsMax = 256;
constexpr size_t kThreadStackBytes = 256 * 1024;
constexpr std::chrono::seconds kIdleThreadMax{30};
// A thread could not be made (pids.max, memory): so long until the next try.
constexpr std::chrono::milliseconds kAgain{20};

}  // namespace

int Pool::submit(Job* job) {
  if (finisher_ != nullptr) {
    // Here, because a thread has the descriptors of the one that starts it.
    std::lock_guard<std::mutex> lock(finisher_->mutex_);
    if (finisher_->threads_ == 0 && !finisher_->startThread()) return -EAGAIN;
  }
  job->ran = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (queued_ >= kPoolQueueMax) return -ENOMEM;
    if (growing_) {
      // Those of one with a finisher are answered by the serving thread, at once: a queue is enough.
      if (finisher_ == nullptr && reserve_ == 0 && !startReserve()) return -EAGAIN;
      if (queued_ >= idle_ && threads_ < threadsMax_ && !startThread()) starved_.notify_one();
    } else {
      while (threads_ < threadsMax_ && startThread()) continue;
    }
    if (threads_ + reserve_ == 0) return -EAGAIN;
    enqueue(job);
  }
  // Not before: a thread that is woken to wait for the mutex must be woken twice.
  wake_.notify_one();
  return 0;
}

void Pool::enqueue(Job* job) {
  job->next = nullptr;
  if (head_ == nullptr) {
    head_ = job;
  } else {
    tail_->next = job;
  }
  tail_ = job;
  queued_++;
}

bool Pool::setThreads(size_t threads) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (threads_ != 0) return false;
  threadsMax_ = threads;
  return true;
}

bool Pool::startThread() {
  if (!start(entry)) return false;
  threads_++;
  // A new thread counts as idle until it takes its first job.
  idle_++;
  return true;
}

bool Pool::startReserve() {
  if (!start(reserveEntry)) return false;
  reserve_ = 1;
  return true;
}

bool Pool::start(void* (*begin)(void*)) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kThreadStackBytes);
  pthread_t thread;
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = pthread_create(&thread, &attributes, begin, this) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return started;
}

void* Pool::entry(void* pool) {
  unshare(CLONE_FS);
  if (static_cast<Pool*>(pool)->finisher_ != nullptr) Environment::keepWakeUpOnly();
  static_cast<Pool*>(pool)->work();
  return nullptr;
}

void* Pool::reserveEntry(void* pool) {
  static_cast<Pool*>(pool)->keepGrowing();
  return nullptr;
}

// All threads may wait for what only a job in the queue sets free, and no other job may come.
void Pool::keepGrowing() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    if (queued_ <= idle_ || threads_ >= threadsMax_) {
      starved_.wait(lock);
    } else if (!startThread()) {
      starved_.wait_for(lock, kAgain);
    }
  }
}

void Pool::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    Job* job = take(lock);
    if (job == nullptr) return;
    lock.unlock();
    if (!job->ran && job->environment->mayRun(*job)) job->run();
    if (finisher_ == nullptr || job->environment->mayFinish()) {
      job->environment->finish(job);
    } else {
      job->ran = true;
      {
        std::lock_guard<std::mutex> theirs(finisher_->mutex_);
        finisher_->enqueue(job);
      }
      finisher_->wake_.notify_one();
    }
    lock.lock();
    idle_++;
  }
}

// The next job; nullptr if this thread is to end. The caller counts as idle until this returns.
Job* Pool::take(std::unique_lock<std::mutex>& lock) {
  while (head_ == nullptr) {
    if (!growing_) {
      wake_.wait(lock);
    } else if (wake_.wait_for(lock, kIdleThreadMax) == std::cv_status::timeout && head_ == nullptr) {
      idle_--;
      threads_--;
      return nullptr;
    }
  }
  Job* job = head_;
  head_ = job->next;
  if (head_ == nullptr) tail_ = nullptr;
  queued_--;
  idle_--;
  return job;
}

Pool& metadataPool() {
  static Pool* pool = new Pool(kThreadsDefault, false);
  return *pool;
}

Pool& dataPool() {
  static Pool* pool = new Pool(kThreadsDefault, false);
  return *pool;
}

Pool& syncPool() {
  static Pool* pool = new Pool(kThreadsDefault, false);
  return *pool;
}

Pool& notifyPool() {
  static Pool* pool = new Pool(kNotifyThreadsMax, true);
  return *pool;
}

Pool& ownPool() {
  static Pool* finisher = new Pool(1, false);
  static Pool* pool = new Pool(kOwnThreadsMax, true, finisher);
  return *pool;
}

}  // namespace coverlay
