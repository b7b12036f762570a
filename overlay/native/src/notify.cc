// Notifications to the kernel (fuse(4), FUSE_NOTIFY_*): each is one write(2), which may wait for locks
// of the kernel that only a request to this process sets free, so it never happens on the serving
// thread, and never waits for another notification (hazard F3). Messages are copied, so that one that
// is stuck for ever holds no memory of JavaScript.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "argument.h"
#include "environment.h"
#include "export.h"
#include "pool.h"

namespace coverlay {

namespace {

constexpr const char* kCall = "notify";
constexpr uint32_t kMessagesMax = 1u << 20;

class NotifyJob : public Job {
 public:
  explicit NotifyJob(int fd) : fd_(fd) {}

  void add(const uint8_t* data, size_t bytes) {
    if (bytes != 0) bytes_.insert(bytes_.end(), data, data + bytes);
    lengths_.push_back(bytes);
    results_.push_back(-EAGAIN);
  }

  void fail(int error) { results_.assign(results_.size(), error); }

  void run() override {
    const uint8_t* at = bytes_.data();
    for (size_t index = 0; index < lengths_.size(); index++) {
      ssize_t written = ::write(fd_, at, lengths_[index]);
      results_[index] = written < 0 ? -errno : 0;
      at += lengths_[index];
    }
  }

  napi_value settle(napi_env env) override {
    napi_value array = nullptr;
    napi_create_array_with_length(env, results_.size(), &array);
    for (uint32_t index = 0; index < results_.size(); index++) napi_set_element(env, array, index, makeNumber(env, results_[index]));
    return array;
  }

 private:
  int const fd_;
  std::vector<uint8_t> bytes_;
  std::vector<size_t> lengths_;
  std::vector<int> results_;
};

bool addMessages(napi_env env, napi_value array, NotifyJob* job) {
  bool isArray = false;
  uint32_t count = 0;
  if (napi_is_array(env, array, &isArray) != napi_ok || !isArray || napi_get_array_length(env, array, &count) != napi_ok) {
    return throwType(env, kCall, 1, "an array of Buffers");
  }
  if (count > kMessagesMax) return throwRange(env, kCall, 1, "at most 1048576 messages");
  for (uint32_t index = 0; index < count; index++) {
    napi_handle_scope scope;
    napi_value element;
    uint8_t* data;
    size_t bytes;
    napi_open_handle_scope(env, &scope);
    bool ok = napi_get_element(env, array, index, &element) == napi_ok && readBuffer(env, element, kCall, 1, &data, &bytes);
    if (ok) job->add(data, bytes);
    napi_close_handle_scope(env, scope);
    if (!ok) return false;
  }
  return true;
}

napi_value notify(napi_env env, napi_callback_info info) {
  napi_value values[2];
  int fd;
  if (!readArguments(env, info, kCall, 2, values) || !readDescriptor(env, values[0], kCall, 0, &fd)) return nullptr;
  auto* job = new NotifyJob(fd);
  if (!addMessages(env, values[1], job)) {
    delete job;
    return nullptr;
  }
  Environment* environment = Environment::of(env);
  napi_value promise = environment->begin(job);
  int refused = notifyPool().submit(job);
  if (refused != 0) {
    job->fail(refused);
    environment->finish(job);
  }
  return promise;
}

}  // namespace

bool exportNotify(napi_env env, napi_value exports) {
  const napi_property_descriptor property = {"notify", nullptr, notify, nullptr, nullptr, nullptr, napi_default_jsproperty, nullptr};
  return napi_define_properties(env, exports, 1, &property) == napi_ok;
}

}  // namespace coverlay
