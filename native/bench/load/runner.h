// Keeps so many tunnels going at a time, and counts how they end.
#ifndef POLYTLS_BENCH_LOAD_RUNNER_H
#define POLYTLS_BENCH_LOAD_RUNNER_H

#include <openssl/ssl.h>

#include <map>
#include <set>
#include <string>
#include <unordered_map>

#include "common/loop.h"
#include "load/plan.h"
#include "load/tally.h"

namespace bench {

class Tunnel;

class Runner {
 public:
  explicit Runner(const Settings &settings);

  // run does all of it and returns the report, a JSON object.
  std::string run();

  // For tunnels.
  const Settings &settings() const { return settings_; }
  Loop *loop() { return &loop_; }
  SSL_CTX *context() { return context_.get(); }
  const std::string &sample_hello() const { return sample_hello_; }
  Tally *tally_of(const Plan &plan) { return counting_ ? (plan.through_proxy ? &through_ : &direct_) : &uncounted_; }
  SSL_SESSION *session_of(const std::string &name);
  void keep_session(const std::string &name, bssl::UniquePtr<SSL_SESSION> session);
  void wake(Tunnel *tunnel, int64_t milliseconds);
  void held(Tunnel *tunnel);   // it stands; it counts as one ended so far
  void ended(Tunnel *tunnel);  // counted and closed; it is deleted soon

 private:
  void run_batch(int64_t count, double seconds);
  void hold_all();
  void wait_while_held();
  void check_held();
  void poll(int milliseconds);
  void end_overdue();

  Settings settings_;
  bssl::UniquePtr<SSL_CTX> context_;
  std::string sample_hello_;
  Loop loop_;
  Tally through_, direct_, uncounted_;
  std::multimap<uint64_t, Tunnel *> sleeping_;  // by when to wake
  std::set<Tunnel *> open_, held_;
  std::unordered_map<std::string, bssl::UniquePtr<SSL_SESSION>> sessions_;
  int64_t next_ = 0, begun_ = 0, finished_ = 0, checked_ = 0;
  int64_t established_ = 0, lost_ = 0, alive_ = 0;
  bool counting_ = true, overtime_ = false, checking_ = false;
  uint64_t deadline_ = 0, next_check_ = 0;
};

}  // namespace bench

#endif
