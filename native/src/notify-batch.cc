// Many notifications of one length, for as many threads of the notify pool as JavaScript asks for: each takes the next that none has taken,
// so that one which waits in the kernel (hazard F1: for a page that a request holds) keeps its thread and nothing else. See notify.cc.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "argument.h"
#include "export.h"
#include "external.h"
#include "notify-job.h"

namespace coverlay {

namespace {

// As many as notify() takes.
constexpr size_t kMessagesMax = 1u << 20;

constexpr napi_type_tag kBatchTag = {0x7c0e5b2896d1f34a, 0x93a7481ed65c0b2f};

struct Batch {
  std::vector<uint8_t> bytes;
  size_t messageBytes;
  size_t count;
  std::atomic<size_t> next{0};
  std::mutex mutex;
  // Numbers of messages, each with the errno that it met, which JavaScript has not asked for yet.
  std::vector<std::pair<size_t, int>> refused;

  size_t begun() const { return std::min(next.load(), count); }

  void refuse(size_t index, int error) {
    std::lock_guard<std::mutex> lock(mutex);
    refused.emplace_back(index, error);
  }
};

class BatchJob : public NotifyPoolJob {
 public:
  BatchJob(int fd, std::shared_ptr<Batch> batch) : fd_(fd), batch_(std::move(batch)) {}

  void fail(int error) override { result_ = error; }

  void run() override {
    for (size_t index = batch_->next++; index < batch_->count; index = batch_->next++) {
      if (::write(fd_, batch_->bytes.data() + index * batch_->messageBytes, batch_->messageBytes) < 0) batch_->refuse(index, -errno);
    }
  }

  napi_value settle(napi_env env) override { return makeNumber(env, result_); }

 private:
  int const fd_;
  std::shared_ptr<Batch> const batch_;
  int result_ = 0;
};

bool readBatch(napi_env env, napi_value value, const char* call, size_t index, std::shared_ptr<Batch>** batch) {
  return readExternal(env, kBatchTag, value, call, index, "a batch", batch);
}

napi_value createNotifyBatch(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "createNotifyBatch";
  napi_value values[2];
  uint8_t* data;
  size_t bytes;
  int64_t messageBytes;
  if (!readArguments(env, info, kCall, 2, values) || !readBuffer(env, values[0], kCall, 0, &data, &bytes) ||
      !readInteger(env, values[1], kCall, 1, &messageBytes)) {
    return nullptr;
  }
  if (messageBytes <= 0 || bytes % static_cast<size_t>(messageBytes) != 0 || bytes / static_cast<size_t>(messageBytes) > kMessagesMax) {
    throwRange(env, kCall, 1, "the length of each of at most 1048576 messages that fill the buffer");
    return nullptr;
  }
  auto batch = std::make_shared<Batch>();
  if (bytes != 0) batch->bytes.assign(data, data + bytes);
  batch->messageBytes = static_cast<size_t>(messageBytes);
  batch->count = bytes / static_cast<size_t>(messageBytes);
  return makeExternal(env, kBatchTag, std::move(batch));
}

napi_value writeNotifyBatch(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "writeNotifyBatch";
  napi_value values[2];
  int fd;
  std::shared_ptr<Batch>* batch;
  if (!readArguments(env, info, kCall, 2, values) || !readDescriptor(env, values[0], kCall, 0, &fd) ||
      !readBatch(env, values[1], kCall, 1, &batch)) {
    return nullptr;
  }
  return submitNotify(env, new BatchJob(fd, *batch));
}

napi_value notifyBatchBegun(napi_env env, napi_callback_info info) {
  napi_value value;
  std::shared_ptr<Batch>* batch;
  if (!readArguments(env, info, "notifyBatchBegun", 1, &value) || !readBatch(env, value, "notifyBatchBegun", 0, &batch)) return nullptr;
  return makeNumber(env, static_cast<int64_t>((*batch)->begun()));
}

napi_value notifyBatchRefused(napi_env env, napi_callback_info info) {
  napi_value value, array = nullptr;
  std::shared_ptr<Batch>* batch;
  if (!readArguments(env, info, "notifyBatchRefused", 1, &value) || !readBatch(env, value, "notifyBatchRefused", 0, &batch)) return nullptr;
  std::vector<std::pair<size_t, int>> refused;
  {
    std::lock_guard<std::mutex> lock((*batch)->mutex);
    refused.swap((*batch)->refused);
  }
  napi_create_array_with_length(env, refused.size() * 2, &array);
  uint32_t at = 0;
  for (const auto& [index, error] : refused) {
    napi_handle_scope scope;
    napi_open_handle_scope(env, &scope);
    napi_set_element(env, array, at++, makeNumber(env, static_cast<int64_t>(index)));
    napi_set_element(env, array, at++, makeNumber(env, error));
    napi_close_handle_scope(env, scope);
  }
  return array;
}

}  // namespace

bool exportNotifyBatch(napi_env env, napi_value exports) {
  return exportCalls(env, exports, {
      {"createNotifyBatch", createNotifyBatch},
      {"writeNotifyBatch", writeNotifyBatch},
      {"notifyBatchBegun", notifyBatchBegun},
      {"notifyBatchRefused", notifyBatchRefused},
  });
}

}  // namespace coverlay
