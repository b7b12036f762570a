// Drops what the kernel caches of a mount (overlay/HAZARDS.md, F7), of all inodes that the journal has: first of those which are open, whose pages and
// attributes programs have without their names. A notification waits, uninterruptibly, for a page that
// a request holds which nobody answers. So children write them, and the keeper never waits for one of them.
#pragma once

#include <cstdint>

namespace keeper {

struct DropCounters;

class Drop {
 public:
  // Names, attributes and pages. True: nothing is left but what waits for a page.
  bool run();
  // The same without children, who cannot be had. Only of a connection that is ended: it waits for pages.
  bool runHere();
  // Returns when all children have ended, as they do when the connection is ended. False: they have not, for long.
  bool finish(bool isEnded);
  // Takes the children that have ended.
  void collect();
  // Children that have not ended, of all runs.
  int waiting() const { return living_; }
  // Inodes that the journal had for the last run.
  int64_t rows() const { return rows_; }
  // What the kernel said that it must not, in the last run; 0: nothing.
  int refused() const;

 private:
  bool begin();
  bool startOne();
  uint64_t items() const;
  bool isAllTaken() const;

  DropCounters* counters_ = nullptr;
  int64_t handles_ = 0;
  int64_t rows_ = 0;
  int living_ = 0;
  int started_ = 0;
  // A child has not ended by itself: its row may be left.
  bool lost_ = false;
};

}  // namespace keeper
