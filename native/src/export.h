// What each part of the addon adds to its exports.
#pragma once

#include <node_api.h>

#include <initializer_list>

namespace coverlay {

struct Export {
  const char* name;
  napi_callback call;
};

inline bool exportCalls(napi_env env, napi_value exports, std::initializer_list<Export> calls) {
  for (const Export& each : calls) {
    const napi_property_descriptor property = {each.name, nullptr, each.call, nullptr, nullptr, nullptr, napi_default_jsproperty, nullptr};
    if (napi_define_properties(env, exports, 1, &property) != napi_ok) return false;
  }
  return true;
}

bool exportNotify(napi_env env, napi_value exports);
bool exportNotifyBatch(napi_env env, napi_value exports);
bool exportMount(napi_env env, napi_value exports);
bool exportLoop(napi_env env, napi_value exports);
bool exportFrames(napi_env env, napi_value exports);
bool exportProcess(napi_env env, napi_value exports);
bool exportPeer(napi_env env, napi_value exports);
bool exportShared(napi_env env, napi_value exports);
bool exportService(napi_env env, napi_value exports);

}  // namespace coverlay
