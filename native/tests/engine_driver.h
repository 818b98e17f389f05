// An engine as its caller drives it: operations go in, completions are awaited by poll on the eventfd.
//
// The driver holds the engine to one completion an operation: it knows every tag that is out, and a
// completion that none is waiting for, or one that has not come when the engine has stopped, fails the test. So
// does a counter of impossible things that is not 0, or a stream that outlived the engine. No wait is a sleep:
// every one ends with an event, or after kPatienceMs with a failure.
#ifndef POLYTLS_TESTS_ENGINE_DRIVER_H
#define POLYTLS_TESTS_ENGINE_DRIVER_H

#include <stdint.h>

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "polytls/native.h"

namespace test {

// How long anything may take on a busy machine under a sanitizer. Only failing tests wait so long.
constexpr int kPatienceMs = 30000;

constexpr uint64_t kAcceptTag = 1;  // of every listener here
constexpr uint32_t kHeadMax = 4096;

// A completion that owns what it holds.
struct Done {
  ptl_completion raw;
  std::string data;

  const ptl_completion *operator->() const { return &raw; }
};

class EngineDriver {
 public:
  explicit EngineDriver(uint32_t num_loops = 1, uint32_t max_streams = 0);
  // The engine's last word is checked: |stop|, then all completions, then the counters.
  ~EngineDriver();
  EngineDriver(const EngineDriver &) = delete;
  EngineDriver &operator=(const EngineDriver &) = delete;

  ptl_engine *get() { return engine_; }

  // listen returns the port. Its connections complete with kAcceptTag.
  uint16_t listen(uint32_t head_max = kHeadMax, uint32_t head_ms = 0, const char *ip = "127.0.0.1");
  uint32_t last_listener() const { return listener_; }

  // submit hands |op| over with a new tag, and returns the tag. submit_all does so for several at once; those
  // whose tag is |kUntagged| stay without one.
  static constexpr uint64_t kUntagged = UINT64_MAX;
  uint64_t submit(ptl_op op);
  std::vector<uint64_t> submit_all(std::vector<ptl_op> ops);
  // await returns the completion of |tag|, whatever else comes before it.
  Done await(uint64_t tag);
  Done run(const ptl_op &op) { return await(submit(op)); }
  Done next_accept() { return await(kAcceptTag); }
  bool has(uint64_t tag);  // has it completed by now?
  const std::set<uint64_t> &outstanding() const { return outstanding_; }
  void await_all();
  // forget drops completions that came and nobody awaited.
  void forget() { arrived_.clear(); }
  void cancel(ptl_stream stream, uint64_t tag) { ptl_cancel(engine_, stream, tag); }

  // turn returns when the loop of |stream| has gone round once more since it was called.
  void turn(ptl_stream stream = 0);
  ptl_stats stats() const;
  // await_stats returns when |good| does, turning the loops meanwhile.
  void await_stats(const std::function<bool(const ptl_stats &)> &good);
  void await_no_streams();

  // stop ends the engine as a caller would and takes every completion that is left.
  void stop();
  // free_undrained frees the engine with whatever is in it.
  void free_undrained();

 private:
  void drain();
  void keep(ptl_completion *completion);
  void wait_for_completions();

  ptl_engine *engine_;
  uint32_t listener_ = 0;
  uint64_t last_tag_ = 100;
  std::set<uint64_t> outstanding_;
  std::map<uint64_t, std::deque<Done>> arrived_;
};

// status_is fails the test, saying what came instead, unless |done| ended in |status|.
bool status_is(const char *file, int line, const Done &done, int status);

}  // namespace test

#define CHECK_STATUS(done, status) ((void)test::status_is(__FILE__, __LINE__, (done), (status)))
#define REQUIRE_STATUS(done, status)                                                     \
  do {                                                                                   \
    if (!test::status_is(__FILE__, __LINE__, (done), (status))) throw test::GaveUp(#done); \
  } while (0)

#endif
