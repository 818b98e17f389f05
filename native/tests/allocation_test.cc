// Memory that runs out in the engine itself, on a loop thread: every request of the C++ library in the life of a tunnel
// is refused once, with other tunnels beside it.
//
// The Nth request is refused, for each N from the first on, until a round of tunnels goes through without so many.
// Whatever is refused, one tunnel at most is worse for it, and says so: with PTL_E_NOMEM, or, where even that could
// not be told, by a client that is let go before there was a tunnel. What BoringSSL asks for is not refused here
// (fault_memory_test does that): its X.509 code looks not everywhere whether it got its memory. What is to be closed is
// closed with no memory at all, be it the caller's or the loop's.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "exchange.h"
#include "mitm.h"
#include "operations.h"
#include "tunnel.h"

using namespace test;

namespace {

constexpr size_t kBytes = 3000;
constexpr uint64_t kMostRequests = 3000;  // more than any round here makes

std::atomic<int64_t> left{-1};  // requests until one is refused; below 0: none is
std::atomic<bool> for_good{false};  // and every later one, too
std::atomic<uint64_t> refused{0};
std::atomic<bool> loops_struck{true};   // those of loop threads count
thread_local bool struck_here = false;  // those of this thread count

bool on_loop_thread() {
  static thread_local bool known = false;
  if (known) return true;
  char name[16] = "";
  pthread_getname_np(pthread_self(), name, sizeof(name));
  return known = strncmp(name, "polytls-", 8) == 0;
}

bool refuses() {
  const int64_t now = left;
  if (now < 0 || !(struck_here || (loops_struck && on_loop_thread()))) return false;
  if (now != 0 || !for_good) left--;
  refused += now == 0;
  return now == 0;
}

// Not inlined: GCC would see memory of operator new go to free, and warn.
[[gnu::noinline]] void *take(size_t size) { return refuses() ? nullptr : malloc(size == 0 ? 1 : size); }
[[gnu::noinline]] void give(void *memory) { free(memory); }

}  // namespace

