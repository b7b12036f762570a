// See call.h. The same parser serves both ways; names are copied (to the stack, or into the job), so
// that a NUL can be added; a pool's results go through the job and reach JavaScript's arrays only on
// JavaScript's thread. Only data buffers are used in place.
#include "call.h"

#include <cerrno>
#include <cstring>
#include <memory>

#include "environment.h"
#include "pool.h"

namespace coverlay {

namespace {

constexpr size_t kNameArenaBytes = kNamesMax * (kPathBytesMax + 1);
constexpr size_t kHeldMax = 3;

struct Parsed {
  Call call;
  // Not 0: the call fails with this before it is made.
  int64_t early;
  size_t argumentCount;
  size_t arenaUsed;
  size_t nameOffset[kNamesMax];
  size_t nameCount;
  bool handleIsResult;
  bool fieldsAreStatfs;
  // Arguments that receive results.
  napi_value held[kHeldMax];
  size_t heldCount;
};

class Parser {
 public:
  Parser(napi_env env, const CallRow& row, napi_value* values, char* arena, Parsed* parsed)
      : env_(env), row_(row), values_(values), arena_(arena), parsed_(*parsed) {}

  bool parse() {
    parsed_.early = 0;
    parsed_.arenaUsed = parsed_.nameCount = parsed_.heldCount = 0;
    parsed_.handleIsResult = parsed_.fieldsAreStatfs = false;
    parsed_.call.data = parsed_.call.handle = nullptr;
    parsed_.call.fields = nullptr;
    parsed_.call.dataBytes = 0;
    for (size_t index = 0; row_.signature[index] != '\0'; index++) {
      if (!parseOne(index, values_[index])) return false;
    }
    return true;
  }

 private:
  bool parseOne(size_t index, napi_value value) {
    switch (row_.signature[index]) {
      case 'd':
        return descriptor(index, value);
      case 'i':
        return readInteger(env_, value, row_.name, index, &parsed_.call.number[numbers_++]);
      case 'o':
        return offset(index, value, EINVAL);
      case 'z':
        return offset(index, value, EFBIG);
      case '?':
        return boolean(index, value);
      case 'n':
        return name(index, value);
      case 'b':
        hold(value);
        return readBuffer(env_, value, row_.name, index, &parsed_.call.data, &parsed_.call.dataBytes);
      case 's':
        hold(value);
        return readDoubles(env_, value, row_.name, index, kStatFields, &parsed_.call.fields);
      case 'S':
        hold(value);
        parsed_.fieldsAreStatfs = true;
        return readDoubles(env_, value, row_.name, index, kStatfsFields, &parsed_.call.fields);
      case 'h':
        return handle(index, value);
      default:
        return handleResult(index, value);
    }
  }

  void hold(napi_value value) { parsed_.held[parsed_.heldCount++] = value; }

  bool descriptor(size_t index, napi_value value) {
    int fd;
    if (!readDescriptor(env_, value, row_.name, index, &fd)) return false;
    parsed_.call.number[numbers_++] = fd;
    return true;
  }

  bool offset(size_t index, napi_value value, int tooLarge) {
    double number;
    if (!readDouble(env_, value, row_.name, index, &number)) return false;
    bool fits = number > -9223372036854775808.0 && number < 9223372036854775808.0;
    if (!fits) parsed_.early = -tooLarge;
    parsed_.call.number[numbers_++] = fits ? static_cast<int64_t>(number) : 0;
    return true;
  }

  bool boolean(size_t index, napi_value value) {
    bool flag;
    if (!readBoolean(env_, value, row_.name, index, &flag)) return false;
    parsed_.call.number[numbers_++] = flag ? 1 : 0;
    return true;
  }

  bool name(size_t index, napi_value value) {
    uint8_t* bytes;
    size_t length;
    if (!readBuffer(env_, value, row_.name, index, &bytes, &length)) return false;
    size_t start = parsed_.arenaUsed;
    parsed_.nameOffset[parsed_.nameCount] = start;
    parsed_.call.name[parsed_.nameCount++] = arena_ + start;
    if (length > kPathBytesMax) {
      parsed_.early = -ENAMETOOLONG;
      length = 0;
    } else if (length != 0) {
      if (memchr(bytes, 0, length) != nullptr) parsed_.early = -EINVAL;
      memcpy(arena_ + start, bytes, length);
    }
    arena_[start + length] = '\0';
    parsed_.arenaUsed = start + length + 1;
    return true;
  }

  bool handle(size_t index, napi_value value) {
    size_t length;
    if (!readBuffer(env_, value, row_.name, index, &parsed_.call.handle, &length)) return false;
    uint32_t handleBytes = 0;
    if (length >= 8) memcpy(&handleBytes, parsed_.call.handle, sizeof handleBytes);
    if (length < 8 || handleBytes > kHandleBytes - 8 || handleBytes > length - 8) parsed_.early = -EINVAL;
    return true;
  }

  bool handleResult(size_t index, napi_value value) {
    size_t length;
    hold(value);
    parsed_.handleIsResult = true;
    if (!readBuffer(env_, value, row_.name, index, &parsed_.call.handle, &length)) return false;
    if (length < kHandleBytes) return throwRange(env_, row_.name, index, "a Buffer of HANDLE_BUFFER_BYTES");
    return true;
  }

