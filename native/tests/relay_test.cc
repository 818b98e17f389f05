// What goes in comes out: bytes, counts, and the way a direction ends.
#include <poll.h>
#include <unistd.h>

#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "exchange.h"
#include "tunnel.h"

using namespace test;

namespace {

// Plain; TLS 1.2 on both sides; TLS 1.3 on both sides.
std::vector<TunnelSpec> all_kinds() {
  TunnelSpec plain, tls12, tls13;
  tls12.tls = tls13.tls = true;
  tls12.version = TLS1_2_VERSION;
  return {plain, tls12, tls13};
}

// Reads to the end of |peer| what must be |bytes| and must end as |end|.
void check_received(Peer *peer, const std::string &bytes, Outcome end) {
  Outcome outcome;
  CHECK_EQ(peer->read_to_end(&outcome), bytes);
  CHECK(outcome == end);
}

// The end of |peer|'s direction: TLS says goodbye first, plain cannot.
void finish(Peer *peer) {
  if (peer->ssl() != nullptr) peer->say_goodbye();
  peer->shutdown_write();
}

}  // namespace

TEST(random_sizes_both_ways_at_once) {
  std::mt19937_64 random(1);
  EngineDriver engine(2);
  uint16_t port = engine.listen();
  uint64_t total = 0;
  for (const TunnelSpec &spec : all_kinds()) {
    for (uint64_t round = 1; round <= 6; round++) {
      Tunnel tunnel = open_tunnel(&engine, port, spec);
      size_t most = round == 1 ? 2 : round == 6 ? 3000000 : 300000;
      std::string up = noise(random() % most, round), down = noise(random() % most, round + 100);
      uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
      End client{&tunnel.client, up}, origin{&tunnel.origin, down};
      exchange(&client, &origin, round);
      Done done = engine.await(relaying);
      CHECK_STATUS(done, PTL_OK);
      CHECK(origin.received == up && client.received == down);
      CHECK(origin.outcome == Outcome::kEnd && client.outcome == Outcome::kEnd);
      CHECK_EQ(done->bytes_out, up.size());
      CHECK_EQ(done->bytes_in, down.size());
      CHECK_EQ(done->truncated, 0);
      CHECK_EQ(done->first_byte_ns != 0, !down.empty());
      CHECK(down.empty() || done->first_byte_ns >= done->started_ns);
      CHECK(done->first_byte_ns <= done->ended_ns);
      total += up.size() + down.size();
    }
  }
  CHECK_EQ(engine.stats().relayed_bytes, total);
}

TEST(mixed_kinds) {
  // A TLS client and a plain origin, which is what a tunnel inside a tunnel looks like.
  EngineDriver engine;
  uint16_t port = engine.listen();
  Client client = accept_client(&engine, port);
  Origin listening;
  Done connected = engine.run(connect_op(client.stream, {loopback(listening.port())}));
  Peer origin = listening.accept();
  uint64_t accepting =
      engine.submit(accept_tls_op(client.stream, lab().server.get(), lab().credential.get()));
  client.peer.be_client(lab().client_ctx.get());
  REQUIRE(client.peer.handshake());
  REQUIRE_STATUS(engine.await(accepting), PTL_OK);
  uint64_t relaying = engine.submit(relay_op(client.stream, connected->stream));
  End near{&client.peer, noise(500000, 1)}, far{&origin, noise(400000, 2)};
  exchange(&near, &far, 3);
  CHECK(far.received == near.to_send && near.received == far.to_send);
  CHECK(near.outcome == Outcome::kEnd);  // a plain FIN is all the goodbye there is: it becomes close_notify
  Done done = engine.await(relaying);
  CHECK_STATUS(done, PTL_OK);
  CHECK_EQ(done->bytes_out, near.to_send.size());
  CHECK_EQ(done->bytes_in, far.to_send.size());
}

TEST(bytes_that_came_before_the_relay) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  TunnelSpec spec;
  spec.after_head = "early from the client ";
  Tunnel plain = open_tunnel(&engine, port, spec);
  plain.client.write("and more");
  plain.origin.write("early from the origin");
  uint64_t relaying = engine.submit(relay_op(plain.stream, plain.other));
  CHECK_EQ(plain.origin.read(30), std::string("early from the client and more"));
  CHECK_EQ(plain.client.read(21), std::string("early from the origin"));
  finish(&plain.client);
  finish(&plain.origin);
  Done done = engine.await(relaying);
  CHECK_EQ(done->bytes_out, 30u);
  CHECK_EQ(done->bytes_in, 21u);
  // TLS: decrypted by a READ that wanted less, and records not decrypted yet.
  spec = TunnelSpec();
  spec.tls = true;
  Tunnel tls = open_tunnel(&engine, port, spec);
  std::string bytes = noise(50000, 8);
  tls.client.write(bytes);
  CHECK_EQ(engine.run(read_op(tls.stream, 1)).data, bytes.substr(0, 1));
  relaying = engine.submit(relay_op(tls.stream, tls.other));
  CHECK(tls.origin.read(bytes.size() - 1) == bytes.substr(1));
  finish(&tls.client);
  finish(&tls.origin);
  CHECK_EQ(engine.await(relaying)->bytes_out, bytes.size() - 1);
}

