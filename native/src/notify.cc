// Notifications to the kernel (fuse(4), FUSE_NOTIFY_*): each is one write(2), which may wait for locks
// of the kernel that only a request to this process sets free, so it never happens on the serving
// thread, and never waits for another notification (hazard F3). Messages are copied, so that one that
// is stuck for ever holds no memory of JavaScript.
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "argument.h"
#include "export.h"
#include "external.h"
#include "notify-job.h"

namespace coverlay {

namespace {

constexpr const char* kCall = "notify";
constexpr uint32_t kMessagesMax = 1u << 20;

constexpr int kGateOpen = 0;
constexpr int kGatePassed = 1;
constexpr int kGateShut = 2;

constexpr napi_type_tag kGateTag = {0x1f6a83c94e2b7d05, 0xb42e9d7051c86fa3};

// Between the notifying thread and JavaScript: whoever comes first.
struct Gate {
  std::atomic<int> state{kGateOpen};
  // While the messages are being written: the thread that does it.
  std::atomic<pid_t> thread{0};
};

class NotifyJob : public NotifyPoolJob {
 public:
  explicit NotifyJob(int fd) : fd_(fd) {}

  // Message `at` and those after it are written only if nobody has shut the gate before.
  void setGate(std::shared_ptr<Gate> gate, size_t at) {
    gate_ = std::move(gate);
    gateAt_ = at;
  }

  void add(const uint8_t* data, size_t bytes) {
    if (bytes != 0) bytes_.insert(bytes_.end(), data, data + bytes);
    lengths_.push_back(bytes);
    results_.push_back(-EAGAIN);
  }

  void fail(int error) override { results_.assign(results_.size(), error); }

  void run() override {
    if (gate_ != nullptr) gate_->thread = static_cast<pid_t>(::syscall(SYS_gettid));
    writeAll();
    if (gate_ != nullptr) gate_->thread = 0;
  }

  napi_value settle(napi_env env) override {
    napi_value array = nullptr;
    napi_create_array_with_length(env, results_.size(), &array);
    for (uint32_t index = 0; index < results_.size(); index++) napi_set_element(env, array, index, makeNumber(env, results_[index]));
    return array;
  }

 private:
  void writeAll() {
    const uint8_t* at = bytes_.data();
    for (size_t index = 0; index < lengths_.size(); index++) {
      if (gate_ != nullptr && index == gateAt_ && !passGate()) {
        for (; index < lengths_.size(); index++) results_[index] = -ECANCELED;
        return;
      }
      ssize_t written = ::write(fd_, at, lengths_[index]);
      results_[index] = written < 0 ? -errno : 0;
      at += lengths_[index];
    }
  }

  bool passGate() {
    int found = kGateOpen;
    return gate_->state.compare_exchange_strong(found, kGatePassed);
  }

  int const fd_;
  std::shared_ptr<Gate> gate_;
  size_t gateAt_ = 0;
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

bool readGate(napi_env env, napi_value value, const char* call, size_t index, std::shared_ptr<Gate>** gate) {
  return readExternal(env, kGateTag, value, call, index, "a gate", gate);
}

// The two arguments that may be left out.
bool addGate(napi_env env, napi_callback_info info, NotifyJob* job) {
  napi_value values[4];
  size_t given = 4;
  int64_t at;
  std::shared_ptr<Gate>* gate;
  if (napi_get_cb_info(env, info, &given, values, nullptr, nullptr) != napi_ok || given < 4) return true;
  if (!readGate(env, values[2], kCall, 2, &gate) || !readInteger(env, values[3], kCall, 3, &at)) return false;
  job->setGate(*gate, static_cast<size_t>(at));
  return true;
}

napi_value createGate(napi_env env, napi_callback_info) { return makeExternal(env, kGateTag, std::make_shared<Gate>()); }

napi_value shutGate(napi_env env, napi_callback_info info) {
  napi_value value, result;
  std::shared_ptr<Gate>* gate;
  if (!readArguments(env, info, "shutGate", 1, &value) || !readGate(env, value, "shutGate", 0, &gate)) return nullptr;
  int found = kGateOpen;
  bool shut = (*gate)->state.compare_exchange_strong(found, kGateShut) || found == kGateShut;
  napi_get_boolean(env, shut, &result);
  return result;
}

napi_value gateThread(napi_env env, napi_callback_info info) {
  napi_value value;
  std::shared_ptr<Gate>* gate;
  if (!readArguments(env, info, "gateThread", 1, &value) || !readGate(env, value, "gateThread", 0, &gate)) return nullptr;
  return makeNumber(env, (*gate)->thread);
}

napi_value notify(napi_env env, napi_callback_info info) {
  napi_value values[2];
  int fd;
  if (!readArguments(env, info, kCall, 2, values) || !readDescriptor(env, values[0], kCall, 0, &fd)) return nullptr;
  auto* job = new NotifyJob(fd);
  if (!addMessages(env, values[1], job) || !addGate(env, info, job)) {
    delete job;
    return nullptr;
  }
  return submitNotify(env, job);
}

}  // namespace

bool exportNotify(napi_env env, napi_value exports) {
  return exportCalls(env, exports, {
      {"notify", notify},
      {"createGate", createGate},
      {"shutGate", shutGate},
      {"gateThread", gateThread},
  });
}

}  // namespace coverlay
