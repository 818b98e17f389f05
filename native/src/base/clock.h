// CLOCK_MONOTONIC, the only clock of the engine; the one Python's time.monotonic_ns reads.
#ifndef POLYTLS_SRC_BASE_CLOCK_H
#define POLYTLS_SRC_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

namespace ptl {

inline uint64_t now_ns() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return static_cast<uint64_t>(ts.tv_sec) * 1000000000u + static_cast<uint64_t>(ts.tv_nsec);
}

}  // namespace ptl

#endif