  napi_env env_;
  const CallRow& row_;
  napi_value* values_;
  char* arena_;
  Parsed& parsed_;
  size_t numbers_ = 0;
};

// A call on its way through a pool.
class CallJob : public Job {
 public:
  CallJob(const CallRow& row, const Parsed& parsed, const char* arena) : row_(row), call_(parsed.call), early_(parsed.early) {
    names_.reset(new char[parsed.arenaUsed + 1]);
    memcpy(names_.get(), arena, parsed.arenaUsed);
    for (size_t index = 0; index < parsed.nameCount; index++) call_.name[index] = names_.get() + parsed.nameOffset[index];
    if (call_.fields != nullptr) {
      fieldsResult_ = call_.fields;
      fieldCount_ = parsed.fieldsAreStatfs ? kStatfsFields : kStatFields;
      call_.fields = fields_;
    }
    if (call_.handle == nullptr || early_ != 0) return;
    if (parsed.handleIsResult) {
      handleResult_ = call_.handle;
    } else {
      uint32_t handleBytes;
      memcpy(&handleBytes, call_.handle, sizeof handleBytes);
      memcpy(handle_, call_.handle, 8 + handleBytes);
    }
    call_.handle = handle_;
  }

  bool keep(napi_env env, const Parsed& parsed) {
    for (; heldCount_ < parsed.heldCount; heldCount_++) {
      if (napi_create_reference(env, parsed.held[heldCount_], 1, &held_[heldCount_]) != napi_ok) return false;
    }
    return true;
  }

  void run() override { result_ = early_ != 0 ? early_ : row_.run(call_); }

  void fail(int64_t result) { result_ = result; }

  bool usesJavaScriptMemory() const override { return call_.data != nullptr; }

  napi_value settle(napi_env env) override {
    if (result_ >= 0) {
      if (fieldsResult_ != nullptr) memcpy(fieldsResult_, fields_, fieldCount_ * sizeof(double));
      if (handleResult_ != nullptr) memcpy(handleResult_, handle_, kHandleBytes);
    }
    release(env);
    return makeNumber(env, result_);
  }

  void release(napi_env env) {
    while (heldCount_ > 0) napi_delete_reference(env, held_[--heldCount_]);
  }

 private:
  const CallRow& row_;
  Call call_;
  int64_t early_;
  int64_t result_ = 0;
  std::unique_ptr<char[]> names_;
  double* fieldsResult_ = nullptr;
  size_t fieldCount_ = 0;
  uint8_t* handleResult_ = nullptr;
  napi_ref held_[kHeldMax];
  size_t heldCount_ = 0;
  double fields_[kStatFields];
  alignas(8) uint8_t handle_[kHandleBytes];
};

struct PoolRow {
  const CallRow* row;
  Pool* pool;
};

napi_value callNow(napi_env env, napi_callback_info info) {
  napi_value values[kArgumentsMax];
  size_t given = kArgumentsMax;
  void* data = nullptr;
  // napi_get_cb_info fills what was not given with undefined, which every reader refuses.
  if (napi_get_cb_info(env, info, &given, values, nullptr, &data) != napi_ok) return nullptr;
  const CallRow& row = *static_cast<const CallRow*>(data);
  char arena[kNameArenaBytes];
  Parsed parsed;
  if (!Parser(env, row, values, arena, &parsed).parse()) return nullptr;
  return makeNumber(env, parsed.early != 0 ? parsed.early : row.run(parsed.call));
}

napi_value callInPool(napi_env env, napi_callback_info info) {
  napi_value values[kArgumentsMax];
  size_t given = kArgumentsMax;
  void* data = nullptr;
  if (napi_get_cb_info(env, info, &given, values, nullptr, &data) != napi_ok) return nullptr;
  const PoolRow& target = *static_cast<const PoolRow*>(data);
  char arena[kNameArenaBytes];
  Parsed parsed;
  if (!Parser(env, *target.row, values, arena, &parsed).parse()) return nullptr;
  auto* job = new CallJob(*target.row, parsed, arena);
  if (!job->keep(env, parsed)) {
    job->release(env);
    delete job;
    napi_throw_error(env, nullptr, "native: a reference to an argument could not be made");
    return nullptr;
  }
  Environment* environment = Environment::of(env);
  napi_value promise = environment->begin(job);
  if (promise == nullptr) return nullptr;
  int refused = target.pool->submit(job);
  if (refused != 0) {
    job->fail(refused);
    environment->finish(job);
  }
  return promise;
}

bool exportRows(napi_env env, napi_value object, Pool* pool) {
  const CallRows all[] = {openCalls(), createCalls(), nameCalls(), dataCalls(), ownCalls(), extentCalls()};
  for (const CallRows& rows : all) {
    for (size_t index = 0; index < rows.count; index++) {
      const CallRow& row = rows.rows[index];
      napi_value function;
      // Rows of the pools live as long as the addon.
      void* data = pool == nullptr ? const_cast<CallRow*>(&row) : static_cast<void*>(new PoolRow{&row, pool});
      napi_callback callback = pool == nullptr ? callNow : callInPool;
      if (napi_create_function(env, row.name, NAPI_AUTO_LENGTH, callback, data, &function) != napi_ok) return false;
      if (napi_set_named_property(env, object, row.name, function) != napi_ok) return false;
    }
  }
  return true;
}

}  // namespace

bool exportCalls(napi_env env, napi_value exports) {
  napi_value sync, pool;
  if (napi_create_object(env, &sync) != napi_ok || napi_create_object(env, &pool) != napi_ok) return false;
  if (!exportRows(env, sync, nullptr)) return false;
  const struct {
    const char* name;
    Pool* pool;
  } pools[] = {{"metadata", &metadataPool()}, {"data", &dataPool()}, {"sync", &syncPool()}, {"own", &ownPool()}};
  for (const auto& each : pools) {
    napi_value object;
    if (napi_create_object(env, &object) != napi_ok || !exportRows(env, object, each.pool)) return false;
    if (napi_set_named_property(env, pool, each.name, object) != napi_ok) return false;
  }
  return napi_set_named_property(env, exports, "sync", sync) == napi_ok && napi_set_named_property(env, exports, "pool", pool) == napi_ok;
}

}  // namespace coverlay
