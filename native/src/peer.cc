// Who is at the other end of a local socket, and its process: unix(7) SO_PEERCRED, pidfd_open(2).
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "argument.h"
#include "export.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace coverlay {

namespace {

int64_t credentialsOf(int fd, ucred* peer) {
  socklen_t bytes = sizeof *peer;
  return resultOf(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &bytes));
}

napi_value peerCredentials(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "peerCredentials";
  napi_value values[2];
  int fd;
  double* result;
  if (!readArguments(env, info, kCall, 2, values) || !readDescriptor(env, values[0], kCall, 0, &fd) ||
      !readDoubles(env, values[1], kCall, 1, 3, &result))
    return nullptr;
  ucred peer;
  const int64_t code = credentialsOf(fd, &peer);
  if (code >= 0) {
    result[0] = peer.pid;
    result[1] = peer.uid;
    result[2] = peer.gid;
  }
  return makeNumber(env, code);
}

int64_t pidfdOf(int fd) {
  int pidfd = -1;
  socklen_t bytes = sizeof pidfd;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &bytes) == 0) return pidfd;
  // Before Linux 6.5: the process may have ended and its number be another's by now, but it connected a moment ago.
  if (errno != ENOPROTOOPT) return -errno;
  ucred peer;
  const int64_t code = credentialsOf(fd, &peer);
  if (code < 0) return code;
  return peer.pid <= 0 ? -ESRCH : resultOf(syscall(SYS_pidfd_open, peer.pid, 0));
}

napi_value peerPidfd(napi_env env, napi_callback_info info) {
  napi_value value;
  int fd;
  if (!readArguments(env, info, "peerPidfd", 1, &value) || !readDescriptor(env, value, "peerPidfd", 0, &fd)) return nullptr;
  return makeNumber(env, pidfdOf(fd));
}

napi_value pidfdSignal(napi_env env, napi_callback_info info) {
  napi_value values[2];
  int fd;
  int64_t signal;
  if (!readArguments(env, info, "pidfdSignal", 2, values) || !readDescriptor(env, values[0], "pidfdSignal", 0, &fd) ||
      !readInteger(env, values[1], "pidfdSignal", 1, &signal))
    return nullptr;
  return makeNumber(env, resultOf(syscall(SYS_pidfd_send_signal, fd, static_cast<int>(signal), nullptr, 0)));
}

napi_value pidfdEnded(napi_env env, napi_callback_info info) {
  napi_value value;
  int fd;
  if (!readArguments(env, info, "pidfdEnded", 1, &value) || !readDescriptor(env, value, "pidfdEnded", 0, &fd)) return nullptr;
  pollfd wanted = {fd, POLLIN, 0};
  const int ready = poll(&wanted, 1, 0);
  if (ready > 0 && (wanted.revents & POLLNVAL) != 0) return makeNumber(env, -EBADF);
  return makeNumber(env, resultOf(ready));
}

}  // namespace

bool exportPeer(napi_env env, napi_value exports) {
  return exportCalls(env, exports, {
      {"peerCredentials", peerCredentials},
      {"peerPidfd", peerPidfd},
      {"pidfdSignal", pidfdSignal},
      {"pidfdEnded", pidfdEnded},
  });
}

}  // namespace coverlay
