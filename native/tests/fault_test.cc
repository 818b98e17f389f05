// Every system call of a tunnel fails once, in every way it can, while another tunnel runs beside.
//
// For each call and error the first such call of a tunnel is struck, then the second, and so on, until a tunnel goes
// through without reaching the call to strike: so every step has met every fault. Whatever happens, each operation
// ends in one completion with a status that has a meaning, nothing is left behind, and no byte of any tunnel is wrong.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <string>
#include <vector>

#include "check.h"
#include "faults.h"
#include "mitm.h"

using namespace test;

namespace {

constexpr size_t kBytes = 3000;
constexpr uint64_t kMostSteps = 400;  // more calls of one kind than any tunnel here makes

struct Fault {
  int call;
  std::vector<int> errors;
  bool harmless;  // the tunnel must go through all the same
};

const std::vector<Fault> &faults() {
  static const std::vector<Fault> all = {
      {FAULT_RECV, {EINTR, EAGAIN, FAULT_SHORT}, true},
      {FAULT_RECV, {ECONNRESET, ENOMEM, ETIMEDOUT}, false},
      {FAULT_SEND, {EINTR, EAGAIN, FAULT_SHORT}, true},
      {FAULT_SEND, {ECONNRESET, EPIPE, ENOBUFS, ENOMEM}, false},
      {FAULT_ACCEPT4, {ECONNABORTED, EINTR, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM}, true},
      {FAULT_CONNECT, {ECONNREFUSED, ENETUNREACH, EADDRNOTAVAIL, ENOBUFS, EAGAIN}, false},
      {FAULT_SOCKET, {EMFILE, ENFILE, ENOBUFS, ENOMEM}, false},
      {FAULT_EPOLL_CTL, {ENOMEM, ENOSPC}, false},
      {FAULT_EPOLL_WAIT, {EINTR}, true},
      {FAULT_WRITE, {EINTR}, true},
      {FAULT_READ, {EAGAIN, EINTR}, true},
      {FAULT_GETSOCKOPT, {ENOBUFS}, false},
      {FAULT_SETSOCKOPT, {ENOMEM}, true},
      {FAULT_SHUTDOWN, {ENOTCONN}, false},
  };
  return all;
}

bool has_meaning(int status) {
  switch (status) {
    case kNoStatus:
    case PTL_OK:
    case PTL_E_NOMEM:
    case PTL_E_CLOSED:
    case PTL_E_RESET:
    case PTL_E_IO:
    case PTL_E_REFUSED:
    case PTL_E_UNREACHABLE:
    case PTL_E_NO_SOCKET:
      return true;
    default:
      return false;
  }
}

// One tunnel with |error| at its |step|th call, and one after it without. It returns whether anything was struck.
bool strike(EngineDriver *engine, MitmRunner *runner, const Fault &fault, int error, uint64_t step) {
  faults_clear();
  REQUIRE(faults_add(fault.call, error, step, 1, 1, 0));
  runner->begin(Manner::kClean, step + 1, kBytes);
  std::vector<std::unique_ptr<Mitm>> ended = runner->finish();
  const bool struck = faults_struck() != 0;
  faults_clear();
  const std::string where = "call " + std::to_string(fault.call) + ", " + (error > 0 ? strerror(error) : "short") +
                            ", step " + std::to_string(step) + ": ";
  for (const auto &tunnel : ended) {
    const bool good = fault.harmless || !struck ? tunnel->status() == PTL_OK && tunnel->whole() : has_meaning(tunnel->status());
    if (good) continue;
    failed(__FILE__, __LINE__, where + tunnel->told());
  }
  try {
    engine->await_no_streams();
  } catch (const GaveUp &) {
    failed(__FILE__, __LINE__, where + "a stream is left");
    throw;
  }
  return struck;
}

}  // namespace

TEST(every_call_fails_at_every_step) {
  EngineDriver engine;
  MitmRunner runner(&engine, engine.listen());
  runner.begin(Manner::kClean, 1, kBytes);
  runner.finish();
  engine.await_no_streams();
  const size_t descriptors = open_descriptors();
  uint64_t met = 0;
  for (const Fault &fault : faults()) {
    for (int error : fault.errors) {
      uint64_t step = 0;
      while (strike(&engine, &runner, fault, error, step)) REQUIRE(++step < kMostSteps);
      met += step;
    }
  }
  printf("  %llu faults met\n", static_cast<unsigned long long>(met));
  CHECK_EQ(open_descriptors(), descriptors);
}

