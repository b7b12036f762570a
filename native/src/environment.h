// What one JavaScript environment (the main thread, or a worker) has in this addon: the list of jobs
// that are done, the uv_async that brings them home, the devices it serves.
#pragma once

#include <node_api.h>
#include <uv.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

namespace coverlay {

class Environment;
struct Device;

// Work for a thread of a pool, with the promise that it settles.
class Job {
 public:
  virtual ~Job() = default;
  // On a thread of a pool. Never touches JavaScript.
  virtual void run() = 0;
  // On the thread of the environment: gives references back and makes the value of the promise.
  virtual napi_value settle(napi_env env) = 0;
  // True if run() uses memory of JavaScript, which must not be freed under it.
  virtual bool usesJavaScriptMemory() const { return false; }

  std::shared_ptr<Environment> environment;
  napi_deferred deferred = nullptr;
  Job* next = nullptr;
  // On its way through a second pool.
  bool ran = false;
};

class Environment : public std::enable_shared_from_this<Environment> {
 public:
  static bool create(napi_env env);
  static Environment* of(napi_env env);
  ~Environment();

  // Makes the promise of `job`, and keeps the process alive until it is settled. nullptr: JavaScript is not called any more in this environment (a worker
  // that is being ended still runs on to the next turn of a loop); the job is gone.
  napi_value begin(Job* job);
  // From any thread, before run(). False: the environment has ended, and the memory that the job would use may be gone.
  bool mayRun(const Job& job);
  // From any thread that has the descriptors of this process, or `mayFinish`; once, after run(). The environment owns the job from here on.
  void finish(Job* job);

  // Takes all descriptors from this thread but the one that finish() needs, of the environment that was made last.
  static void keepWakeUpOnly();
  // Has this thread kept that of this environment?
  bool mayFinish() const;

  // Calls a function in a callback scope, so that promises are drained. An exception becomes an
  // uncaughtException. False if JavaScript cannot be called any more.
  bool callBack(napi_ref function, int64_t argument);

  void addDevice(Device* device);
  void removeDevice(Device* device);
  // From the close callback of every handle of this environment, the last thing that it does.
  void handleClosed();

  napi_env const env;
  uv_loop_t* loop = nullptr;

 private:
  explicit Environment(napi_env owner) : env(owner) {}
  bool openWakeUp();
  void settleDone();
  void settleOne(Job* job);
  void tearDown(napi_async_cleanup_hook_handle hook);

  napi_async_context context_ = nullptr;
  napi_ref resource_ = nullptr;
  // An eventfd and not an uv_async: a thread can wake the loop without holding `mutex_`, for which the loop's thread would then wait, and
  // without having anything else of this process open. It is closed when the last job is gone, so a number can not be another file's by then.
  int wakeFd_ = -1;
  uint64_t serial_ = 0;
  uv_poll_t wake_{};
  size_t pending_ = 0;
  // uv handles that are not closed yet: the eventfd's, and one for each device.
  size_t openHandles_ = 1;
  std::vector<Device*> devices_;
  std::shared_ptr<Environment> self_;
  napi_async_cleanup_hook_handle hook_ = nullptr;

  std::mutex mutex_;
  std::condition_variable quiet_;
  bool closed_ = false;
  size_t usingMemory_ = 0;
  Job* doneHead_ = nullptr;
  Job* doneTail_ = nullptr;
};

}  // namespace coverlay
