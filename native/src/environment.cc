// See environment.h. Threads of the pools put finished jobs on a list and wake the event loop by an
// eventfd; the loop settles each in a callback scope of its own, so that what awaits it runs at once
// and a long list does not hold the first answers back.
#include "environment.h"

#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>

#include "argument.h"
#include "device.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

namespace coverlay {

namespace {

// include/uapi/linux/close_range.h
constexpr unsigned kCloseRangeUnshare = 2;

// The wake-up of the environment that was made last. Held while descriptors are taken from a thread, so that it is not closed meanwhile.
std::mutex lastWakeUpMutex;
int lastWakeUpFd = -1;
uint64_t lastSerial = 0;
uint64_t serials = 0;
thread_local uint64_t keptSerial = 0;

// How long an environment that ends waits for system calls that still use its memory. A disk that
// hangs longer than that must not keep a process from exiting.
constexpr std::chrono::milliseconds kTearDownWaitMax{1000};

}  // namespace

bool Environment::create(napi_env env) {
  std::shared_ptr<Environment> self(new Environment(env));
  if (napi_get_uv_event_loop(env, &self->loop) != napi_ok) return false;
  napi_value resource, name;
  if (napi_create_object(env, &resource) != napi_ok || napi_create_string_utf8(env, "coverlay", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_reference(env, resource, 1, &self->resource_) != napi_ok ||
      napi_async_init(env, resource, name, &self->context_) != napi_ok) {
    return false;
  }
  if (!self->openWakeUp()) return false;
  napi_add_async_cleanup_hook(
      env,
      [](napi_async_cleanup_hook_handle hook, void* data) { static_cast<Environment*>(data)->tearDown(hook); },
      self.get(), &self->hook_);
  napi_set_instance_data(env, self.get(), nullptr, nullptr);
  self->self_ = self;
  return true;
}

bool Environment::openWakeUp() {
  wakeFd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wakeFd_ < 0 || uv_poll_init(loop, &wake_, wakeFd_) != 0) return false;
  wake_.data = this;
  uv_poll_start(&wake_, UV_READABLE, [](uv_poll_t* poll, int, int) { static_cast<Environment*>(poll->data)->settleDone(); });
  uv_unref(reinterpret_cast<uv_handle_t*>(&wake_));
  std::lock_guard<std::mutex> lock(lastWakeUpMutex);
  serial_ = ++serials;
  lastWakeUpFd = wakeFd_;
  lastSerial = serial_;
  return true;
}

Environment::~Environment() {
  std::lock_guard<std::mutex> lock(lastWakeUpMutex);
  if (lastSerial == serial_) lastWakeUpFd = -1;
  if (wakeFd_ >= 0) ::close(wakeFd_);
}

// close_range(2), Linux 5.9; without it the thread shares the descriptors of the process, as the others do, and a finisher does the rest.
void Environment::keepWakeUpOnly() {
  std::lock_guard<std::mutex> lock(lastWakeUpMutex);
  unsigned kept = static_cast<unsigned>(lastWakeUpFd);
  if (lastWakeUpFd < 1) {
    syscall(SYS_close_range, 0u, ~0u, kCloseRangeUnshare);
  } else if (syscall(SYS_close_range, 0u, kept - 1, kCloseRangeUnshare) == 0 && syscall(SYS_close_range, kept + 1, ~0u, 0u) == 0) {
    keptSerial = lastSerial;
  }
}

bool Environment::mayFinish() const { return serial_ == keptSerial; }

Environment* Environment::of(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return static_cast<Environment*>(data);
}

napi_value Environment::begin(Job* job) {
  napi_value promise = nullptr;
  if (napi_create_promise(env, &job->deferred, &promise) != napi_ok) {
    delete job;
    return nullptr;
  }
  job->environment = shared_from_this();
  if (job->usesJavaScriptMemory()) {
    std::lock_guard<std::mutex> lock(mutex_);
    usingMemory_++;
  }
  if (pending_++ == 0) uv_ref(reinterpret_cast<uv_handle_t*>(&wake_));
  return promise;
}

bool Environment::mayRun(const Job& job) {
  if (!job.usesJavaScriptMemory()) return true;
  std::lock_guard<std::mutex> lock(mutex_);
  return !closed_;
}

void Environment::finish(Job* job) {
  std::shared_ptr<Environment> keep = job->environment;
  std::unique_lock<std::mutex> lock(mutex_);
  if (job->usesJavaScriptMemory() && --usingMemory_ == 0) quiet_.notify_all();
  if (closed_) {
    lock.unlock();
    delete job;
    return;
  }
  job->next = nullptr;
  bool wasEmpty = doneHead_ == nullptr;
  if (wasEmpty) {
    doneHead_ = job;
  } else {
    doneTail_->next = job;
  }
  doneTail_ = job;
  lock.unlock();
  const uint64_t one = 1;
  // It is never full: the loop's thread takes it all, and one is written for each empty list.
  if (wasEmpty && ::write(wakeFd_, &one, sizeof one) < 0) abort();
}

void Environment::settleDone() {
  uint64_t wakes;
  // Before the list is taken: what is finished later wakes again. EAGAIN: somebody has taken it before.
  if (::read(wakeFd_, &wakes, sizeof wakes) < 0 && errno != EAGAIN && errno != EINTR) abort();
  Job* job;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    job = doneHead_;
    doneHead_ = doneTail_ = nullptr;
  }
  while (job != nullptr) {
    Job* next = job->next;
    settleOne(job);
    job = next;
  }
}