void *operator new(size_t size) {
  void *memory = take(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void *operator new[](size_t size) { return operator new(size); }
void *operator new(size_t size, const std::nothrow_t &) noexcept { return take(size); }
void *operator new[](size_t size, const std::nothrow_t &) noexcept { return take(size); }
void operator delete(void *memory) noexcept { give(memory); }
void operator delete[](void *memory) noexcept { give(memory); }
void operator delete(void *memory, size_t) noexcept { give(memory); }
void operator delete[](void *memory, size_t) noexcept { give(memory); }

namespace {

// What a tunnel of |manner| ends in where nothing is refused.
bool usual(const Mitm &tunnel) {
  switch (tunnel.manner()) {
    case Manner::kClientResets:
    case Manner::kOriginResets:
      return tunnel.status() == PTL_OK || tunnel.status() == PTL_E_RESET || tunnel.status() == PTL_E_CLOSED;
    case Manner::kBadOrigin:
      return tunnel.status() == PTL_E_VERIFY;
    case Manner::kNoProtocol:
      return tunnel.status() == PTL_E_ALPN;
    case Manner::kRefused:
      return tunnel.status() == PTL_E_REFUSED;
    case Manner::kGarbage:
      return tunnel.status() == PTL_E_NOT_TLS;
    default:
      return tunnel.status() == PTL_OK && tunnel.whole();
  }
}

// Two tunnels like |manner| and a clean one, with the |at|th request refused. It returns whether there were so many.
bool strike(EngineDriver *engine, MitmRunner *runner, Manner manner, uint64_t at, uint64_t *out_told) {
  refused = 0;
  left = static_cast<int64_t>(at);
  runner->begin(manner, 2 * at + 1, kBytes);
  runner->begin(Manner::kClean, 2 * at + 2, kBytes);
  runner->begin(manner, 2 * at + 3, kBytes);
  std::vector<std::unique_ptr<Mitm>> ended = runner->finish();
  left = -1;
  const bool struck = refused != 0;
  uint64_t harmed = 0;
  for (const auto &tunnel : ended) {
    if (usual(*tunnel)) continue;
    harmed++;
    *out_told += tunnel->status() == PTL_E_NOMEM;
    if (struck && (tunnel->status() == PTL_E_NOMEM || tunnel->status() == kNoStatus)) continue;
    failed(__FILE__, __LINE__, "request " + std::to_string(at) + ": " + tunnel->told());
  }
  CHECK(harmed <= (struck ? 1u : 0u));
  engine->await_no_streams();
  return struck;
}

}  // namespace

TEST(every_request_is_refused_once) {
  uint64_t met = 0, told = 0;
  refusing_port();
  for (Manner manner : {Manner::kClean, Manner::kResumed, Manner::kHalfClose, Manner::kClientResets,
                        Manner::kOriginResets, Manner::kBadOrigin, Manner::kNoProtocol, Manner::kRefused, Manner::kGarbage}) {
    // An engine each: what it has once taken, room for streams above all, it keeps.
    EngineDriver engine;
    MitmRunner runner(&engine, engine.listen());
    const size_t descriptors = open_descriptors();
    uint64_t at = 0;
    while (strike(&engine, &runner, manner, at, &told)) REQUIRE(++at < kMostRequests);
    met += at;
    CHECK_EQ(open_descriptors(), descriptors);
    CHECK_EQ(engine.stats().buffered_bytes, 0u);
    runner.begin(Manner::kClean, 1, kBytes);
    for (const auto &tunnel : runner.finish()) CHECK(tunnel->status() == PTL_OK && tunnel->whole());
    engine.await_no_streams();
  }
  printf("  %llu requests refused, of which %llu ended a tunnel with nomem\n", static_cast<unsigned long long>(met),
         static_cast<unsigned long long>(told));
  CHECK(met > 100 && told > 50);
}

TEST(memory_that_is_gone_for_good) {
  // From the Nth request on every one is refused: tunnels end, each with a status, the engine goes on, and so do
  // tunnels when there is memory again.
  EngineDriver engine;
  MitmRunner runner(&engine, engine.listen());
  uint64_t told = 0;
  for (uint64_t at = 0; at < 60; at++) {
    refused = 0;
    for_good = true;
    left = static_cast<int64_t>(at);
    for (uint64_t i = 0; i < 3; i++) runner.begin(Manner::kClean, 3 * at + i + 1, kBytes);
    for (const auto &tunnel : runner.finish()) {
      told += tunnel->status() == PTL_E_NOMEM;
      const bool ended = tunnel->status() == PTL_E_NOMEM || tunnel->status() == kNoStatus || usual(*tunnel);
      if (!ended) failed(__FILE__, __LINE__, "from request " + std::to_string(at) + " on: " + tunnel->told());
    }
    left = -1;
    for_good = false;
    engine.await_no_streams();
    runner.begin(Manner::kClean, at + 1, kBytes);
    for (const auto &tunnel : runner.finish()) CHECK(tunnel->status() == PTL_OK && tunnel->whole());
  }
  CHECK(told > 30);
}

TEST(what_cannot_be_told_waits_for_memory) {
  // More operations end than there is spare room for, and none other: they are told when there is some.
  EngineDriver engine;
  const uint16_t port = engine.listen();
  constexpr size_t kMany = 150;
  std::vector<Client> clients;
  std::vector<uint64_t> tags;
  for (size_t i = 0; i < kMany; i++) {
    clients.push_back(accept_client(&engine, port));
    tags.push_back(engine.submit(read_op(clients.back().stream, 1)));
  }
  engine.await_stats([](const ptl_stats &stats) { return stats.operations == kMany; });
  refused = 0;
  for_good = true;
  left = 0;
  for (size_t i = 0; i < kMany; i++) engine.cancel(clients[i].stream, tags[i]);
  while (engine.stats().operations != 0) std::this_thread::yield();
  left = -1;
  for_good = false;
  for (uint64_t tag : tags) CHECK_STATUS(engine.await(tag), PTL_E_CANCELLED);
  CHECK(refused > 0);
}

TEST(the_end_takes_no_memory) {
  // With every request refused, all that is open is told, closed and freed.
  EngineDriver engine;
  const uint16_t port = engine.listen();
  std::vector<Peer> waiting;
  for (int i = 0; i < 10; i++) waiting.push_back(Peer::connect_to(port));
  Client client = accept_client(&engine, port);
  Origin origin;
  const ptl_stream far = engine.run(connect_op(client.stream, {loopback(origin.port())}))->stream;
  engine.submit_all({linked(relay_op(client.stream, far)), read_op(client.stream, 1)});
  engine.await_stats([](const ptl_stats &stats) { return stats.streams == 12 && stats.relays == 1; });
  refused = 0;
  for_good = true;
  left = 0;
  engine.stop();
  left = -1;
  for_good = false;
  CHECK(engine.outstanding().empty());
}

namespace {

constexpr uint8_t kAlert = 80;  // internal_error
const std::string kAlertRecord("\x15\x03\x03\x00\x02\x02\x50", 7);

// submit_short hands over |ops|, with the |at|th request of this thread refused, and, with |every|, all after it; with
// |loops| their threads' requests count, too, until |refuse_no_more|. It returns the status.
int submit_short(EngineDriver *engine, const std::vector<ptl_op> &ops, uint64_t at, bool every, bool loops = true) {
  refused = 0;
  for_good = every;
  loops_struck = loops;
  struck_here = true;
  left = static_cast<int64_t>(at);
  const int status = ptl_submit(engine->get(), ops.data(), ops.size());
  struck_here = false;
  return status;
}

void refuse_no_more() {
  left = -1;
  for_good = false;
  loops_struck = true;
}

}  // namespace

TEST(a_close_is_taken_whatever_is_refused) {
  EngineDriver engine;
  const uint16_t port = engine.listen();
  uint64_t met = 0;
  for (bool every : {false, true}) {
    for (bool reset : {false, true}) {
      for (uint64_t at = 0;; at++) {
        REQUIRE(at < 100);
        Client client = accept_client(&engine, port);
        const uint64_t reading = engine.submit(read_op(client.stream, 1));
        engine.turn();
        const ptl_op op = close_op(client.stream, reset ? PTL_FLAG_RESET : 0, kAlert);
        CHECK_EQ(submit_short(&engine, {op}, at, every), PTL_OK);
        Outcome end;
        CHECK_EQ(client.peer.read_to_end(&end), reset ? std::string() : kAlertRecord);
        CHECK(end == (reset ? Outcome::kReset : Outcome::kEnd));
        client.peer.close();
        while (engine.stats().streams != 0) std::this_thread::yield();
        const bool struck = refused != 0;
        refuse_no_more();
        CHECK_STATUS(engine.await(reading), PTL_E_CANCELLED);
        if (!struck) break;
        met++;
      }
    }
  }
  printf("  %llu requests refused\n", static_cast<unsigned long long>(met));
  CHECK(met >= 8);
}

TEST(all_that_is_open_is_closed_without_memory) {
  // On two loops, more than the room for closes grows by, at rest, reading and relaying, each asked for twice.
  EngineDriver engine(2);
  const uint16_t port = engine.listen();
  constexpr size_t kMany = 100;
  std::vector<Client> clients;
  std::vector<Tunnel> tunnels;
  std::vector<uint64_t> tags;
  std::vector<ptl_op> closes;
  for (size_t i = 0; i < kMany; i++) {
    clients.push_back(accept_client(&engine, port));
    if (i % 2 == 0) tags.push_back(engine.submit(read_op(clients.back().stream, 1)));
    tunnels.push_back(open_tunnel(&engine, port));
    tags.push_back(engine.submit(relay_op(tunnels.back().stream, tunnels.back().other)));
    for (ptl_stream stream : {clients.back().stream, tunnels.back().stream, tunnels.back().other}) {
      for (int twice = 0; twice < 2; twice++) closes.push_back(close_op(stream, PTL_FLAG_RESET));
    }
  }
  engine.await_stats([&tags](const ptl_stats &stats) { return stats.operations == tags.size(); });
  CHECK_EQ(submit_short(&engine, closes, 0, true), PTL_OK);
  tunnels.clear();  // a relay that ends closes in order who was not asked for yet, and waits for its FIN
  while (engine.stats().streams != 0) std::this_thread::yield();
  refuse_no_more();
  CHECK(refused > 0);
  for (uint64_t tag : tags) CHECK_STATUS(engine.await(tag), PTL_E_CANCELLED);
}

TEST(what_came_before_a_close_comes_before_it) {
  EngineDriver engine;
  const uint16_t port = engine.listen();
  const std::string words = noise(100000, 5);
  Client client = accept_client(&engine, port);
  const uint64_t writing = engine.submit(write_op(client.stream, words));
  CHECK_EQ(submit_short(&engine, {close_op(client.stream)}, 0, true, false), PTL_OK);
  Outcome end;
  CHECK_EQ(client.peer.read_to_end(&end), words);
  CHECK(end == Outcome::kEnd);
  refuse_no_more();
  const int status = engine.await(writing)->status;
  CHECK(status == PTL_OK || status == PTL_E_CANCELLED);  // closed before the socket had taken all, and flushed even so
}

TEST(a_stale_close_without_memory_closes_nobody) {
  EngineDriver engine;
  const uint16_t port = engine.listen();
  const ptl_stream gone = accept_client(&engine, port).stream;
  engine.run(close_op(gone, PTL_FLAG_RESET));
  engine.await_no_streams();
  Client client = accept_client(&engine, port);
  REQUIRE(client.stream != gone && static_cast<uint32_t>(client.stream) == static_cast<uint32_t>(gone));  // its place
  const uint64_t stale = engine.stats().stale_handles;
  std::vector<ptl_op> closes;
  for (ptl_stream stream : {gone, ptl_stream{0}, client.stream + (1u << 24), client.stream + 1000, PTL_STREAM_CONNECTED}) {
    closes.push_back(close_op(stream));
  }
  CHECK_EQ(submit_short(&engine, closes, 0, true), PTL_OK);
  refuse_no_more();
  client.peer.write("x");
  CHECK_EQ(engine.run(read_op(client.stream, 1)).data, std::string("x"));
  CHECK_EQ(engine.stats().stale_handles, stale + 1);
}

TEST(what_is_told_or_linked_takes_memory) {
  EngineDriver engine;
  const uint16_t port = engine.listen();
  Client client = accept_client(&engine, port);
  ptl_op told = close_op(client.stream);
  told.tag = 7;
  const std::string words = "last words";
  for (const auto &ops : {std::vector<ptl_op>{told}, {linked(close_op(client.stream)), read_op(client.stream, 1)},
                          {linked(write_op(client.stream, words)), close_op(client.stream)}}) {
    CHECK_EQ(submit_short(&engine, ops, 0, true), PTL_E_NOMEM);
    refuse_no_more();
  }
  client.peer.write("x");
  CHECK_EQ(engine.run(read_op(client.stream, 1)).data, std::string("x"));
}
