// What a relay holds and whom it serves: back-pressure, idle memory, fairness.
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "exchange.h"
#include "tunnel.h"

using namespace test;

namespace {

constexpr uint64_t kMostBuffered = 1 << 20;  // of one tunnel; the relay's own word is one chunk each way
constexpr size_t kMiB = 1 << 20;

// Bytes without end, of which any piece can be checked: noise repeated.
const std::string &pattern() {
  static const std::string bytes = noise(kMiB, 77);
  return bytes;
}

// A sender and a reader of one direction, each at its own pace.
struct Flow {
  Peer *from, *to;
  size_t total;
  size_t sent = 0, got = 0;

  // send returns whether the socket took anything.
  bool send() {
    size_t at = sent % kMiB;
    size_t size = std::min({kMiB - at, total - sent, size_t{200000}});
    bool broken;
    size_t n = size == 0 ? 0 : from->write_some(pattern().data() + at, size, &broken);
    sent += n;
    return n != 0;
  }
  bool receive() {
    std::string piece;
    size_t before = got;
    while (to->read_some(&piece, SIZE_MAX) == Outcome::kBytes && piece.size() < kMiB) {
    }
    for (size_t at = 0; at < piece.size();) {
      size_t size = std::min(piece.size() - at, kMiB - got % kMiB);
      REQUIRE(pattern().compare(got % kMiB, size, piece, at, size) == 0);
      at += size;
      got += size;
    }
    return got != before;
  }
};

// Pushes until nothing moves any more: the socket takes nothing though the engine has had its turns.
void push_until_stalled(EngineDriver *engine, Flow *flow) {
  for (int quiet = 0; quiet < 50 && flow->sent < flow->total; quiet++) {
    while (flow->send()) quiet = 0;
    CHECK(engine->stats().buffered_bytes < kMostBuffered);
    engine->turn();
  }
}

void stall_and_go_on(const TunnelSpec &spec, bool upwards, size_t total) {
  EngineDriver engine;
  TunnelSpec small = spec;
  small.receive_bytes = 65536;
  Tunnel tunnel = open_tunnel(&engine, engine.listen(), small);
  uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
  Flow flow{upwards ? &tunnel.client : &tunnel.origin, upwards ? &tunnel.origin : &tunnel.client, total};
  push_until_stalled(&engine, &flow);
  CHECK(flow.sent < total);  // the writer was held back
  CHECK(engine.stats().buffered_bytes > 0);
  while (flow.got < total) {
    bool moved = flow.send();
    moved = flow.receive() || moved;
    CHECK(engine.stats().buffered_bytes < kMostBuffered);
    if (!moved && flow.got < total) flow.to->wait(POLLIN);
  }
  engine.cancel(tunnel.stream, relaying);
  Done done = engine.await(relaying);
  CHECK_EQ(upwards ? done->bytes_out : done->bytes_in, total);
  CHECK_EQ(upwards ? done->bytes_in : done->bytes_out, 0u);
}

}  // namespace

TEST(a_stalled_reader_holds_the_writer_back) {
  for (bool upwards : {true, false}) stall_and_go_on(TunnelSpec(), upwards, 64 * kMiB);
}

TEST(a_stalled_reader_holds_the_writer_back_tls) {
  TunnelSpec spec;
  spec.tls = true;
  for (bool upwards : {true, false}) stall_and_go_on(spec, upwards, 24 * kMiB);
}

TEST(a_stalled_direction_does_not_stall_the_other) {
  EngineDriver engine;
  TunnelSpec spec;
  spec.receive_bytes = 65536;
  Tunnel tunnel = open_tunnel(&engine, engine.listen(), spec);
  engine.submit(relay_op(tunnel.stream, tunnel.other));
  Flow stalled{&tunnel.client, &tunnel.origin, 64 * kMiB};
  push_until_stalled(&engine, &stalled);
  Flow flowing{&tunnel.origin, &tunnel.client, 8 * kMiB};
  while (flowing.got < flowing.total) {
    bool moved = flowing.send();
    moved = flowing.receive() || moved;
    if (!moved) flowing.to->wait(POLLIN);
  }
}

