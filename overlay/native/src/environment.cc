// See environment.h. Threads of the pools put finished jobs on a list and wake the event loop by one
// uv_async; the loop settles each in a callback scope of its own, so that what awaits it runs at once
// and a long list does not hold the first answers back.
#include "environment.h"

#include <algorithm>
#include <chrono>

#include "argument.h"
#include "device.h"

namespace coverlay {

namespace {

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
  if (uv_async_init(self->loop, &self->async_, [](uv_async_t* async) { static_cast<Environment*>(async->data)->settleDone(); }) != 0) {
    return false;
  }
  self->async_.data = self.get();
  uv_unref(reinterpret_cast<uv_handle_t*>(&self->async_));
  napi_add_async_cleanup_hook(
      env,
      [](napi_async_cleanup_hook_handle hook, void* data) { static_cast<Environment*>(data)->tearDown(hook); },
      self.get(), &self->hook_);
  napi_set_instance_data(env, self.get(), nullptr, nullptr);
  self->self_ = self;
  return true;
}

Environment* Environment::of(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return static_cast<Environment*>(data);
}

napi_value Environment::begin(Job* job) {
  napi_value promise = nullptr;
  if (napi_create_promise(env, &job->deferred, &promise) != napi_ok) return nullptr;
  job->environment = shared_from_this();
  if (job->usesJavaScriptMemory()) {
    std::lock_guard<std::mutex> lock(mutex_);
    usingMemory_++;
  }
  if (pending_++ == 0) uv_ref(reinterpret_cast<uv_handle_t*>(&async_));
  return promise;
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
  if (wasEmpty) uv_async_send(&async_);
}

void Environment::settleDone() {
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
    if (--pending_ == 0) uv_unref(reinterpret_cast<uv_handle_t*>(&async_));
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
  uv_close(reinterpret_cast<uv_handle_t*>(&async_), [](uv_handle_t* handle) { static_cast<Environment*>(handle->data)->handleClosed(); });
}

void Environment::handleClosed() {
  // The async is open until the environment ends, so this reaches 0 only then.
  if (--openHandles_ != 0) return;
  std::shared_ptr<Environment> keep = std::move(self_);
  napi_remove_async_cleanup_hook(hook_);
}

}  // namespace coverlay
