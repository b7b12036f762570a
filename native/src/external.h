// Objects of C++ that JavaScript holds and hands back: an external with a shared_ptr, gone when both have let go of it. Each type has a tag of its own,
// so that one of another type, or of another addon, is refused.
#pragma once

#include <node_api.h>

#include <memory>
#include <utility>

#include "argument.h"

namespace coverlay {

template <typename T>
napi_value makeExternal(napi_env env, const napi_type_tag& tag, std::shared_ptr<T> shared) {
  auto* held = new std::shared_ptr<T>(std::move(shared));
  napi_value value = nullptr;
  auto release = [](napi_env, void* data, void*) { delete static_cast<std::shared_ptr<T>*>(data); };
  if (napi_create_external(env, held, release, nullptr, &value) != napi_ok) {
    delete held;
    return nullptr;
  }
  return napi_type_tag_object(env, value, &tag) == napi_ok ? value : nullptr;
}

template <typename T>
bool readExternal(napi_env env, const napi_type_tag& tag, napi_value value, const char* call, size_t index, const char* expected,
                  std::shared_ptr<T>** held) {
  napi_valuetype type;
  bool tagged = false;
  void* data = nullptr;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_external || napi_check_object_type_tag(env, value, &tag, &tagged) != napi_ok ||
      !tagged || napi_get_value_external(env, value, &data) != napi_ok) {
    return throwType(env, call, index, expected);
  }
  *held = static_cast<std::shared_ptr<T>*>(data);
  return true;
}

}  // namespace coverlay
