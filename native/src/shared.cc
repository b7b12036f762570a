// What this process shares with others of the machine: memory of a file, and the clock that counts while the machine sleeps.
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include <cerrno>

#include "argument.h"
#include "export.h"

namespace coverlay {

namespace {

void unmap(napi_env, void* data, void* hint) { munmap(data, reinterpret_cast<size_t>(hint)); }

// The pages of a file that is shorter can not be read (SIGBUS), so it is refused; one that is cut later is the caller's to exclude.
napi_value mapShared(napi_env env, napi_callback_info info) {
  napi_value values[2], result;
  int fd;
  int64_t bytes;
  struct stat found;
  if (!readArguments(env, info, "mapShared", 2, values) || !readDescriptor(env, values[0], "mapShared", 0, &fd) ||
      !readInteger(env, values[1], "mapShared", 1, &bytes)) {
    return nullptr;
  }
  if (bytes < 1 || bytes > 1 << 20) {
    throwRange(env, "mapShared", 1, "1 to 1048576 bytes");
    return nullptr;
  }
  if (fstat(fd, &found) != 0) return makeNumber(env, -errno);
  if (found.st_size < bytes) return makeNumber(env, -ENODATA);
  size_t length = static_cast<size_t>(bytes);
  void* data = mmap(nullptr, length, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return makeNumber(env, -errno);
  if (napi_create_external_arraybuffer(env, data, length, unmap, reinterpret_cast<void*>(length), &result) != napi_ok) {
    munmap(data, length);
    return makeNumber(env, -ENOTSUP);
  }
  return result;
}

// Detached, an ArrayBuffer has no memory any more, and V8 counts none for it.
napi_value freeArrayBuffer(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!readArguments(env, info, "freeArrayBuffer", 1, &value)) return nullptr;
  bool detachable = false;
  if (napi_is_arraybuffer(env, value, &detachable) != napi_ok || !detachable || napi_detach_arraybuffer(env, value) != napi_ok) {
    throwType(env, "freeArrayBuffer", 0, "an ArrayBuffer that can be detached");
  }
  return nullptr;
}

napi_value bootTimeMs(napi_env env, napi_callback_info) {
  timespec now;
  napi_value result;
  clock_gettime(CLOCK_BOOTTIME, &now);
  napi_create_double(env, static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6, &result);
  return result;
}

}  // namespace

bool exportShared(napi_env env, napi_value exports) {
  return exportCalls(env, exports, {
      {"mapShared", mapShared},
      {"freeArrayBuffer", freeArrayBuffer},
      {"bootTimeMs", bootTimeMs},
  });
}

}  // namespace coverlay
