// The descriptors of a keeper, by their numbers: it is started with them. The program that it starts has the first three, too.
#pragma once

namespace keeper {

// A stream socket to the process that serves.
constexpr int kLineFd = 3;
constexpr int kFuseFd = 4;
constexpr int kJournalFd = 5;
// A connection to dlmd, which keeps the locks of a crashed process until it is closed. Only held.
constexpr int kDlmdFd = 6;
// The page of the node's lease.
constexpr int kLeaseFd = 7;

}  // namespace keeper
