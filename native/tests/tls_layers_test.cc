// TLS in TLS: a layer over a layer, as a target behind an HTTPS proxy needs it.
#include <string>

#include "check.h"
#include "exchange.h"
#include "tunnel.h"

using namespace test;

namespace {

// Both ends are the engine's own: a stream connected to its own listener.
struct Loopback {
  explicit Loopback(EngineDriver *driver) : engine(driver) {
    uint16_t port = driver->listen();
    anchor = Peer::connect_to(port);
    anchor.write("A\r\n\r\n");
    Done first = driver->next_accept();
    Done connected = driver->run(connect_op(first->stream, {loopback(port)}));
    REQUIRE_STATUS(connected, PTL_OK);
    client = connected->stream;
    REQUIRE_STATUS(driver->run(write_op(client, "B\r\n\r\n")), PTL_OK);
    Done second = driver->next_accept();
    REQUIRE_STATUS(second, PTL_OK);
    server = second->stream;
  }

  // One more layer on both ends.
  void add_layer(const char *name) {
    uint64_t serving = engine->submit(accept_tls_op(server, lab().server.get(), lab().credential.get()));
    CHECK_STATUS(engine->run(connect_tls_op(client, lab().client.get(), name)), PTL_OK);
    CHECK_STATUS(engine->await(serving), PTL_OK);
  }

  // Sends |bytes| from one stream to the other and returns what arrived.
  std::string sent(ptl_stream from, ptl_stream to, const std::string &bytes) {
    uint64_t writing = engine->submit(write_op(from, bytes));
    std::string got;
    while (got.size() < bytes.size()) {
      Done done = engine->run(read_op(to, 100000));
      REQUIRE_STATUS(done, PTL_OK);
      got += done.data;
    }
    CHECK_STATUS(engine->await(writing), PTL_OK);
    return got;
  }

  EngineDriver *engine;
  Peer anchor;
  ptl_stream client, server;
};

}  // namespace

TEST(layer_over_layer) {
  for (uint32_t loops : {1u, 2u}) {
    EngineDriver engine(loops);
    Loopback both(&engine);
    for (int layers = 1; layers <= 3; layers++) {
      both.add_layer("origin.test");
      std::string bytes = noise(300000, static_cast<uint64_t>(layers));
      CHECK(both.sent(both.client, both.server, bytes) == bytes);
      CHECK(both.sent(both.server, both.client, bytes) == bytes);
    }
    CHECK_STATUS(engine.run(close_op(both.client)), PTL_OK);
    CHECK_STATUS(engine.run(read_op(both.server, 1)), PTL_E_CLOSED);
  }
}

TEST(a_refused_certificate_inside) {
  EngineDriver engine;
  Loopback both(&engine);
  both.add_layer("origin.test");
  uint64_t serving =
      engine.submit(accept_tls_op(both.server, lab().server.get(), lab().credential.get()));
  CHECK_STATUS(engine.run(connect_tls_op(both.client, lab().client.get(), "other.test")), PTL_E_VERIFY);
  Done refused = engine.await(serving);
  CHECK_STATUS(refused, PTL_E_ALERT);
  CHECK_EQ(refused->flight_sent, 1);
}

TEST(arguments_that_fit_none_leave_the_layer_below) {
  EngineDriver engine;
  Loopback both(&engine);
  both.add_layer("origin.test");
  CHECK_STATUS(engine.run(connect_tls_op(both.client, lab().client.get(), "")), PTL_E_INVALID);
  Done refused = engine.run(connect_tls_op(both.client, lab().client.get(), "a.test", "\x09h2"));
  CHECK_STATUS(refused, PTL_E_INVALID);
  // Still inside TLS: nothing goes out in the clear.
  CHECK(both.sent(both.client, both.server, "secret") == "secret");
}

TEST(the_end_below_ends_the_handshake_above) {
  EngineDriver engine;
  Loopback both(&engine);
  both.add_layer("origin.test");
  uint64_t shaking = engine.submit(connect_tls_op(both.client, lab().client.get(), "origin.test"));
  engine.run(read_op(both.server, 10));
  CHECK_STATUS(engine.run(close_op(both.server)), PTL_OK);  // with close_notify of the layer below
  CHECK_STATUS(engine.await(shaking), PTL_E_CLOSED);
}

TEST(a_goodbye_below_without_fin) {
  EngineDriver engine;
  TunnelSpec spec;
  spec.tls = true;
  Tunnel tunnel = open_tunnel(&engine, engine.listen(), spec);
  uint64_t shaking = engine.submit(connect_tls_op(tunnel.other, lab().client.get(), "origin.test"));
  tunnel.origin.read(10);
  tunnel.origin.say_goodbye();  // the socket stays open
  CHECK_STATUS(engine.await(shaking), PTL_E_CLOSED);
}

TEST(through_a_relay_that_ends_the_outer_layer) {
  // client stream =TLS over TLS=> server stream -relay of the inner bytes-> a TLS origin.
  EngineDriver engine;
  Loopback both(&engine);
  both.add_layer("origin.test");
  Origin listening;
  Done connected = engine.run(connect_op(both.server, {loopback(listening.port())}));
  REQUIRE_STATUS(connected, PTL_OK);
  Peer origin = listening.accept();
  uint64_t relaying = engine.submit(relay_op(both.server, connected->stream));
  uint64_t shaking = engine.submit(connect_tls_op(both.client, lab().client.get(), "origin.test"));
  origin.be_server(lab().origin_ctx.get());
  REQUIRE(origin.handshake());
  REQUIRE_STATUS(engine.await(shaking), PTL_OK);
  std::string bytes = noise(200000, 4);
  uint64_t writing = engine.submit(write_op(both.client, bytes));
  CHECK(origin.read(bytes.size()) == bytes);
  CHECK_STATUS(engine.await(writing), PTL_OK);
  origin.write("answer");
  CHECK_EQ(engine.run(read_op(both.client, 100)).data, std::string("answer"));
  origin.say_goodbye();
  origin.shutdown_write();
  CHECK_STATUS(engine.run(read_op(both.client, 100)), PTL_E_CLOSED);
  CHECK_STATUS(engine.run(close_op(both.client)), PTL_OK);
  CHECK(origin.await_end() == Outcome::kEnd);
  Done relayed = engine.await(relaying);
  CHECK_STATUS(relayed, PTL_OK);
  CHECK(relayed->bytes_out > bytes.size() && relayed->bytes_in > 6);
  CHECK_EQ(relayed->truncated, 0);
}
