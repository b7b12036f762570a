// The generic table behind `native.sync` and `native.pool.*`: one row per call, which says what its
// arguments are and runs it. See native/index.ts for what each does.
#pragma once

#include <node_api.h>

#include <cstddef>
#include <cstdint>

#include "argument.h"

namespace coverlay {

constexpr size_t kArgumentsMax = 9;
constexpr size_t kNamesMax = 2;
// As HANDLE_BUFFER_BYTES in native/index.ts: struct file_handle with MAX_HANDLE_SZ bytes.
constexpr size_t kHandleBytes = 8 + 128;
constexpr size_t kStatFields = 20;
constexpr size_t kStatfsFields = 9;

// Arguments as a system call wants them. Numbers (booleans too) and names stand in the order of the
// signature; at most one of each of the others.
struct Call {
  int64_t number[kArgumentsMax];
  const char* name[kNamesMax];
  uint8_t* data;
  size_t dataBytes;
  double* fields;
  uint8_t* handle;
};

struct CallRow {
  const char* name;
  // One letter per argument:
  //   d descriptor   i number   o offset (beyond 64 bits: EINVAL)   z size (beyond 64 bits: EFBIG)   ? boolean
  //   n name, path or target   b buffer   s stat fields   S statfs fields   h handle   H handle to receive
  const char* signature;
  // >= 0, or -errno.
  int64_t (*run)(const Call& call);
};

struct CallRows {
  const CallRow* rows;
  size_t count;
};

// statx(2) and name_to_handle_at(2) of an open file, into those of the call. 0, or -errno.
int64_t describe(int fd, const Call& call);

CallRows openCalls();
CallRows createCalls();
CallRows nameCalls();
CallRows dataCalls();
CallRows ownCalls();
CallRows extentCalls();

// Adds `sync` and `pool` to the addon's exports.
bool exportCalls(napi_env env, napi_value exports);

}  // namespace coverlay
