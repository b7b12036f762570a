// Reading the arguments of a call from JavaScript. Each reader throws a TypeError (RangeError for a
// value outside its bounds) that says what was expected, and returns false.
#pragma once

#include <node_api.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace coverlay {

// Longest path or symlink target that the kernel takes (PATH_MAX without its NUL).
constexpr size_t kPathBytesMax = 4095;

bool throwType(napi_env env, const char* call, size_t index, const char* expected);
bool throwRange(napi_env env, const char* call, size_t index, const char* expected);

// At least `wanted` arguments into `values`; the rest of what was given is ignored.
bool readArguments(napi_env env, napi_callback_info info, const char* call, size_t wanted, napi_value* values, void** data = nullptr);
bool readDouble(napi_env env, napi_value value, const char* call, size_t index, double* result);
// A whole number; what does not fit into 64 bits is cut to the nearest that does.
bool readInteger(napi_env env, napi_value value, const char* call, size_t index, int64_t* result);
// A descriptor; what is no int becomes -1, for which the kernel says EBADF.
bool readDescriptor(napi_env env, napi_value value, const char* call, size_t index, int* result);
bool readBoolean(napi_env env, napi_value value, const char* call, size_t index, bool* result);
bool readBuffer(napi_env env, napi_value value, const char* call, size_t index, uint8_t** data, size_t* bytes);
bool readDoubles(napi_env env, napi_value value, const char* call, size_t index, size_t count, double** data);
bool readFunction(napi_env env, napi_value value, const char* call, size_t index);
bool readString(napi_env env, napi_value value, const char* call, size_t index, std::string* result);

napi_value makeNumber(napi_env env, int64_t value);

// What a system call returned, as >= 0 or -errno.
int64_t resultOf(long returned);

}  // namespace coverlay
