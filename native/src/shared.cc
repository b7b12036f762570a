// What this process shares with others of the machine: memory of a file, and the clock that counts while the machine sleeps.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "argument.h"
#include "export.h"

namespace coverlay {

// Linux 6.3; glibc has it later.
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

namespace {

constexpr int64_t kJournalBytesMax = int64_t{1} << 30;

void unmap(napi_env, void* data, void* hint) { munmap(data, reinterpret_cast<size_t>(hint)); }

bool readBytes(napi_env env, napi_value value, const char* call, int64_t most, const char* expected, int64_t* bytes) {
  if (!readInteger(env, value, call, 1, bytes)) return false;
  return (*bytes >= 1 && *bytes <= most) || throwRange(env, call, 1, expected);
}

// The pages of a file that is shorter can not be read (SIGBUS), so it is refused; one that is cut later is the caller's to exclude.
napi_value mapFile(napi_env env, int fd, int64_t bytes, int protection, int flags) {
  napi_value result;
  struct stat found;
  if (fstat(fd, &found) != 0) return makeNumber(env, -errno);
  if (found.st_size < bytes) return makeNumber(env, -ENODATA);
  size_t length = static_cast<size_t>(bytes);
  void* data = mmap(nullptr, length, protection, MAP_SHARED | flags, fd, 0);
  if (data == MAP_FAILED) return makeNumber(env, -errno);
  if (napi_create_external_arraybuffer(env, data, length, unmap, reinterpret_cast<void*>(length), &result) != napi_ok) {
    munmap(data, length);
    return makeNumber(env, -ENOTSUP);
  }
  return result;
}

napi_value mapShared(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "mapShared";
  napi_value values[2];
  int fd;
  int64_t bytes;
  if (!readArguments(env, info, kCall, 2, values) || !readDescriptor(env, values[0], kCall, 0, &fd) ||
      !readBytes(env, values[1], kCall, 1 << 20, "1 to 1048576 bytes", &bytes)) {
    return nullptr;
  }
  return mapFile(env, fd, bytes, PROT_READ, 0);
}

napi_value mapJournal(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "mapJournal";
  napi_value values[2];
  int fd;
  int64_t bytes;
  if (!readArguments(env, info, kCall, 2, values) || !readDescriptor(env, values[0], kCall, 0, &fd) ||
      !readBytes(env, values[1], kCall, kJournalBytesMax, "1 to 1073741824 bytes", &bytes)) {
    return nullptr;
  }
  return mapFile(env, fd, bytes, PROT_READ | PROT_WRITE, MAP_NORESERVE);
}

int64_t makeMemfd(const char* name, int64_t bytes) {
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  int fd = memfd_create(name, kFlags | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) fd = memfd_create(name, kFlags);
  if (fd < 0) return -errno;
  if (ftruncate(fd, bytes) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0) return fd;
  int failed = errno;
  close(fd);
  return -failed;
}

napi_value memfdCreate(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "memfdCreate";
  napi_value values[2];
  std::string name;
  int64_t bytes;
  if (!readArguments(env, info, kCall, 2, values) || !readString(env, values[0], kCall, 0, &name) ||
      !readBytes(env, values[1], kCall, kJournalBytesMax, "1 to 1073741824 bytes", &bytes)) {
    return nullptr;
  }
  return makeNumber(env, makeMemfd(name.c_str(), bytes));
}

napi_value duplicateFd(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "duplicateFd";
  napi_value values[2];
  int fd, least;
  if (!readArguments(env, info, kCall, 2, values) || !readDescriptor(env, values[0], kCall, 0, &fd) ||
      !readDescriptor(env, values[1], kCall, 1, &least)) {
    return nullptr;
  }
  return makeNumber(env, resultOf(fcntl(fd, F_DUPFD_CLOEXEC, least)));
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
      {"memfdCreate", memfdCreate},
      {"mapJournal", mapJournal},
      {"duplicateFd", duplicateFd},
      {"freeArrayBuffer", freeArrayBuffer},
      {"bootTimeMs", bootTimeMs},
  });
}

}  // namespace coverlay