void Environment::settleOne(Job* job) {
  napi_handle_scope handles;
  napi_callback_scope callbacks;
  napi_value resource;
  if (napi_open_handle_scope(env, &handles) != napi_ok) return;
  napi_get_reference_value(env, resource_, &resource);
  if (napi_open_callback_scope(env, resource, context_, &callbacks) == napi_ok) {
    napi_value value = job->settle(env);
    napi_resolve_deferred(env, job->deferred, value);
    if (--pending_ == 0) uv_unref(reinterpret_cast<uv_handle_t*>(&wake_));
    napi_close_callback_scope(env, callbacks);
  }
  delete job;
  bool thrown = false;
  if (napi_is_exception_pending(env, &thrown) == napi_ok && thrown) {
    napi_value error;
    napi_get_and_clear_last_exception(env, &error);
    napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, handles);
}

bool Environment::callBack(napi_ref function, int64_t argument) {
  napi_handle_scope handles;
  if (napi_open_handle_scope(env, &handles) != napi_ok) return false;
  napi_value callee = nullptr, receiver = nullptr;
  napi_get_reference_value(env, function, &callee);
  napi_get_global(env, &receiver);
  napi_value value = makeNumber(env, argument);
  napi_status status = napi_make_callback(env, context_, receiver, callee, 1, &value, nullptr);
  bool thrown = false;
  napi_is_exception_pending(env, &thrown);
  if (thrown) {
    napi_value error;
    napi_get_and_clear_last_exception(env, &error);
    napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, handles);
  return status == napi_ok || status == napi_pending_exception;
}

void Environment::addDevice(Device* device) {
  devices_.push_back(device);
  openHandles_++;
}

void Environment::removeDevice(Device* device) {
  devices_.erase(std::remove(devices_.begin(), devices_.end(), device), devices_.end());
}

void Environment::tearDown(napi_async_cleanup_hook_handle hook) {
  hook_ = hook;
  for (Device* device : std::vector<Device*>(devices_)) stopDevice(device);
  {
    std::unique_lock<std::mutex> lock(mutex_);
    closed_ = true;
    quiet_.wait_for(lock, kTearDownWaitMax, [this] { return usingMemory_ == 0; });
    while (doneHead_ != nullptr) {
      Job* job = doneHead_;
      doneHead_ = job->next;
      delete job;
    }
  }
  uv_close(reinterpret_cast<uv_handle_t*>(&wake_), [](uv_handle_t* handle) { static_cast<Environment*>(handle->data)->handleClosed(); });
}

void Environment::handleClosed() {
  // The eventfd's is open until the environment ends, so this reaches 0 only then.
  if (--openHandles_ != 0) return;
  std::shared_ptr<Environment> keep = std::move(self_);
  napi_remove_async_cleanup_hook(hook_);
}

}  // namespace coverlay
