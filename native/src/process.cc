// What a server sets for itself before it serves: limits, prctl(2), threads, and what kernel it is on.
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "argument.h"
#include "export.h"
#include "pool.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

namespace coverlay {

namespace {

constexpr int64_t kPoolThreadsMax = 1024;
constexpr unsigned kCloseRangeCloexec = 4;

napi_value setPoolThreads(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "setPoolThreads";
  napi_value values[3];
  int64_t counts[3];
  if (!readArguments(env, info, kCall, 3, values)) return nullptr;
  for (size_t index = 0; index < 3; index++) {
    if (!readInteger(env, values[index], kCall, index, &counts[index])) return nullptr;
    if (counts[index] < 1 || counts[index] > kPoolThreadsMax) {
      throwRange(env, kCall, index, "1 to 1024 threads");
      return nullptr;
    }
  }
  Pool* pools[] = {&metadataPool(), &dataPool(), &syncPool()};
  for (size_t index = 0; index < 3; index++) {
    if (!pools[index]->setThreads(static_cast<size_t>(counts[index]))) {
      napi_throw_error(env, "ERR_INVALID_STATE", "native.setPoolThreads: a pool is already in use; call it before the first pool call");
      return nullptr;
    }
  }
  return nullptr;
}

int64_t setMax(rlim_t count) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return -errno;
  rlimit wanted = {count, std::max(count, limit.rlim_max)};
  if (setrlimit(RLIMIT_NOFILE, &wanted) == 0) return static_cast<int64_t>(count);
  // Beyond fs.nr_open, or without CAP_SYS_RESOURCE beyond the hard limit: as far as that goes.
  wanted = {std::min(count, limit.rlim_max), limit.rlim_max};
  return setrlimit(RLIMIT_NOFILE, &wanted) == 0 ? static_cast<int64_t>(wanted.rlim_cur) : -errno;
}

napi_value setMaxDescriptors(napi_env env, napi_callback_info info) {
  napi_value value;
  int64_t count;
  if (!readArguments(env, info, "setMaxDescriptors", 1, &value) || !readInteger(env, value, "setMaxDescriptors", 0, &count)) return nullptr;
  return makeNumber(env, count < 1 ? -EINVAL : setMax(static_cast<rlim_t>(count)));
}

napi_value setIoFlusher(napi_env env, napi_callback_info) { return makeNumber(env, resultOf(prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))); }

// What malloc(3) has free, and does not give back because something small lies above it: whole pages of that go back if it is a lot.
int64_t trim(int64_t leastBytes) {
#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 33)
  const int64_t freeBytes = static_cast<int64_t>(mallinfo2().fordblks);
  if (freeBytes < leastBytes) return 0;
#endif
  return malloc_trim(0);
#else
  (void)leastBytes;
  return 0;
#endif
}

napi_value trimMemory(napi_env env, napi_callback_info info) {
  napi_value value;
  int64_t leastBytes;
  if (!readArguments(env, info, "trimMemory", 1, &value) || !readInteger(env, value, "trimMemory", 0, &leastBytes)) return nullptr;
  return makeNumber(env, trim(leastBytes));
}

napi_value unshareFs(napi_env env, napi_callback_info) { return makeNumber(env, resultOf(unshare(CLONE_FS))); }

// tgkill(2) with signal 0: is that thread one of this process?
napi_value ownsThread(napi_env env, napi_callback_info info) {
  napi_value value;
  int64_t tid;
  if (!readArguments(env, info, "ownsThread", 1, &value) || !readInteger(env, value, "ownsThread", 0, &tid)) return nullptr;
  napi_value result;
  napi_get_boolean(env, tid > 0 && syscall(SYS_tgkill, getpid(), static_cast<pid_t>(tid), 0) == 0, &result);
  return result;
}

napi_value kernelVersion(napi_env env, napi_callback_info) {
  utsname names;
  int major = 0, minor = 0;
  uname(&names);
  sscanf(names.release, "%d.%d", &major, &minor);
  napi_value array;
  napi_create_array_with_length(env, 2, &array);
  napi_set_element(env, array, 0, makeNumber(env, major));
  napi_set_element(env, array, 1, makeNumber(env, minor));
  return array;
}

// The words of a buffer, each with its NUL.
std::vector<char*> wordsOf(uint8_t* data, size_t bytes) {
  std::vector<char*> words;
  for (size_t at = 0; at < bytes; at += strlen(reinterpret_cast<char*>(data) + at) + 1) words.push_back(reinterpret_cast<char*>(data) + at);
  words.push_back(nullptr);
  return words;
}

// execve(2): another program in this process. No descriptor but 0, 1 and 2 goes on.
napi_value exec(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "exec";
  napi_value values[3];
  std::string path;
  uint8_t* words[2];
  size_t bytes[2];
  if (!readArguments(env, info, kCall, 3, values) || !readString(env, values[0], kCall, 0, &path)) return nullptr;
  for (size_t index = 0; index < 2; index++) {
    if (!readBuffer(env, values[index + 1], kCall, index + 1, &words[index], &bytes[index])) return nullptr;
    if (bytes[index] == 0 || words[index][bytes[index] - 1] != 0) {
      throwRange(env, kCall, index + 1, "words that each end with NUL");
      return nullptr;
    }
  }
  // Linux 5.11; before that the descriptors of Node.js, which all have it, are the only ones.
  syscall(SYS_close_range, 3, ~0U, kCloseRangeCloexec);
  // Node.js keeps these from its children, too (uv_disable_stdio_inheritance()).
  for (int fd = 0; fd <= 2; fd++) fcntl(fd, F_SETFD, 0);
  execve(path.c_str(), wordsOf(words[0], bytes[0]).data(), wordsOf(words[1], bytes[1]).data());
  return makeNumber(env, -errno);
}

}  // namespace

bool exportProcess(napi_env env, napi_value exports) {
  return exportCalls(env, exports, {
      {"setPoolThreads", setPoolThreads},
      {"setMaxDescriptors", setMaxDescriptors},
      {"setIoFlusher", setIoFlusher},
      {"trimMemory", trimMemory},
      {"unshareFs", unshareFs},
      {"ownsThread", ownsThread},
      {"kernelVersion", kernelVersion},
      {"exec", exec},
  });
}

}  // namespace coverlay
