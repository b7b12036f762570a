// mount(2), umount2(2), open(2) by path, flock(2), and mounts that stand in no namespace: fsopen, fsconfig,
// fsmount (kernel: fs/fsopen.c; hazard C2). By system call number, for C libraries before 2.36.
// A mount may wait for long, for a disk or for another machine's sign of life (ext4's MMP): hence one in the sync pool.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "argument.h"
#include "environment.h"
#include "export.h"
#include "fsopen.h"
#include "pool.h"

namespace coverlay {

namespace {

constexpr uint32_t kOptionsMax = 256;
// The kernel keeps at most 8 messages for a context.
constexpr uint32_t kLogLinesMax = 64;

napi_value mountCall(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "mount";
  napi_value values[5];
  std::string source, target, type, data;
  int64_t flags;
  if (!readArguments(env, info, kCall, 5, values) || !readString(env, values[0], kCall, 0, &source) ||
      !readString(env, values[1], kCall, 1, &target) || !readString(env, values[2], kCall, 2, &type) ||
      !readInteger(env, values[3], kCall, 3, &flags) || !readString(env, values[4], kCall, 4, &data)) {
    return nullptr;
  }
  return makeNumber(
      env, resultOf(::mount(source.c_str(), target.c_str(), type.c_str(), static_cast<unsigned long>(flags), data.c_str())));
}

napi_value umountCall(napi_env env, napi_callback_info info) {
  napi_value values[2];
  std::string target;
  int64_t flags;
  if (!readArguments(env, info, "umount", 2, values) || !readString(env, values[0], "umount", 0, &target) ||
      !readInteger(env, values[1], "umount", 1, &flags)) {
    return nullptr;
  }
  return makeNumber(env, resultOf(::umount2(target.c_str(), static_cast<int>(flags))));
}

napi_value openCall(napi_env env, napi_callback_info info) {
  napi_value values[3];
  std::string path;
  int64_t flags, mode;
  if (!readArguments(env, info, "open", 3, values) || !readString(env, values[0], "open", 0, &path) ||
      !readInteger(env, values[1], "open", 1, &flags) || !readInteger(env, values[2], "open", 2, &mode)) {
    return nullptr;
  }
  return makeNumber(env, resultOf(::open(path.c_str(), static_cast<int>(flags) | O_CLOEXEC, static_cast<mode_t>(mode))));
}

napi_value tryLock(napi_env env, napi_callback_info info) {
  napi_value value;
  int64_t fd;
  if (!readArguments(env, info, "tryLock", 1, &value) || !readInteger(env, value, "tryLock", 0, &fd)) return nullptr;
  return makeNumber(env, resultOf(::flock(static_cast<int>(fd), LOCK_EX | LOCK_NB)));
}

int64_t configure(int context, const std::string& source, const std::vector<std::string>& options) {
  if (syscall(SYS_fsconfig, context, kFsconfigSetString, "source", source.c_str(), 0) != 0) return -errno;
  for (const std::string& option : options) {
    size_t equals = option.find('=');
    long returned = equals == std::string::npos
                        ? syscall(SYS_fsconfig, context, kFsconfigSetFlag, option.c_str(), nullptr, 0)
                        : syscall(SYS_fsconfig, context, kFsconfigSetString, option.substr(0, equals).c_str(), option.c_str() + equals + 1, 0);
    if (returned != 0) return -errno;
  }
  return resultOf(syscall(SYS_fsconfig, context, kFsconfigCmdCreate, nullptr, nullptr, 0));
}

// Each read of a context gives one message of the kernel: "e ..." for an error, "w", "i".
void readLog(int context, std::vector<std::string>* lines) {
  char line[1024];
  for (uint32_t count = 0; count < kLogLinesMax; count++) {
    ssize_t bytes = ::read(context, line, sizeof line);
    if (bytes < 0) return;
    while (bytes > 0 && line[bytes - 1] == '\n') bytes--;
    lines->emplace_back(line, static_cast<size_t>(bytes));
  }
}

struct DetachedMount {
  std::string type, source;
  std::vector<std::string> options;
  int64_t attrFlags = 0;
  std::vector<std::string> log;

