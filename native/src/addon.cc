// The entry of the addon: what native/index.ts describes. Loaded once per environment.
#include <node_api.h>

#include "call.h"
#include "device.h"
#include "environment.h"
#include "export.h"

NAPI_MODULE_INIT() {
  using namespace coverlay;
  if (!Environment::create(env) || !exportCalls(env, exports) || !exportDevice(env, exports) || !exportNotify(env, exports) ||
      !exportNotifyBatch(env, exports) || !exportMount(env, exports) || !exportLoop(env, exports) || !exportFrames(env, exports) ||
      !exportProcess(env, exports) || !exportPeer(env, exports) || !exportShared(env, exports) ||
      !exportService(env, exports)) {
    napi_throw_error(env, nullptr, "native: the addon could not be set up in this environment");
    return nullptr;
  }
  return exports;
}
