// See argument.h.
#include "argument.h"

#include <cerrno>
#include <climits>
#include <cstdio>

namespace coverlay {

namespace {

void explain(char* text, size_t bytes, const char* call, size_t index, const char* expected) {
  snprintf(text, bytes, "native.%s: argument %zu: expected %s", call, index + 1, expected);
}

}  // namespace

bool throwType(napi_env env, const char* call, size_t index, const char* expected) {
  char text[256];
  explain(text, sizeof text, call, index, expected);
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", text);
  return false;
}

bool throwRange(napi_env env, const char* call, size_t index, const char* expected) {
  char text[256];
  explain(text, sizeof text, call, index, expected);
  napi_throw_range_error(env, "ERR_OUT_OF_RANGE", text);
  return false;
}

bool readArguments(napi_env env, napi_callback_info info, const char* call, size_t wanted, napi_value* values, void** data) {
  size_t given = wanted;
  if (napi_get_cb_info(env, info, &given, values, nullptr, data) != napi_ok) return false;
  if (given >= wanted) return true;
  char text[128];
  snprintf(text, sizeof text, "native.%s: expected %zu arguments, found %zu", call, wanted, given);
  napi_throw_type_error(env, "ERR_MISSING_ARGS", text);
  return false;
}

bool readDouble(napi_env env, napi_value value, const char* call, size_t index, double* result) {
  if (napi_get_value_double(env, value, result) != napi_ok || *result != *result) return throwType(env, call, index, "a number");
  return true;
}

bool readInteger(napi_env env, napi_value value, const char* call, size_t index, int64_t* result) {
  double number;
  if (!readDouble(env, value, call, index, &number)) return false;
  if (number >= 9223372036854775808.0) {
    *result = INT64_MAX;
  } else if (number <= -9223372036854775808.0) {
    *result = INT64_MIN;
  } else {
    *result = static_cast<int64_t>(number);
  }
  return true;
}

bool readDescriptor(napi_env env, napi_value value, const char* call, size_t index, int* result) {
  int64_t number;
  if (!readInteger(env, value, call, index, &number)) return false;
  *result = number < INT_MIN || number > INT_MAX ? -1 : static_cast<int>(number);
  return true;
}

bool readBoolean(napi_env env, napi_value value, const char* call, size_t index, bool* result) {
  if (napi_get_value_bool(env, value, result) != napi_ok) return throwType(env, call, index, "a boolean");
  return true;
}

bool readBuffer(napi_env env, napi_value value, const char* call, size_t index, uint8_t** data, size_t* bytes) {
  // napi_get_buffer_info aborts the process on what is not a view, so ask first.
  bool isBuffer = false;
  if (napi_is_buffer(env, value, &isBuffer) != napi_ok || !isBuffer) return throwType(env, call, index, "a Buffer");
  void* start = nullptr;
  if (napi_get_buffer_info(env, value, &start, bytes) != napi_ok) return throwType(env, call, index, "a Buffer");
  *data = static_cast<uint8_t*>(start);
  return true;
}

bool readDoubles(napi_env env, napi_value value, const char* call, size_t index, size_t count, double** data) {
  napi_typedarray_type type;
  size_t length = 0;
  void* start = nullptr;
  bool isArray = false;
  if (napi_is_typedarray(env, value, &isArray) != napi_ok || !isArray ||
      napi_get_typedarray_info(env, value, &type, &length, &start, nullptr, nullptr) != napi_ok || type != napi_float64_array) {
    return throwType(env, call, index, "a Float64Array");
  }
  if (length < count) return throwRange(env, call, index, "a longer Float64Array (STAT.FIELDS or STATFS.FIELDS elements)");
  *data = static_cast<double*>(start);
  return true;
}

bool readFunction(napi_env env, napi_value value, const char* call, size_t index) {
  napi_valuetype type;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_function) return throwType(env, call, index, "a function");
  return true;
}

bool readString(napi_env env, napi_value value, const char* call, size_t index, std::string* result) {
  size_t bytes = 0;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &bytes) != napi_ok) return throwType(env, call, index, "a string");
  result->resize(bytes + 1);
  napi_get_value_string_utf8(env, value, &(*result)[0], bytes + 1, &bytes);
  result->resize(bytes);
  if (result->find('\0') != std::string::npos) return throwRange(env, call, index, "a string without a NUL");
  return true;
}

napi_value makeNumber(napi_env env, int64_t value) {
  napi_value result = nullptr;
  if (value >= INT32_MIN && value <= INT32_MAX) {
    napi_create_int32(env, static_cast<int32_t>(value), &result);
  } else {
    napi_create_double(env, static_cast<double>(value), &result);
  }
  return result;
}

int64_t resultOf(long returned) { return returned < 0 ? -static_cast<int64_t>(errno) : returned; }

}  // namespace coverlay