  int64_t make() {
    int context = static_cast<int>(syscall(SYS_fsopen, type.c_str(), kFsopenCloexec));
    if (context < 0) return -errno;
    int64_t result = configure(context, source, options);
    if (result == 0) result = resultOf(syscall(SYS_fsmount, context, kFsmountCloexec, static_cast<unsigned>(attrFlags)));
    if (result < 0) readLog(context, &log);
    ::close(context);
    return result;
  }

  void tell(napi_env env, napi_value array) const {
    uint32_t length = 0;
    napi_get_array_length(env, array, &length);
    for (const std::string& line : log) {
      napi_value text;
      if (napi_create_string_utf8(env, line.data(), line.size(), &text) == napi_ok) napi_set_element(env, array, length++, text);
    }
  }
};

class MountJob : public Job {
 public:
  MountJob(DetachedMount mount, napi_ref log) : mount_(std::move(mount)), log_(log) {}

  void run() override { result_ = mount_.make(); }
  void fail(int64_t result) { result_ = result; }

  napi_value settle(napi_env env) override {
    napi_value array = nullptr;
    if (napi_get_reference_value(env, log_, &array) == napi_ok && array != nullptr) mount_.tell(env, array);
    napi_delete_reference(env, log_);
    return makeNumber(env, result_);
  }

 private:
  DetachedMount mount_;
  napi_ref const log_;
  int64_t result_ = 0;
};

bool readOptions(napi_env env, napi_value array, const char* call, size_t index, std::vector<std::string>* options) {
  bool isArray = false;
  uint32_t count = 0;
  napi_is_array(env, array, &isArray);
  if (!isArray || napi_get_array_length(env, array, &count) != napi_ok) return throwType(env, call, index, "an array of strings");
  if (count > kOptionsMax) return throwRange(env, call, index, "at most 256 options");
  options->resize(count);
  for (uint32_t at = 0; at < count; at++) {
    napi_value element;
    if (napi_get_element(env, array, at, &element) != napi_ok || !readString(env, element, call, index, &(*options)[at])) return false;
  }
  return true;
}

bool readDetachedMount(napi_env env, napi_callback_info info, const char* call, DetachedMount* mount, napi_value* log) {
  napi_value values[5];
  bool isArray = false;
  if (!readArguments(env, info, call, 5, values) || !readString(env, values[0], call, 0, &mount->type) ||
      !readString(env, values[1], call, 1, &mount->source) || !readOptions(env, values[2], call, 2, &mount->options) ||
      !readInteger(env, values[3], call, 3, &mount->attrFlags)) {
    return false;
  }
  *log = values[4];
  if (napi_is_array(env, values[4], &isArray) == napi_ok && isArray) return true;
  return throwType(env, call, 4, "an array to receive the kernel's words");
}

napi_value mountDetached(napi_env env, napi_callback_info info) {
  DetachedMount mount;
  napi_value log;
  if (!readDetachedMount(env, info, "mountDetached", &mount, &log)) return nullptr;
  int64_t result = mount.make();
  mount.tell(env, log);
  return makeNumber(env, result);
}

napi_value mountDetachedInPool(napi_env env, napi_callback_info info) {
  DetachedMount mount;
  napi_value log;
  napi_ref reference;
  if (!readDetachedMount(env, info, "mountDetachedInPool", &mount, &log)) return nullptr;
  if (napi_create_reference(env, log, 1, &reference) != napi_ok) return nullptr;
  // The environment owns it from here on.
  auto* job = new MountJob(std::move(mount), reference);
  Environment* environment = Environment::of(env);
  napi_value promise = environment->begin(job);
  if (promise == nullptr) return nullptr;
  int refused = syncPool().submit(job);
  if (refused != 0) {
    job->fail(refused);
    environment->finish(job);
  }
  return promise;
}

}  // namespace

bool exportMount(napi_env env, napi_value exports) {
  return exportCalls(env, exports, {
      {"mount", mountCall},
      {"umount", umountCall},
      {"open", openCall},
      {"tryLock", tryLock},
      {"mountDetached", mountDetached},
      {"mountDetachedInPool", mountDetachedInPool},
  });
}

}  // namespace coverlay
