// What each part of the addon adds to its exports.
#pragma once

#include <node_api.h>

namespace coverlay {

bool exportNotify(napi_env env, napi_value exports);
bool exportNotifyBatch(napi_env env, napi_value exports);
bool exportMount(napi_env env, napi_value exports);
bool exportLoop(napi_env env, napi_value exports);
bool exportFrames(napi_env env, napi_value exports);
bool exportProcess(napi_env env, napi_value exports);
bool exportPeer(napi_env env, napi_value exports);
bool exportShared(napi_env env, napi_value exports);

}  // namespace coverlay
