// Serving of a /dev/fuse descriptor (fuse(4); kernel: fs/fuse/dev.c) from the event loop.
#pragma once

#include <node_api.h>

namespace coverlay {

struct Device;

void stopDevice(Device* device);
bool exportDevice(napi_env env, napi_value exports);

}  // namespace coverlay
