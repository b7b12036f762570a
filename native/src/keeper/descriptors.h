// The descriptors of a keeper, by their numbers: it is started with them. The program that it starts has the first three, too.
#pragma once

namespace keeper {

// A stream socket to the process that serves.
constexpr int kLineFd = 3;
constexpr int kFuseFd = 4;
constexpr int kJournalFd = 5;
// A file that gets each line of the log, or /dev/null.
constexpr int kLogFd = 6;

}  // namespace keeper
