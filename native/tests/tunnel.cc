#include "tunnel.h"

#include "check.h"

namespace test {

namespace {

const char kHead[] = "CONNECT origin.test:443 HTTP/1.1\r\n\r\n";

void shake_hands(EngineDriver *engine, Tunnel *tunnel, uint16_t version) {
  static const bssl::UniquePtr<SSL_CTX> origins[2] = {peer_server(lab().origin, TLS1_2_VERSION),
                                                      peer_server(lab().origin, TLS1_3_VERSION)};
  static const bssl::UniquePtr<SSL_CTX> clients[2] = {peer_client(TLS1_2_VERSION),
                                                      peer_client(TLS1_3_VERSION)};
  const int which = version == TLS1_3_VERSION ? 1 : 0;
  uint64_t upstream = engine->submit(connect_tls_op(tunnel->other, lab().client.get(), "origin.test"));
  tunnel->origin.be_server(origins[which].get());
  REQUIRE(tunnel->origin.handshake());
  Done done = engine->await(upstream);
  REQUIRE_STATUS(done, PTL_OK);
  CHECK_EQ(done->version, version);
  uint64_t downstream =
      engine->submit(accept_tls_op(tunnel->stream, lab().server.get(), lab().credential.get()));
  tunnel->client.be_client(clients[which].get(), "origin.test");
  REQUIRE(tunnel->client.handshake());
  done = engine->await(downstream);
  REQUIRE_STATUS(done, PTL_OK);
  CHECK_EQ(done->version, version);
}

}  // namespace

Client accept_client(EngineDriver *engine, uint16_t port, const std::string &after_head,
                     int receive_bytes) {
  Client client{Peer::connect_to(port, receive_bytes), 0};
  client.peer.write(kHead + after_head);
  Done accepted = engine->next_accept();
  REQUIRE_STATUS(accepted, PTL_OK);
  CHECK_EQ(accepted.data, std::string(kHead));
  CHECK_EQ(std::string(accepted->peer), "127.0.0.1:" + std::to_string(client.peer.port()));
  client.stream = accepted->stream;
  return client;
}

Tunnel open_tunnel(EngineDriver *engine, uint16_t port, const TunnelSpec &spec) {
  Client client = accept_client(engine, port, spec.after_head, spec.receive_bytes);
  Origin listening(64, spec.receive_bytes);
  Done connected = engine->run(connect_op(client.stream, {loopback(listening.port())}));
  REQUIRE_STATUS(connected, PTL_OK);
  Tunnel tunnel{std::move(client.peer), listening.accept(), client.stream, connected->stream};
  if (spec.tls) shake_hands(engine, &tunnel, spec.version);
  return tunnel;
}

}  // namespace test
