// See log.h.
#include "log.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>

namespace keeper {

namespace {

constexpr size_t kLineBytes = 512;

int addField(char* at, size_t room, const Field& field) {
  return field.name == nullptr ? 0 : snprintf(at, room, ",\"%s\":%" PRId64, field.name, field.value);
}

// A pipe that has room says so only if it takes a line of this length whole (pipe(7), PIPE_BUF).
void writeNow(int fd, const char* line, size_t bytes) {
  pollfd polled = {fd, POLLOUT, 0};
  if (poll(&polled, 1, 0) == 1 && (polled.revents & POLLOUT) != 0 && write(fd, line, bytes) < 0) return;
}

}  // namespace

void writeLog(const char* level, const char* message, Field one, Field other) {
  timespec now;
  tm parts;
  char time[32], line[kLineBytes];
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &parts);
  strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &parts);
  int bytes = snprintf(line, sizeof line, "{\"level\":\"%s\",\"time\":\"%s.%03ldZ\",\"keeper\":%d", level, time, now.tv_nsec / 1'000'000, getpid());
  bytes += addField(line + bytes, sizeof line - static_cast<size_t>(bytes), one);
  bytes += addField(line + bytes, sizeof line - static_cast<size_t>(bytes), other);
  bytes += snprintf(line + bytes, sizeof line - static_cast<size_t>(bytes), ",\"msg\":\"%s\"}\n", message);
  if (bytes < 0 || static_cast<size_t>(bytes) >= sizeof line) return;
  writeNow(STDERR_FILENO, line, static_cast<size_t>(bytes));
}

}  // namespace keeper
