# One binary for every Node from 20 on: plain Node-API (version 8) and uv.h, nothing of V8 or of Node's own C++.
{
  "targets": [
    {
      "target_name": "coverlay",
      "sources": [
        "src/addon.cc",
        "src/argument.cc",
        "src/call.cc",
        "src/calls-create.cc",
        "src/calls-data.cc",
        "src/calls-extent.cc",
        "src/calls-name.cc",
        "src/calls-open.cc",
        "src/calls-own.cc",
        "src/credential.cc",
        "src/device.cc",
        "src/environment.cc",
        "src/frames.cc",
        "src/loop.cc",
        "src/mount.cc",
        "src/notify.cc",
        "src/notify-batch.cc",
        "src/peer.cc",
        "src/pool.cc",
        "src/process.cc",
        "src/shared.cc",
      ],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE", "_FILE_OFFSET_BITS=64"],
      "cflags": ["-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
      "cflags_cc": ["-std=c++17"],
    },
  ],
}