TEST(half_close_from_either_side) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (const TunnelSpec &spec : all_kinds()) {
    for (bool client_first : {true, false}) {
      Tunnel tunnel = open_tunnel(&engine, port, spec);
      uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
      Peer *first = client_first ? &tunnel.client : &tunnel.origin;
      Peer *second = client_first ? &tunnel.origin : &tunnel.client;
      first->write("the question");
      finish(first);
      check_received(second, "the question", Outcome::kEnd);
      CHECK(!engine.has(relaying));
      // The other direction is as open as before, for as long as it likes.
      for (int i = 0; i < 5; i++) {
        second->write("part of the answer");
        CHECK_EQ(first->read(18), std::string("part of the answer"));
      }
      finish(second);
      check_received(first, "", Outcome::kEnd);
      Done done = engine.await(relaying);
      CHECK_STATUS(done, PTL_OK);
      CHECK_EQ(client_first ? done->bytes_out : done->bytes_in, 12u);
      CHECK_EQ(client_first ? done->bytes_in : done->bytes_out, 90u);
      CHECK_EQ(done->truncated, 0);
    }
  }
  engine.await_no_streams();
}

TEST(a_goodbye_without_fin_is_handed_on) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (const TunnelSpec &spec : all_kinds()) {
    if (!spec.tls) continue;
    Tunnel tunnel = open_tunnel(&engine, port, spec);
    uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
    tunnel.origin.write("all of it");
    tunnel.origin.say_goodbye();
    check_received(&tunnel.client, "all of it", Outcome::kEnd);
    tunnel.client.write("thanks");
    CHECK_EQ(tunnel.origin.read(6), std::string("thanks"));
    tunnel.client.say_goodbye();
    check_received(&tunnel.origin, "", Outcome::kEnd);
    Done done = engine.await(relaying);
    CHECK_STATUS(done, PTL_OK);
    CHECK_EQ(done->truncated, 0);
  }
}

TEST(a_bare_fin_is_handed_on_as_a_truncation) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (const TunnelSpec &spec : all_kinds()) {
    if (!spec.tls) continue;
    for (bool client_first : {true, false}) {
      Tunnel tunnel = open_tunnel(&engine, port, spec);
      uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
      Peer *first = client_first ? &tunnel.client : &tunnel.origin;
      Peer *second = client_first ? &tunnel.origin : &tunnel.client;
      first->write("half of i");
      first->shutdown_write();
      check_received(second, "half of i", Outcome::kTruncated);
      finish(second);
      check_received(first, "", Outcome::kEnd);
      Done done = engine.await(relaying);
      CHECK_STATUS(done, PTL_OK);
      CHECK_EQ(done->truncated, client_first ? 0 : 1);  // told of what upstream cut; many clients just leave
    }
  }
}

TEST(a_bare_fin_after_the_others_goodbye_is_no_truncation) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  TunnelSpec spec;
  spec.tls = true;
  Tunnel tunnel = open_tunnel(&engine, port, spec);
  uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
  finish(&tunnel.client);
  CHECK(tunnel.origin.await_end() == Outcome::kEnd);
  tunnel.origin.shutdown_write();
  CHECK(tunnel.client.await_end() == Outcome::kTruncated);  // it is handed on as what it was
  Done done = engine.await(relaying);
  CHECK_STATUS(done, PTL_OK);
  CHECK_EQ(done->truncated, 0);  // and reported as nothing
}

TEST(a_record_cut_in_the_middle) {
  EngineDriver engine;
  TunnelSpec spec;
  spec.tls = true;
  Tunnel tunnel = open_tunnel(&engine, engine.listen(), spec);
  uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
  tunnel.origin.write("whole");
  CHECK_EQ(tunnel.client.read(5), std::string("whole"));
  Peer below(ptl::Fd(dup(tunnel.origin.fd())));
  below.write(std::string("\x17\x03\x03\x01\x00 and no more", 17));
  tunnel.origin.shutdown_write();
  CHECK(tunnel.client.await_end() == Outcome::kTruncated);
  finish(&tunnel.client);
  Done done = engine.await(relaying);
  CHECK_STATUS(done, PTL_OK);
  CHECK_EQ(done->truncated, 1);
  CHECK_EQ(done->bytes_in, 5u);
}

TEST(records_of_every_size) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (const TunnelSpec &spec : all_kinds()) {
    Tunnel tunnel = open_tunnel(&engine, port, spec);
    uint64_t relaying = engine.submit(relay_op(tunnel.stream, tunnel.other));
    for (size_t size : {1, 2, 1023, 16383, 16384, 16385, 32768, 131071, 131072, 131073, 600000}) {
      std::string bytes = noise(size, size);
      size_t sent = 0;
      std::string got;
      while (got.size() < size) {
        bool broken = false;
        if (sent < size) sent += tunnel.client.write_some(bytes.data() + sent, size - sent, &broken);
        REQUIRE(!broken);
        if (tunnel.origin.read_some(&got, SIZE_MAX) == Outcome::kWait && sent == size) {
          tunnel.origin.wait(POLLIN);
        }
      }
      CHECK(got == bytes);
    }
    // Many small writes: each is a record of its own.
    std::string many = noise(3000, 1);
    for (char c : many) tunnel.client.write(std::string(1, c));
    CHECK(tunnel.origin.read(many.size()) == many);
    engine.cancel(tunnel.stream, relaying);
    CHECK_STATUS(engine.await(relaying), PTL_E_CANCELLED);
  }
}
