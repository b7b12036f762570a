// A word to the service manager that started this process: sd_notify(3), a datagram to the unix socket that NOTIFY_SOCKET names.
// Node.js has no such sockets.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>

#include "argument.h"
#include "export.h"

namespace coverlay {

namespace {

int64_t sendTo(const std::string& path, const uint8_t* message, size_t bytes) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || (path[0] != '/' && path[0] != '@')) return -EINVAL;
  if (path.size() >= sizeof address.sun_path) return -ENAMETOOLONG;
  memcpy(address.sun_path, path.data(), path.size());
  // An abstract name begins with a NUL: unix(7).
  if (path[0] == '@') address.sun_path[0] = '\0';
  const socklen_t length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  const int64_t code = resultOf(sendto(fd, message, bytes, MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address), length));
  close(fd);
  return code;
}

napi_value sendDatagram(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "sendDatagram";
  napi_value values[2];
  std::string path;
  uint8_t* message;
  size_t bytes;
  if (!readArguments(env, info, kCall, 2, values) || !readString(env, values[0], kCall, 0, &path) ||
      !readBuffer(env, values[1], kCall, 1, &message, &bytes))
    return nullptr;
  return makeNumber(env, sendTo(path, message, bytes));
}

}  // namespace

bool exportService(napi_env env, napi_value exports) {
  return exportCalls(env, exports, {{"sendDatagram", sendDatagram}});
}

}  // namespace coverlay
