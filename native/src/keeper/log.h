// JSON lines as the overlay's log has them (dlmd/base/pino-log.ts): level, time, fields, msg.
#pragma once

#include <cstdint>

namespace keeper {

struct Field {
  const char* name;
  int64_t value;
};

constexpr Field kNoField = {nullptr, 0};

// To stderr, if it takes it at once: a log that nobody reads stops no keeper. `message` is ASCII without quotes.
void writeLog(const char* level, const char* message, Field one = kNoField, Field other = kNoField);

}  // namespace keeper
