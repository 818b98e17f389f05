// How a relay ends when nobody said goodbye: resets, silence, the clock, and its caller.
#include <openssl/ssl.h>
#include <poll.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "base/clock.h"
#include "check.h"
#include "exchange.h"
#include "tunnel.h"

using namespace test;

namespace {

std::vector<TunnelSpec> both_kinds() {
  TunnelSpec plain, tls;
  tls.tls = true;
  return {plain, tls};
}

// Waits until the relay of |engine| is under way.
void await_relay(EngineDriver *engine) {
  engine->await_stats([](const ptl_stats &stats) { return stats.relays == 1; });
}

}  // namespace

TEST(a_reset_on_either_side) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (const TunnelSpec &spec : both_kinds()) {
    for (bool client_resets : {true, false}) {
      Tunnel tunnel = open_tunnel(&engine, port, spec);
      uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
      Peer *rude = client_resets ? &tunnel.client : &tunnel.origin;
      Peer *other = client_resets ? &tunnel.origin : &tunnel.client;
      rude->write("before");
      CHECK_EQ(other->read(6), std::string("before"));
      rude->reset();
      Done done = engine.await(relaying);
      CHECK_STATUS(done, PTL_E_RESET);
      CHECK_EQ(done->side, client_resets ? PTL_SIDE_STREAM : PTL_SIDE_OTHER);
      CHECK_EQ(client_resets ? done->bytes_out : done->bytes_in, 6u);
      // A FIN without goodbye: who is left is not told that this was the end of the data.
      CHECK(other->await_end() == (spec.tls ? Outcome::kTruncated : Outcome::kEnd));
      other->close();
      engine.await_no_streams();
    }
  }
}

TEST(a_reset_by_who_no_longer_reads) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (const TunnelSpec &spec : both_kinds()) {
    TunnelSpec small = spec;
    small.receive_bytes = 4096;
    Tunnel tunnel = open_tunnel(&engine, port, small);
    uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
    std::string much = noise(1 << 20, 6);
    bool broken = false;
    while (engine.stats().buffered_bytes == 0) {  // until the client's side is full
      REQUIRE(!broken);
      tunnel.origin.write_some(much.data(), much.size(), &broken);
      engine.turn();
    }
    tunnel.client.reset();
    Done done = engine.await(relaying);
    CHECK_STATUS(done, PTL_E_RESET);
    CHECK_EQ(done->side, PTL_SIDE_STREAM);
    tunnel.origin.reset();
    engine.await_no_streams();
    CHECK_EQ(engine.stats().buffered_bytes, 0u);
  }
}

TEST(a_reset_after_the_goodbye_ends_it) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  Tunnel tunnel = open_tunnel(&engine, port);
  uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
  tunnel.client.write("question");
  tunnel.client.shutdown_write();
  Outcome end;
  CHECK_EQ(tunnel.origin.read_to_end(&end), std::string("question"));
  tunnel.client.reset();
  // Nobody reads from the client any more; the first bytes for it find out.
  while (!engine.has(relaying)) {
    bool broken;
    tunnel.origin.write_some("answer", 6, &broken);
    engine.turn();
  }
  // Who had said that nothing more would come has left: that is how many tunnels end, and no failure.
  CHECK_STATUS(engine.await(relaying), PTL_OK);
  tunnel.origin.wait(POLLIN);  // and the origin is not left waiting
}

TEST(an_answer_before_the_end_of_the_question) {
  // The origin has heard enough: it answers, and resets what it did not read. The answer still arrives whole.
  EngineDriver engine;
  uint16_t port = engine.listen();
  std::string answer = "HTTP/1.1 413 too much\r\n\r\n" + noise(20000, 2);  // fits the engine's socket
  std::string flood = noise(4 << 20, 3);
  for (int round = 0; round < 20; round++) {
    TunnelSpec small;
    small.receive_bytes = 32768;
    Tunnel tunnel = open_tunnel(&engine, port, small);
    uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
    bool broken;
    size_t sent = tunnel.client.write_some(flood.data(), flood.size(), &broken);
    engine.await_stats([](const ptl_stats &stats) { return stats.buffered_bytes != 0; });
    tunnel.origin.write(answer);
    tunnel.origin.close();  // with bytes unread, this is a reset
    while (!broken && sent < flood.size() && !engine.has(relaying)) {
      size_t n = tunnel.client.write_some(flood.data() + sent, flood.size() - sent, &broken);
      if (n == 0) engine.turn();
      sent += n;
    }
    Outcome end;
    CHECK(tunnel.client.read_to_end(&end) == answer);
    CHECK(end == Outcome::kEnd);
    CHECK_STATUS(engine.await(relaying), PTL_E_RESET);
  }
}

