// A cable that takes its time: Ethernet frames between a packet socket and a TAP device (packet(7), Documentation/networking/tuntap.rst).
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <vector>

#include "argument.h"
#include "export.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

namespace coverlay {

namespace {

constexpr int64_t kNsPerSecond = 1000000000;
// The largest frame that the kernel hands over unsegmented, with its virtio_net_hdr.
constexpr size_t kFrameBytesMax = 65536 + 256;
// What is on the way in one direction; what comes beyond is lost, as in any queue.
constexpr size_t kQueueBytesMax = 16 * 1024 * 1024;
constexpr int kSocketBufferBytes = 8 * 1024 * 1024;
constexpr int kFramesAtOnce = 64;

int closing(int fd) {
  const int code = -errno;
  ::close(fd);
  return code;
}

int64_t openTap(const std::string& name) {
  ifreq request;
  memset(&request, 0, sizeof request);
  if (name.size() >= IFNAMSIZ) return -ENAMETOOLONG;
  memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  const int fd = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -errno;
  // Frames pass as the kernel has them: large ones whole, checksums that nobody has made yet not made.
  if (ioctl(fd, TUNSETIFF, &request) != 0 || ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) != 0) return closing(fd);
  return fd;
}

int64_t openFrames(const std::string& name) {
  const unsigned index = if_nametoindex(name.c_str());
  if (index == 0) return -errno;
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  const int on = 1;
  if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0 ||
      setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) != 0 ||
      setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kSocketBufferBytes, sizeof kSocketBufferBytes) != 0 ||
      setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kSocketBufferBytes, sizeof kSocketBufferBytes) != 0) {
    return closing(fd);
  }
  sockaddr_ll address;
  memset(&address, 0, sizeof address);
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(index);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return closing(fd);
  return fd;
}

int64_t nowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

struct Frame {
  int64_t dueNs;
  std::vector<uint8_t> bytes;
};

class Direction {
 public:
  Direction(int from, int to) : from_(from), to_(to) {}

  // -errno when the device is gone.
  int64_t take(int64_t dueNs, uint8_t* room) {
    for (int frames = 0; frames < kFramesAtOnce; frames++) {
      const ssize_t bytes = ::read(from_, room, kFrameBytesMax);
      if (bytes < 0) {
        // A cable that is pulled out and may be plugged in again.
        if (errno == EAGAIN || errno == EINTR || errno == ENETDOWN) return 0;
        return -errno;
      }
      if (queued_ + bytes > kQueueBytesMax) continue;
      queued_ += bytes;
      queue_.push_back({dueNs, std::vector<uint8_t>(room, room + bytes)});
    }
    return 0;
  }

  void giveDue(int64_t now) {
    while (!queue_.empty() && queue_.front().dueNs <= now) {
      const std::vector<uint8_t>& bytes = queue_.front().bytes;
      // What the other end does not take is lost: it is down, or full.
      (void)!::write(to_, bytes.data(), bytes.size());
      queued_ -= bytes.size();
      queue_.pop_front();
    }
  }

  int64_t nextDueNs() const { return queue_.empty() ? INT64_MAX : queue_.front().dueNs; }

 private:
  const int from_;
  const int to_;
  std::deque<Frame> queue_;
  size_t queued_ = 0;
};

int64_t relay(int one, int other, int64_t delayNs) {
  prctl(PR_SET_TIMERSLACK, 1);
  std::vector<uint8_t> room(kFrameBytesMax);
  Direction directions[] = {{one, other}, {other, one}};
  pollfd polled[] = {{one, POLLIN, 0}, {other, POLLIN, 0}};
  for (;;) {
    const int64_t now = nowNs();
    int64_t due = INT64_MAX;
    for (Direction& direction : directions) {
      direction.giveDue(now);
      if (direction.nextDueNs() < due) due = direction.nextDueNs();
    }
    const int64_t left = due - now;
    const timespec wait = {left / kNsPerSecond, left % kNsPerSecond};
    if (ppoll(polled, 2, due == INT64_MAX ? nullptr : &wait, nullptr) < 0 && errno != EINTR) return -errno;
    for (int at = 0; at < 2; at++) {
      if (polled[at].revents == 0) continue;
      const int64_t code = directions[at].take(nowNs() + delayNs, room.data());
      if (code < 0) return code;
    }
  }
}

napi_value openByName(napi_env env, napi_callback_info info, const char* call, int64_t (*open)(const std::string&)) {
  napi_value value;
  std::string name;
  if (!readArguments(env, info, call, 1, &value) || !readString(env, value, call, 0, &name)) return nullptr;
  return makeNumber(env, open(name));
}

napi_value tapOpen(napi_env env, napi_callback_info info) { return openByName(env, info, "tapOpen", openTap); }

napi_value framesOpen(napi_env env, napi_callback_info info) { return openByName(env, info, "framesOpen", openFrames); }

napi_value relayFrames(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "relayFrames";
  napi_value values[3];
  int one, other;
  int64_t delayNs;
  if (!readArguments(env, info, kCall, 3, values) || !readDescriptor(env, values[0], kCall, 0, &one) ||
      !readDescriptor(env, values[1], kCall, 1, &other) || !readInteger(env, values[2], kCall, 2, &delayNs)) {
    return nullptr;
  }
  return makeNumber(env, relay(one, other, delayNs < 0 ? 0 : delayNs));
}

}  // namespace

bool exportFrames(napi_env env, napi_value exports) {
  return exportCalls(env, exports, {
      {"tapOpen", tapOpen},
      {"framesOpen", framesOpen},
      {"relayFrames", relayFrames},
  });
}

}  // namespace coverlay
