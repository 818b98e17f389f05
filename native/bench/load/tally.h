// What is counted, and how it is told.
#ifndef POLYTLS_BENCH_LOAD_TALLY_H
#define POLYTLS_BENCH_LOAD_TALLY_H

#include <stdint.h>

#include <map>
#include <string>
#include <vector>

#include "load/plan.h"

namespace bench {

// Times of one tunnel, in ns of the monotonic clock; 0: it did not come so far.
struct Times {
  uint64_t began = 0, answered = 0, shaken = 0, first_byte = 0, done = 0;
};

class Tally {
 public:
  void ended_well(const Plan &plan, const Times &times, uint64_t down, uint64_t up, bool h2, bool resumed);
  void failed(const Plan &plan, const std::string &why, const std::string &detail);
  void add_round_trips(const std::vector<uint32_t> &tens_of_ns);

  int64_t ok() const { return ok_; }
  int64_t ended() const { return ok_ + failed_; }
  // json returns an object, null when there was nothing; |wall_s| is how long all took. It sorts what it holds.
  std::string json(double wall_s);

 private:
  struct PerBehaviour {
    int64_t ok = 0;
    std::map<std::string, int64_t> failures;
  };

  int64_t ok_ = 0, failed_ = 0, h2_ = 0, resumed_ = 0;
  uint64_t down_ = 0, up_ = 0;
  double talking_s_ = 0;
  std::map<std::string, PerBehaviour> behaviours_;
  std::vector<std::string> samples_;
  // From the first connect, in us.
  std::vector<uint32_t> answered_, shaken_, first_byte_, done_, round_trips_;
};

std::string quoted(const std::string &text);  // as JSON

}  // namespace bench

#endif