TEST(the_end_waits_behind_the_bytes) {
  // The writer is done and gone before the reader has begun.
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (bool tls : {false, true}) {
    TunnelSpec spec;
    spec.tls = tls;
    spec.receive_bytes = 65536;
    Tunnel tunnel = open_tunnel(&engine, port, spec);
    uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
    Flow flow{&tunnel.origin, &tunnel.client, 2 * kMiB};
    tunnel.client.shutdown_write();
    push_until_stalled(&engine, &flow);
    size_t sent = flow.sent;
    if (tls) tunnel.origin.say_goodbye();
    tunnel.origin.shutdown_write();
    Outcome end;
    CHECK_EQ(tunnel.client.read_to_end(&end).size(), sent);
    CHECK(end == Outcome::kEnd);
    Done done = engine.await(relaying);
    CHECK_STATUS(done, PTL_OK);
    CHECK_EQ(done->bytes_in, sent);
  }
}

TEST(idle_tunnels_hold_nothing) {
  EngineDriver engine(2);
  uint16_t port = engine.listen();
  std::vector<Tunnel> tunnels;
  for (int i = 0; i < 20; i++) {
    TunnelSpec spec;
    spec.tls = i % 2 == 0;
    tunnels.push_back(open_tunnel(&engine, port, spec));
    engine.submit(relay_op(tunnels.back().stream, tunnels.back().other));
  }
  for (Tunnel &tunnel : tunnels) {  // a burst through each
    Flow burst{&tunnel.client, &tunnel.origin, kMiB};
    while (burst.got < burst.total) {
      bool moved = burst.send();
      moved = burst.receive() || moved;
      if (!moved) burst.to->wait(POLLIN);
    }
  }
  engine.await_stats([](const ptl_stats &stats) { return stats.buffered_bytes == 0; });
  CHECK_EQ(engine.stats().relays, 20u);
}

namespace {

// A stream of bytes that never ends until it is told to, from a thread of its own.
class Bulk {
 public:
  explicit Bulk(Tunnel tunnel) : tunnel_(std::move(tunnel)), thread_([this] { run(); }) {}
  ~Bulk() {
    over_ = true;
    thread_.join();
  }

 private:
  void run() {
    Flow flow{&tunnel_.client, &tunnel_.origin, SIZE_MAX};
    try {
      while (!over_) {
        flow.send();
        flow.receive();
      }
    } catch (const GaveUp &) {  // noted already, and not this thread's to answer for
    }
  }

  Tunnel tunnel_;
  std::atomic<bool> over_{false};
  std::thread thread_;
};

}  // namespace

TEST(bulk_does_not_starve_a_conversation) {
  EngineDriver engine;  // one loop for both
  uint16_t port = engine.listen();
  Tunnel talk = open_tunnel(&engine, port);
  Tunnel heavy = open_tunnel(&engine, port);
  engine.submit(relay_op(talk.stream, talk.other));
  engine.submit(relay_op(heavy.stream, heavy.other));
  Bulk bulk(std::move(heavy));
  engine.await_stats([](const ptl_stats &stats) { return stats.relayed_bytes > kMiB; });
  uint64_t fewest = UINT64_MAX;
  for (int round = 0; round < 200; round++) {
    uint64_t before = engine.stats().relayed_bytes;
    talk.client.write("ping");
    CHECK_EQ(talk.origin.read(4), std::string("ping"));
    talk.origin.write("pong");
    CHECK_EQ(talk.client.read(4), std::string("pong"));
    fewest = std::min(fewest, engine.stats().relayed_bytes - before);
  }
  // A round is two turns of the loop, and a turn moves a bounded number of quanta (512 KiB). The best of many
  // rounds is one in which this thread did not have to wait for the machine. That the rounds end at all is the
  // stronger half of this test: a kernel's buffers bound most turns before the quantum does.
  CHECK(fewest <= 8 * kMiB);
}

TEST(turns_are_given_up_to_operations_too) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  Tunnel heavy = open_tunnel(&engine, port);
  engine.submit(relay_op(heavy.stream, heavy.other));
  Bulk bulk(std::move(heavy));
  engine.await_stats([](const ptl_stats &stats) { return stats.relayed_bytes > kMiB; });
  for (int round = 0; round < 100; round++) engine.turn();
  Client client = accept_client(&engine, port);
  CHECK_STATUS(engine.run(within(10, read_op(client.stream, 1))), PTL_E_TIMEOUT);  // and to deadlines
}