TEST(no_descriptor_for_upstream_is_our_own_lack) {
  EngineDriver engine;
  MitmRunner runner(&engine, engine.listen());
  for (auto [error, status] : {std::pair{EMFILE, PTL_E_NO_SOCKET}, std::pair{ENFILE, PTL_E_NO_SOCKET},
                               std::pair{ENOBUFS, PTL_E_NO_SOCKET}, std::pair{ENOMEM, PTL_E_NOMEM}}) {
    faults_clear();
    REQUIRE(faults_add(FAULT_SOCKET, error, 0, 1, 1, 0));
    runner.begin(Manner::kClean, 1, kBytes);
    for (const auto &tunnel : runner.finish()) CHECK_EQ(tunnel->status(), status);
  }
  faults_clear();
  engine.await_no_streams();
}

TEST(storms_leave_every_byte_where_it_was) {
  // Calls that are cut short, interrupted, or told to come again, by chance and often.
  EngineDriver engine(2);
  MitmRunner runner(&engine, engine.listen());
  faults_clear();
  for (int call : {FAULT_RECV, FAULT_SEND}) {
    CHECK(faults_add(call, FAULT_SHORT, 0, UINT64_MAX, 4, 11));
    CHECK(faults_add(call, EAGAIN, 0, UINT64_MAX, 4, 12));
    CHECK(faults_add(call, EINTR, 0, UINT64_MAX, 4, 13));
  }
  CHECK(faults_add(FAULT_EPOLL_WAIT, EINTR, 0, UINT64_MAX, 3, 14));
  CHECK(faults_add(FAULT_ACCEPT4, ECONNABORTED, 0, UINT64_MAX, 3, 15));
  for (uint64_t seed = 1; seed <= 60; seed++) {
    runner.begin(seed % 3 == 0 ? Manner::kHalfClose : Manner::kClean, seed, 20000);
  }
  for (const auto &tunnel : runner.finish()) {
    if (tunnel->status() != PTL_OK || !tunnel->whole()) failed(__FILE__, __LINE__, tunnel->told());
  }
  CHECK(faults_struck() > 100);
  faults_clear();
  engine.await_no_streams();
}

TEST(others_are_unharmed) {
  // Tunnels of which some meet hard faults: each either goes through whole or ends in a failure, and those that come
  // afterwards all go through.
  EngineDriver engine(2);
  MitmRunner runner(&engine, engine.listen());
  for (uint64_t round = 1; round <= 5; round++) {
    faults_clear();
    CHECK(faults_add(FAULT_RECV, ECONNRESET, 10, 3, 20, round));
    CHECK(faults_add(FAULT_SEND, EPIPE, 10, 3, 20, round + 1));
    CHECK(faults_add(FAULT_SOCKET, EMFILE, 2, 2, 2, round + 2));
    CHECK(faults_add(FAULT_EPOLL_CTL, ENOMEM, 5, 2, 3, round + 3));
    CHECK(faults_add(FAULT_ACCEPT4, EMFILE, 0, 2, 2, round + 4));
    for (uint64_t seed = 1; seed <= 30; seed++) runner.begin(Manner::kClean, seed, 20000);
    uint64_t whole = 0;
    for (const auto &tunnel : runner.finish()) {
      // One that ended well may lack bytes for a client that had said it was done: how it left is not told apart.
      if (!has_meaning(tunnel->status())) failed(__FILE__, __LINE__, tunnel->told());
      whole += tunnel->whole();
    }
    CHECK(whole + faults_struck() >= 30);  // a fault ends one tunnel at most
    faults_clear();
  }
  for (uint64_t seed = 1; seed <= 10; seed++) runner.begin(Manner::kClean, seed, 20000);
  for (const auto &tunnel : runner.finish()) {
    if (tunnel->status() != PTL_OK || !tunnel->whole()) failed(__FILE__, __LINE__, tunnel->told());
  }
  engine.await_no_streams();
}
