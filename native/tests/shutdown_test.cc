// The engine's end, wherever it comes: what `make valgrind` runs, since it goes through every way of giving memory
// back. Under the sanitizers it is a test like any other.
#include <string>
#include <vector>

#include "check.h"
#include "exchange.h"
#include "script.h"
#include "tunnel.h"

using namespace test;

namespace {

constexpr size_t kBytes = 300000;

// A tunnel with bytes on their way both ways, and nobody who reads them.
struct Busy {
  explicit Busy(EngineDriver *engine, bool tls) {
    TunnelSpec spec;
    spec.tls = tls;
    spec.receive_bytes = 4096;
    tunnel = open_tunnel(engine, engine->listen(), spec);
    relay = engine->submit(relay_op(tunnel.stream, tunnel.other));
    std::string bytes = noise(kBytes, 7);
    bool broken;
    for (Peer *peer : {&tunnel.client, &tunnel.origin}) peer->write_some(bytes.data(), bytes.size(), &broken);
    engine->turn(tunnel.stream);
  }
  Tunnel tunnel;
  uint64_t relay;
};

}  // namespace

TEST(a_tunnel_that_ended_before) {
  EngineDriver engine;
  Tunnel tunnel = open_tunnel(&engine, engine.listen(), {true});
  uint64_t relay = engine.submit(relay_op(tunnel.stream, tunnel.other));
  End client{&tunnel.client, noise(kBytes, 1)}, origin{&tunnel.origin, noise(kBytes, 2)};
  exchange(&client, &origin, 3);
  CHECK(client.received == origin.to_send && origin.received == client.to_send);
  CHECK_STATUS(engine.await(relay), PTL_OK);
  ptl_unlisten(engine.get(), engine.last_listener());
}

TEST(stopped_amid_a_tunnel) {
  for (bool tls : {false, true}) {
    EngineDriver engine;
    Busy busy(&engine, tls);
    engine.stop();
    CHECK_STATUS(engine.await(busy.relay), PTL_E_SHUTDOWN);
  }
}

TEST(freed_amid_a_tunnel_with_completions_that_nobody_took) {
  for (bool tls : {false, true}) {
    EngineDriver engine;
    Busy busy(&engine, tls);
    engine.submit_all({read_op(0, 1), connect_op(busy.tunnel.stream, {loopback(refusing_port())})});
    engine.free_undrained();
  }
}

TEST(stopped_with_operations_that_wait_for_their_turn) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  std::vector<uint64_t> tags = engine.submit_all(
      {linked(read_op(client.stream, 1)), linked(write_op(client.stream, "never")), close_op(client.stream)});
  engine.turn(client.stream);
  engine.stop();
  for (uint64_t tag : tags) CHECK_STATUS(engine.await(tag), PTL_E_SHUTDOWN);
}

// Contexts are shared with the handshakes that use them: who made them may give them up at once.
TEST(contexts_given_up_amid_a_handshake) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Origin listening;
  Done connected = engine.run(connect_op(client.stream, {loopback(listening.port())}));
  Peer origin = listening.accept();
  ClientContext upstream = new_client_context(default_hello(), nullptr, 0);
  uint64_t tag = engine.submit(connect_tls_op(connected->stream, upstream.get(), "origin.test"));
  upstream.reset();
  origin.be_server(lab().origin_ctx.get());
  CHECK(origin.handshake());
  CHECK_STATUS(engine.await(tag), PTL_OK);
  ServerContext server = new_server_context();
  Credential credential = new_credential(lab().leaf);
  engine.submit(accept_tls_op(client.stream, server.get(), credential.get()));
  server.reset();
  credential.reset();
  engine.turn(client.stream);
  engine.stop();
}

// A tunnel from its first byte, ended after each few of its steps.
TEST(stopped_and_freed_after_any_step) {
  for (Fate fate : {Fate::kStop, Fate::kFree}) {
    bool over = false;
    for (int steps = 1; !over; steps += 4) {
      EngineDriver engine;
      Script script(&engine, engine.listen(), static_cast<uint64_t>(steps));
      for (int i = 0; i < steps && !over; i++) over = !script.step();
      script.meet(fate);
    }
  }
}