TEST(a_reset_found_while_sending_what_waited) {
  // The client has said all it wants to say for now, and some of it still waits for the origin, which answers and resets.
  EngineDriver engine;
  uint16_t port = engine.listen();
  const std::string answer = "HTTP/1.1 413 too much\r\n\r\n", piece = noise(16384, 4);
  for (int round = 0; round < 5; round++) {
    TunnelSpec small;
    small.receive_bytes = 32768;
    Tunnel tunnel = open_tunnel(&engine, port, small);
    uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
    const uint64_t before = engine.stats().relayed_bytes;
    for (size_t sent = piece.size(); engine.stats().buffered_bytes == 0; sent += piece.size()) {
      tunnel.client.write(piece);
      engine.await_stats([&](const ptl_stats &stats) { return stats.relayed_bytes - before == sent; });
    }
    tunnel.origin.write(answer);
    tunnel.origin.close();
    Outcome end;
    CHECK(tunnel.client.read_to_end(&end) == answer);
    CHECK_STATUS(engine.await(relaying), PTL_E_RESET);
  }
}

TEST(silence_ends_it) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (const TunnelSpec &spec : both_kinds()) {
    Tunnel tunnel = open_tunnel(&engine, port, spec);
    ptl_op op = relay_op(tunnel.stream, tunnel.other);
    op.idle_ms = 40;
    uint64_t relaying = engine.submit(op);
    tunnel.client.write("x");
    CHECK_EQ(tunnel.origin.read(1), std::string("x"));
    Done done = engine.await(relaying);
    CHECK_STATUS(done, PTL_E_IDLE);
    CHECK(done->ended_ns - done->started_ns >= 40000000);
    // It was we who ended it, and we know that nothing was cut: both are told in order.
    CHECK(tunnel.client.await_end() == Outcome::kEnd);
    CHECK(tunnel.origin.await_end() == Outcome::kEnd);
  }
}

TEST(bytes_put_silence_off) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  Client clock = accept_client(&engine, port);  // says nothing: reading from it takes as long as one asks
  Tunnel tunnel = open_tunnel(&engine, port);
  ptl_op op = relay_op(tunnel.stream, tunnel.other);
  op.idle_ms = 60;
  uint64_t relaying = engine.submit(op);
  uint64_t last_moved_ns = 0;  // no later than when the last byte moved
  for (uint64_t round = 0; round < 8 && !engine.has(relaying); round++) {
    uint64_t before = ptl::now_ns();
    bool broken;
    tunnel.client.write_some("x", 1, &broken);
    engine.run(within(20, read_op(clock.stream, 1)));
    if (engine.stats().relayed_bytes > round) last_moved_ns = before;
  }
  Done done = engine.await(relaying);
  CHECK_STATUS(done, PTL_E_IDLE);
  CHECK(done->ended_ns >= last_moved_ns + 60000000);
}

TEST(silence_of_the_half_that_is_left) {
  EngineDriver engine;
  Tunnel tunnel = open_tunnel(&engine, engine.listen());
  ptl_op op = relay_op(tunnel.stream, tunnel.other);
  op.idle_ms = 3600000;
  op.half_idle_ms = 30;
  uint64_t relaying = engine.submit(op);
  tunnel.client.shutdown_write();
  CHECK_STATUS(engine.await(relaying), PTL_E_IDLE);
  CHECK(tunnel.client.await_end() == Outcome::kEnd);
}

TEST(a_lifetime) {
  EngineDriver engine;
  Tunnel tunnel = open_tunnel(&engine, engine.listen());
  Done done = engine.run(within(30, relay_op(tunnel.stream, tunnel.other)));
  CHECK_STATUS(done, PTL_E_LIFETIME);
  CHECK(done->ended_ns - done->started_ns >= 29000000);
  CHECK(tunnel.client.await_end() == Outcome::kEnd);
  CHECK(tunnel.origin.await_end() == Outcome::kEnd);
}

TEST(cancelled) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (const TunnelSpec &spec : both_kinds()) {
    Tunnel tunnel = open_tunnel(&engine, port, spec);
    uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
    tunnel.client.write("kept");
    CHECK_EQ(tunnel.origin.read(4), std::string("kept"));
    engine.cancel(tunnel.stream, relaying);
    Done done = engine.await(relaying);
    CHECK_STATUS(done, PTL_E_CANCELLED);
    CHECK_EQ(done->bytes_out, 4u);
    CHECK(tunnel.client.await_end() == Outcome::kEnd);
    CHECK(tunnel.origin.await_end() == Outcome::kEnd);
    CHECK_STATUS(engine.run(close_op(tunnel.stream)), PTL_E_STALE);  // it ended with both closed
    CHECK_STATUS(engine.run(close_op(tunnel.other)), PTL_E_STALE);
  }
}

