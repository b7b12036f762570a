// Loop devices (loop(4)) and the size of block devices.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "argument.h"
#include "export.h"

namespace coverlay {

namespace {

// Another process may take the free number first; each try asks for a new one.
constexpr int kAttachTries = 64;
// LOOP_SET_STATUS64 says EAGAIN while pages of the device are being written; util-linux tries 16 times.
constexpr int kStatusTries = 16;
constexpr useconds_t kStatusPauseUs = 1000;

// The name is only for people (losetup -l).
void nameImage(int imageFd, loop_config* config) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", imageFd);
  ssize_t bytes = readlink(path, reinterpret_cast<char*>(config->info.lo_file_name), LO_NAME_SIZE - 1);
  if (bytes < 0) bytes = 0;
  config->info.lo_file_name[bytes] = 0;
}

int64_t attachTo(int number, const loop_config& config, bool readOnly) {
  char path[32];
  snprintf(path, sizeof path, "/dev/loop%d", number);
  int fd = ::open(path, (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
  if (fd < 0) return -errno;
  int64_t result = resultOf(ioctl(fd, LOOP_CONFIGURE, &config));
  ::close(fd);
  return result < 0 ? result : number;
}

int64_t attach(int imageFd, bool directIo, bool readOnly, uint32_t sectorBytes) {
  loop_config config;
  memset(&config, 0, sizeof config);
  config.fd = static_cast<uint32_t>(imageFd);
  config.block_size = sectorBytes;
  config.info.lo_flags = (directIo ? LO_FLAGS_DIRECT_IO : 0) | (readOnly ? LO_FLAGS_READ_ONLY : 0);
  nameImage(imageFd, &config);
  int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  if (control < 0) return -errno;
  int64_t result = -EBUSY;
  for (int tries = 0; result == -EBUSY && tries < kAttachTries; tries++) {
    int number = ioctl(control, LOOP_CTL_GET_FREE);
    result = number < 0 ? -errno : attachTo(number, config, readOnly);
  }
  ::close(control);
  return result;
}

napi_value loopAttach(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "loopAttach";
  napi_value values[4];
  int imageFd;
  bool directIo, readOnly;
  int64_t sectorBytes;
  if (!readArguments(env, info, kCall, 4, values) || !readDescriptor(env, values[0], kCall, 0, &imageFd) ||
      !readBoolean(env, values[1], kCall, 1, &directIo) || !readBoolean(env, values[2], kCall, 2, &readOnly) ||
      !readInteger(env, values[3], kCall, 3, &sectorBytes)) {
    return nullptr;
  }
  return makeNumber(env, attach(imageFd, directIo, readOnly, static_cast<uint32_t>(sectorBytes)));
}

napi_value loopDetach(napi_env env, napi_callback_info info) {
  napi_value value;
  int fd;
  if (!readArguments(env, info, "loopDetach", 1, &value) || !readDescriptor(env, value, "loopDetach", 0, &fd)) return nullptr;
  return makeNumber(env, resultOf(ioctl(fd, LOOP_CLR_FD)));
}

int64_t setWindow(int fd, uint64_t offset, uint64_t bytes) {
  loop_info64 status;
  if (ioctl(fd, LOOP_GET_STATUS64, &status) != 0) return -errno;
  status.lo_offset = offset;
  status.lo_sizelimit = bytes;
  int64_t result = -EAGAIN;
  for (int tries = 0; result == -EAGAIN && tries < kStatusTries; tries++) {
    if (tries != 0) usleep(kStatusPauseUs);
    result = resultOf(ioctl(fd, LOOP_SET_STATUS64, &status));
  }
  return result;
}

napi_value loopSetWindow(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "loopSetWindow";
  napi_value values[3];
  int fd;
  int64_t offset, bytes;
  if (!readArguments(env, info, kCall, 3, values) || !readDescriptor(env, values[0], kCall, 0, &fd) ||
      !readInteger(env, values[1], kCall, 1, &offset) || !readInteger(env, values[2], kCall, 2, &bytes)) {
    return nullptr;
  }
  if (offset < 0 || bytes < 0) return makeNumber(env, -EINVAL);
  return makeNumber(env, setWindow(fd, static_cast<uint64_t>(offset), static_cast<uint64_t>(bytes)));
}

napi_value blockDeviceBytes(napi_env env, napi_callback_info info) {
  napi_value value;
  int fd;
  uint64_t bytes = 0;
  if (!readArguments(env, info, "blockDeviceBytes", 1, &value) || !readDescriptor(env, value, "blockDeviceBytes", 0, &fd)) return nullptr;
  int64_t result = resultOf(ioctl(fd, BLKGETSIZE64, &bytes));
  return makeNumber(env, result < 0 ? result : static_cast<int64_t>(bytes));
}

}  // namespace

bool exportLoop(napi_env env, napi_value exports) {
  return exportCalls(env, exports, {
      {"loopAttach", loopAttach},
      {"loopDetach", loopDetach},
      {"loopSetWindow", loopSetWindow},
      {"blockDeviceBytes", blockDeviceBytes},
  });
}

}  // namespace coverlay
