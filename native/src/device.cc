// See device.h. The descriptor is non-blocking; uv_poll is level-triggered, so requests that are left
// when a batch is used up bring the callback again by themselves.
#include "device.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>
#include <uv.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <unordered_set>

#include "argument.h"
#include "environment.h"
#include "export.h"

namespace coverlay {

struct Device {
  uv_poll_t poll{};
  Environment* environment = nullptr;
  int fd = -1;
  uint8_t* buffer = nullptr;
  size_t bufferBytes = 0;
  int64_t batch = 1;
  napi_ref bufferRef = nullptr;
  napi_ref onRequest = nullptr;
  napi_ref onEnd = nullptr;
  // The JavaScript object; strong while the device is served.
  napi_ref self = nullptr;
  // When the queue was found empty last, and whether looking on has been of use (see awaitMore).
  uint64_t emptySinceNs = 0;
  bool mayLook = false;
  uint32_t doubt = 0;
  uint32_t skips = 0;
  // The request before the pause was not answered at once: its sender waits, and sends nothing.
  bool unanswered = false;
  int64_t looks = 0;
  // FLUSH is answered here, but for these inodes.
  bool answersFlush = false;
  std::unordered_set<uint64_t> askedFlushes;
  int64_t flushes = 0;
  bool running = false;
  bool closed = false;
  bool finalized = false;
};

namespace {

// A program that does one operation after the other sends its next request some microseconds after it has its answer. To sleep in
// between costs more than most operations: the sender has to wake this thread, often on a CPU that must be got out of its idle
// state first. So the thread looks on for a moment before it sleeps, where the last pause was short too ...
constexpr uint64_t kLookNs = 50'000;
// ... as measured when it slept, which includes the time to be woken.
constexpr uint64_t kShortPauseNs = 120'000;
// Looking on in vain doubles the number of short pauses that are slept through before it is tried again, up to this: what it can
// waste is a small part of a CPU.
constexpr uint32_t kSkipsMax = 63;

// What this thread has written to devices: answers, mostly.
thread_local uint64_t written = 0;

bool wantsNoAnswer(const uint8_t* request) {
  fuse_in_header header;
  memcpy(&header, request, sizeof header);
  return header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET || header.opcode == FUSE_INTERRUPT;
}

const napi_type_tag kDeviceTag = {0x5c1d0f5e7a9b4c21, 0x8e3f6a2b9d047c65};

void afterClose(uv_handle_t* handle) {
  auto* device = static_cast<Device*>(handle->data);
  Environment* environment = device->environment;
  napi_env env = environment->env;
  device->closed = true;
  for (napi_ref reference : {device->bufferRef, device->onRequest, device->onEnd, device->self}) {
    if (reference != nullptr) napi_delete_reference(env, reference);
  }
  if (device->finalized) delete device;
  environment->handleClosed();
}

void endDevice(Device* device, int error) {
  if (!device->running) return;
  stopDevice(device);
  device->environment->callBack(device->onEnd, error);
}

enum class Turn { served, empty, ended };

// Each close(2) of a file waits for a FLUSH, and few of them have anything to tell. False: it is for JavaScript.
bool answerFlush(Device* device, ssize_t bytes) {
  fuse_in_header request;
  if (!device->answersFlush || bytes < static_cast<ssize_t>(sizeof request)) return false;
  memcpy(&request, device->buffer, sizeof request);
  if (request.opcode != FUSE_FLUSH || device->askedFlushes.count(request.nodeid) != 0) return false;
  fuse_out_header reply{};
  reply.len = sizeof reply;
  reply.unique = request.unique;
  // ENOENT: the connection was aborted meanwhile. What else the kernel may say of it, JavaScript is to meet and to report.
  if (::write(device->fd, &reply, sizeof reply) < 0 && errno != ENOENT) return false;
  device->flushes++;
  return true;
}

// One request, to JavaScript where it is not a plain FLUSH.
Turn serveOne(Device* device, int pollStatus) {
  ssize_t bytes = ::read(device->fd, device->buffer, device->bufferBytes);
  if (bytes > 0) {
    device->unanswered = false;
    if (answerFlush(device, bytes)) return Turn::served;
    uint64_t before = written;
    bool answerable = bytes >= static_cast<ssize_t>(sizeof(fuse_in_header)) && !wantsNoAnswer(device->buffer);
    if (!device->environment->callBack(device->onRequest, bytes)) stopDevice(device);
    device->unanswered = answerable && written == before;
    return device->running ? Turn::served : Turn::ended;
  }
  int error = bytes == 0 ? ENODEV : errno;
  // ENOENT: the request was interrupted before it was read.
  if (error == ENOENT || error == EINTR) return Turn::served;
  // libuv stops a poll that reports an error; the read says which one it is, unless it has nothing to say.
  if (error == EAGAIN && pollStatus == 0) return Turn::empty;
  endDevice(device, error == EAGAIN ? -pollStatus : error);
  return Turn::ended;
}

// Woken: was the pause a short one? One in which a sender waited for its answer says nothing.
void noteWoken(Device* device) {
  if (device->unanswered) return;
  if (uv_hrtime() - device->emptySinceNs > kShortPauseNs) {
    device->mayLook = false;
  } else if (device->skips > 0) {
    device->skips--;
  } else {
    device->mayLook = true;
  }
}

// The queue is empty: looks on for a moment if that is promising. Without sched_yield(2): where somebody else wants this CPU, that would
// cost a whole slice of his; and a sender that waits for this very CPU is a pause in vain, which is not tried again soon.
Turn awaitMore(Device* device) {
  device->emptySinceNs = uv_hrtime();
  if (!device->mayLook || device->unanswered) return Turn::empty;
  device->looks++;
  do {
    Turn turn = serveOne(device, 0);
    if (turn == Turn::served) device->doubt = 0;
    if (turn != Turn::empty) return turn;
  } while (uv_hrtime() - device->emptySinceNs < kLookNs);
  device->mayLook = false;
  device->doubt = std::min(2 * device->doubt + 1, kSkipsMax);
  device->skips = device->doubt;
  return Turn::empty;
}

void afterPoll(uv_poll_t* handle, int status, int) {
  auto* device = static_cast<Device*>(handle->data);
  if (status == 0) noteWoken(device);
  int64_t turns = status == 0 ? device->batch : INT64_MAX;
  while (turns-- > 0) {
    Turn turn = serveOne(device, status);
    if (turn == Turn::empty) turn = awaitMore(device);
    if (turn != Turn::served) return;
  }
  // The rest after the event loop had its turn.
  device->emptySinceNs = uv_hrtime();
}

bool setBuffer(napi_env env, Device* device, napi_value value, const char* call, size_t index) {
  uint8_t* data;
  size_t bytes;
  if (!readBuffer(env, value, call, index, &data, &bytes)) return false;
  napi_ref reference;
  if (napi_create_reference(env, value, 1, &reference) != napi_ok) return false;
  if (device->bufferRef != nullptr) napi_delete_reference(env, device->bufferRef);
  device->bufferRef = reference;
  device->buffer = data;
  device->bufferBytes = bytes;
  return true;
}

void finalizeDevice(napi_env, void* data, void*) {
  auto* device = static_cast<Device*>(data);
  device->finalized = true;
  if (device->closed) delete device;
}

bool readDevice(napi_env env, napi_value value, const char* call, Device** device) {
  bool tagged = false;
  void* data = nullptr;
  if (napi_check_object_type_tag(env, value, &kDeviceTag, &tagged) != napi_ok || !tagged || napi_unwrap(env, value, &data) != napi_ok) {
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    return pending ? false : throwType(env, call, 0, "what deviceStart returned");
  }
  *device = static_cast<Device*>(data);
  return true;
}

napi_value fuseOpen(napi_env env, napi_callback_info) {
  return makeNumber(env, resultOf(::open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK)));
}

napi_value deviceStart(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "deviceStart";
  napi_value values[5], object;
  int fd;
  int64_t batch;
  uint8_t* data;
  size_t bytes;
  if (!readArguments(env, info, kCall, 5, values) || !readDescriptor(env, values[0], kCall, 0, &fd) ||
      !readBuffer(env, values[1], kCall, 1, &data, &bytes) || !readInteger(env, values[2], kCall, 2, &batch) ||
      !readFunction(env, values[3], kCall, 3) || !readFunction(env, values[4], kCall, 4)) {
    return nullptr;
  }
  if (batch < 1) {
    throwRange(env, kCall, 2, "a batch of at least 1");
    return nullptr;
  }
  auto* device = new Device;
  device->environment = Environment::of(env);
  device->fd = fd;
  device->batch = batch;
  int error = uv_poll_init(device->environment->loop, &device->poll, fd);
  if (error != 0) {
    delete device;
    napi_throw_error(env, uv_err_name(error), "native.deviceStart: this descriptor cannot be polled; expected one of fuseOpen()");
    return nullptr;
  }
  device->poll.data = device;
  device->running = true;
  device->environment->addDevice(device);
  napi_create_object(env, &object);
  napi_type_tag_object(env, object, &kDeviceTag);
  napi_wrap(env, object, device, finalizeDevice, nullptr, nullptr);
  napi_create_reference(env, object, 1, &device->self);
  napi_create_reference(env, values[3], 1, &device->onRequest);
  napi_create_reference(env, values[4], 1, &device->onEnd);
  setBuffer(env, device, values[1], kCall, 1);
  uv_poll_start(&device->poll, UV_READABLE, afterPoll);
  return object;
}

napi_value deviceSetBuffer(napi_env env, napi_callback_info info) {
  napi_value values[2];
  Device* device = nullptr;
  if (!readArguments(env, info, "deviceSetBuffer", 2, values) || !readDevice(env, values[0], "deviceSetBuffer", &device)) return nullptr;
  if (device->running) setBuffer(env, device, values[1], "deviceSetBuffer", 1);
  return nullptr;
}

napi_value deviceAnswerFlush(napi_env env, napi_callback_info info) {
  napi_value value;
  Device* device = nullptr;
  if (!readArguments(env, info, "deviceAnswerFlush", 1, &value) || !readDevice(env, value, "deviceAnswerFlush", &device)) return nullptr;
  device->answersFlush = true;
  return nullptr;
}

napi_value deviceAskFlush(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "deviceAskFlush";
  napi_value values[3];
  Device* device = nullptr;
  int64_t fuseNodeid;
  bool ask;
  if (!readArguments(env, info, kCall, 3, values) || !readDevice(env, values[0], kCall, &device) ||
      !readInteger(env, values[1], kCall, 1, &fuseNodeid) || !readBoolean(env, values[2], kCall, 2, &ask)) {
    return nullptr;
  }
  if (ask) {
    device->askedFlushes.insert(static_cast<uint64_t>(fuseNodeid));
  } else {
    device->askedFlushes.erase(static_cast<uint64_t>(fuseNodeid));
  }
  return nullptr;
}

napi_value deviceFlushes(napi_env env, napi_callback_info info) {
  napi_value value;
  Device* device = nullptr;
  if (!readArguments(env, info, "deviceFlushes", 1, &value) || !readDevice(env, value, "deviceFlushes", &device)) return nullptr;
  return makeNumber(env, device->flushes);
}

napi_value deviceLooks(napi_env env, napi_callback_info info) {
  napi_value value;
  Device* device = nullptr;
  if (!readArguments(env, info, "deviceLooks", 1, &value) || !readDevice(env, value, "deviceLooks", &device)) return nullptr;
  return makeNumber(env, device->looks);
}

napi_value deviceStop(napi_env env, napi_callback_info info) {
  napi_value value;
  Device* device = nullptr;
  if (!readArguments(env, info, "deviceStop", 1, &value) || !readDevice(env, value, "deviceStop", &device)) return nullptr;
  stopDevice(device);
  return nullptr;
}

napi_value deviceWrite(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "deviceWrite";
  napi_value values[3];
  int fd;
  uint8_t* head;
  size_t size;
  int64_t bytes;
  if (!readArguments(env, info, kCall, 3, values) || !readDescriptor(env, values[0], kCall, 0, &fd) ||
      !readBuffer(env, values[1], kCall, 1, &head, &size) || !readInteger(env, values[2], kCall, 2, &bytes)) {
    return nullptr;
  }
  if (bytes < 0 || static_cast<uint64_t>(bytes) > size) {
    throwRange(env, kCall, 2, "a length inside the buffer");
    return nullptr;
  }
  written++;
  return makeNumber(env, resultOf(::write(fd, head, static_cast<size_t>(bytes))));
}

napi_value deviceWrite2(napi_env env, napi_callback_info info) {
  constexpr const char* kCall = "deviceWrite2";
  napi_value values[6];
  int fd;
  uint8_t *head, *body;
  size_t headSize, bodySize;
  int64_t headBytes, bodyAt, bodyBytes;
  if (!readArguments(env, info, kCall, 6, values) || !readDescriptor(env, values[0], kCall, 0, &fd) ||
      !readBuffer(env, values[1], kCall, 1, &head, &headSize) || !readInteger(env, values[2], kCall, 2, &headBytes) ||
      !readBuffer(env, values[3], kCall, 3, &body, &bodySize) || !readInteger(env, values[4], kCall, 4, &bodyAt) ||
      !readInteger(env, values[5], kCall, 5, &bodyBytes)) {
    return nullptr;
  }
  int64_t size = static_cast<int64_t>(bodySize);
  if (headBytes < 0 || static_cast<uint64_t>(headBytes) > headSize || bodyAt < 0 || bodyBytes < 0 || bodyAt > size ||
      bodyBytes > size - bodyAt) {
    throwRange(env, kCall, 5, "lengths inside the buffers");
    return nullptr;
  }
  iovec vectors[2] = {{head, static_cast<size_t>(headBytes)}, {body + bodyAt, static_cast<size_t>(bodyBytes)}};
  written++;
  return makeNumber(env, resultOf(::writev(fd, vectors, 2)));
}

}  // namespace

void stopDevice(Device* device) {
  if (!device->running) return;
  device->running = false;
  device->environment->removeDevice(device);
  uv_poll_stop(&device->poll);
  uv_close(reinterpret_cast<uv_handle_t*>(&device->poll), afterClose);
}

bool exportDevice(napi_env env, napi_value exports) {
  return exportCalls(env, exports, {
      {"fuseOpen", fuseOpen},
      {"deviceStart", deviceStart},
      {"deviceSetBuffer", deviceSetBuffer},
      {"deviceAnswerFlush", deviceAnswerFlush},
      {"deviceAskFlush", deviceAskFlush},
      {"deviceFlushes", deviceFlushes},
      {"deviceLooks", deviceLooks},
      {"deviceStop", deviceStop},
      {"deviceWrite", deviceWrite},
      {"deviceWrite2", deviceWrite2},
  });
}

}  // namespace coverlay
