// The soak in short, under the sanitizers: tunnels of every manner at once, through the operations and flags that the
// proxy uses, on several loops. Every byte is compared, every operation has one completion (engine_driver.h), and at
// the end nothing is left.
//
// POLYTLS_SOAK_SECONDS makes it longer, POLYTLS_SOAK_SEED another; both are printed.
#include <stdio.h>
#include <stdlib.h>

#include <map>
#include <set>
#include <string>

#include "base/clock.h"
#include "check.h"
#include "mitm.h"

using namespace test;

namespace {

constexpr uint64_t kSecondNs = 1000000000;
constexpr size_t kAtOnce = 24;
constexpr size_t kMostBytes = 60000;

uint64_t number(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  return text != nullptr ? strtoull(text, nullptr, 10) : otherwise;
}

// How a tunnel of each manner may end. A reset may come at any step, and then the step says how it saw it.
const std::set<int> &endings(Manner manner) {
  static const std::map<Manner, std::set<int>> all = {
      {Manner::kClean, {PTL_OK}},
      {Manner::kClientResets, {PTL_OK, PTL_E_RESET, PTL_E_CLOSED}},
      {Manner::kOriginResets, {PTL_OK, PTL_E_RESET, PTL_E_CLOSED}},
      {Manner::kHalfClose, {PTL_OK}},
      {Manner::kSlow, {PTL_OK}},
      {Manner::kGarbage, {PTL_E_NOT_TLS}},
      {Manner::kHelloCut, {PTL_E_CLOSED}},
      {Manner::kBadOrigin, {PTL_E_VERIFY}},
      {Manner::kNoProtocol, {PTL_E_ALPN}},
      {Manner::kRefused, {PTL_E_REFUSED}},
      {Manner::kUnverified, {PTL_OK}},
      {Manner::kResumed, {PTL_OK}},
  };
  return all.at(manner);
}

void judge(const Mitm &tunnel) {
  if (endings(tunnel.manner()).count(tunnel.status()) == 0) {
    failed(__FILE__, __LINE__, "an ending that is not meant: " + tunnel.told());
  }
  const std::set<Manner> to_the_end = {Manner::kClean, Manner::kSlow, Manner::kHalfClose,
                                      Manner::kUnverified, Manner::kResumed};
  if (to_the_end.count(tunnel.manner()) != 0 && !tunnel.whole()) failed(__FILE__, __LINE__, "bytes are missing: " + tunnel.told());
}

}  // namespace

TEST(tunnels_of_every_manner) {
  const uint64_t seconds = number("POLYTLS_SOAK_SECONDS", 6), first = number("POLYTLS_SOAK_SEED", 1);
  EngineDriver engine(3);
  MitmRunner runner(&engine, engine.listen());
  // What is made once, the laboratory above all, is made before descriptors are counted.
  runner.begin(Manner::kClean, first, kMostBytes);
  runner.finish();
  engine.await_no_streams();
  refusing_port();
  const size_t descriptors = open_descriptors();
  const uint64_t until = ptl::now_ns() + seconds * kSecondNs;
  uint64_t begun = 0, ended = 0;
  while (ptl::now_ns() < until || runner.open() != 0) {
    while (runner.open() < kAtOnce && ptl::now_ns() < until) {
      const uint64_t seed = first + ++begun;
      runner.begin(static_cast<Manner>(seed * 2654435761u % kNumManners), seed, kMostBytes);
    }
    for (const auto &tunnel : runner.turn()) {
      judge(*tunnel);
      ended++;
    }
  }
  CHECK_EQ(begun, ended);
  engine.await_no_streams();
  CHECK_EQ(open_descriptors(), descriptors);
  CHECK_EQ(engine.stats().impossible, 0u);
  CHECK_EQ(engine.stats().buffered_bytes, 0u);
  printf("  %llu tunnels, seed %llu\n", static_cast<unsigned long long>(ended), static_cast<unsigned long long>(first));
}