TEST(closed_by_either_handle) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (bool by_client : {true, false}) {
    Tunnel tunnel = open_tunnel(&engine, port);
    uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
    await_relay(&engine);
    CHECK_STATUS(engine.run(close_op(by_client ? tunnel.stream : tunnel.other)), PTL_OK);
    CHECK_STATUS(engine.await(relaying), PTL_E_CANCELLED);
    CHECK(tunnel.client.await_end() == Outcome::kEnd);
    CHECK(tunnel.origin.await_end() == Outcome::kEnd);
  }
}

TEST(closed_with_reset) {
  EngineDriver engine;
  Tunnel tunnel = open_tunnel(&engine, engine.listen());
  uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
  await_relay(&engine);
  CHECK_STATUS(engine.run(close_op(tunnel.stream, PTL_FLAG_RESET)), PTL_OK);
  CHECK_STATUS(engine.await(relaying), PTL_E_CANCELLED);
  CHECK(tunnel.client.await_end() == Outcome::kReset);  // as it was asked
  CHECK(tunnel.origin.await_end() == Outcome::kEnd);
}

TEST(closed_with_an_alert) {
  EngineDriver engine;
  TunnelSpec spec;
  spec.tls = true;
  Tunnel tunnel = open_tunnel(&engine, engine.listen(), spec);
  uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
  await_relay(&engine);
  CHECK_STATUS(engine.run(close_op(tunnel.stream, 0, SSL_AD_INTERNAL_ERROR)), PTL_OK);
  CHECK_STATUS(engine.await(relaying), PTL_E_CANCELLED);
  CHECK(tunnel.client.await_end() == Outcome::kFailed);
  CHECK_EQ(tunnel.client.error(), SSL_R_TLSV1_ALERT_INTERNAL_ERROR);
  CHECK(tunnel.origin.await_end() == Outcome::kEnd);
}

TEST(a_record_that_does_not_decrypt) {
  EngineDriver engine;
  TunnelSpec spec;
  spec.tls = true;
  Tunnel tunnel = open_tunnel(&engine, engine.listen(), spec);
  uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
  Peer below(ptl::Fd(dup(tunnel.origin.fd())));
  below.write(std::string("\x17\x03\x03\x00\x20", 5) + noise(32, 1));
  Done done = engine.await(relaying);
  CHECK_STATUS(done, PTL_E_TLS);
  CHECK_EQ(done->side, PTL_SIDE_OTHER);
  CHECK(tunnel.client.await_end() == Outcome::kTruncated);
  CHECK(tunnel.origin.await_end() == Outcome::kFailed);  // it gets the alert
  CHECK_EQ(tunnel.origin.error(), SSL_R_SSLV3_ALERT_BAD_RECORD_MAC);
}

// It is looked at before anything is decrypted: whoever sits in between can put it there. The end must not look like one
// that upstream meant.
TEST(a_record_of_another_version) {
  EngineDriver engine;
  TunnelSpec spec;
  spec.tls = true;
  Tunnel tunnel = open_tunnel(&engine, engine.listen(), spec);
  uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
  Peer below(ptl::Fd(dup(tunnel.origin.fd())));
  below.write(std::string("\x17\x03\x01\x00\x20", 5) + noise(32, 1));
  Done done = engine.await(relaying);
  CHECK_STATUS(done, PTL_E_TLS);
  CHECK_EQ(done->side, PTL_SIDE_OTHER);
  CHECK(tunnel.client.await_end() == Outcome::kTruncated);
}

TEST(a_stop_with_live_relays) {
  EngineDriver engine(2);
  uint16_t port = engine.listen();
  std::vector<Tunnel> tunnels;
  std::vector<uint64_t> tags;
  for (int i = 0; i < 8; i++) {
    tunnels.push_back(open_tunnel(&engine, port, both_kinds()[i % 2]));
    tags.push_back(engine.submit(relay_op(tunnels.back().stream, tunnels.back().other)));
    tunnels.back().client.write("on its way");
  }
  engine.stop();
  for (uint64_t tag : tags) CHECK_STATUS(engine.await(tag), PTL_E_SHUTDOWN);
}
