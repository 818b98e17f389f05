// Becoming a TLS server: of clients that like the certificate, and of those that do not.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <functional>
#include <string>

#include "check.h"
#include "exchange.h"
#include "tunnel.h"

using namespace test;

namespace {

// Accepts one client of |ctx| that shakes hands as it likes.
Done served(SSL_CTX *ctx, const std::string &protocol = "", int *out_client_error = nullptr) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  uint64_t tag = engine.submit(
      accept_tls_op(client.stream, lab().server.get(), lab().credential.get(), protocol));
  client.peer.be_client(ctx, "origin.test");
  client.peer.handshake();
  if (out_client_error != nullptr) *out_client_error = client.peer.error();
  return engine.await(tag);
}

ssl_verify_result_t refuse_certificate(SSL *, uint8_t *out_alert) {
  *out_alert = SSL_AD_UNKNOWN_CA;
  return ssl_verify_invalid;
}

// A raw client: sends |bytes|, then does what |then| does to it.
Done raw(const std::string &bytes, const std::function<void(Peer *)> &then = nullptr) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  uint64_t tag =
      engine.submit(accept_tls_op(client.stream, lab().server.get(), lab().credential.get()));
  client.peer.write(bytes);
  if (then) then(&client.peer);
  return engine.await(tag);
}

// The ClientHello of a client of |ctx|.
std::string hello_of(SSL_CTX *ctx) {
  bssl::UniquePtr<SSL> ssl(SSL_new(ctx));
  BIO *out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), out);
  SSL_set_connect_state(ssl.get());
  SSL_set_tlsext_host_name(ssl.get(), "origin.test");
  SSL_do_handshake(ssl.get());
  const uint8_t *bytes;
  size_t size;
  BIO_mem_contents(out, &bytes, &size);
  return std::string(reinterpret_cast<const char *>(bytes), size);
}

}  // namespace

TEST(good_clients) {
  for (uint16_t version : {uint16_t{TLS1_2_VERSION}, uint16_t{TLS1_3_VERSION}}) {
    bssl::UniquePtr<SSL_CTX> ctx = peer_client(version);
    Done done = served(ctx.get());
    REQUIRE_STATUS(done, PTL_OK);
    CHECK_EQ(done->version, version);
    CHECK(done->cipher != 0 && done->group != 0);
    CHECK_EQ(done.data, std::string());
  }
}

TEST(the_groups_of_the_manual) {
  for (uint16_t group : {uint16_t{SSL_GROUP_X25519_MLKEM768}, uint16_t{SSL_GROUP_X25519},
                         uint16_t{SSL_GROUP_SECP256R1}, uint16_t{SSL_GROUP_SECP384R1}}) {
    bssl::UniquePtr<SSL_CTX> ctx = peer_client();
    REQUIRE(SSL_CTX_set1_group_ids(ctx.get(), &group, 1));
    Done done = served(ctx.get());
    REQUIRE_STATUS(done, PTL_OK);
    CHECK_EQ(done->group, group);
  }
}

TEST(the_one_protocol) {
  bssl::UniquePtr<SSL_CTX> ctx = peer_client();
  offer_alpn(ctx.get(), "\x02h2\x08http/1.1");
  Done agreed = served(ctx.get(), "http/1.1");
  CHECK_STATUS(agreed, PTL_OK);
  CHECK_EQ(agreed.data, std::string("http/1.1"));
  int client_error = 0;
  Done refused = served(ctx.get(), "h3", &client_error);
  CHECK_STATUS(refused, PTL_E_ALPN);
  CHECK_EQ(refused->alert, SSL_AD_NO_APPLICATION_PROTOCOL);
  CHECK_EQ(client_error, SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
  Done none = served(ctx.get(), "");
  CHECK_STATUS(none, PTL_OK);
  CHECK_EQ(none.data, std::string());
}

TEST(a_client_that_refuses_the_certificate) {
  for (uint16_t version : {uint16_t{TLS1_2_VERSION}, uint16_t{TLS1_3_VERSION}}) {
    bssl::UniquePtr<SSL_CTX> ctx = peer_client(version);
    SSL_CTX_set_custom_verify(ctx.get(), SSL_VERIFY_PEER, refuse_certificate);
    Done done = served(ctx.get());
    CHECK_STATUS(done, PTL_E_ALERT);
    CHECK_EQ(done->alert, SSL_AD_UNKNOWN_CA);
    CHECK_EQ(done->flight_sent, 1);
  }
}

TEST(a_client_that_hangs_up_after_the_certificate) {
  for (uint16_t version : {uint16_t{TLS1_2_VERSION}, uint16_t{TLS1_3_VERSION}}) {
    bssl::UniquePtr<SSL_CTX> ctx = peer_client(version);
    Done done = raw(hello_of(ctx.get()), [](Peer *client) {
      client->read(200);  // the flight is here
      client->shutdown_write();
    });
    CHECK_STATUS(done, PTL_E_CLOSED);
    CHECK_EQ(done->flight_sent, 1);
    Done reset = raw(hello_of(ctx.get()), [](Peer *client) {
      client->read(200);
      client->reset();
    });
    CHECK_STATUS(reset, PTL_E_RESET);
    CHECK_EQ(reset->flight_sent, 1);
  }
}

TEST(a_client_that_falls_silent_after_the_certificate) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen(), hello_of(lab().client_ctx.get()));
  Done done = engine.run(
      within(30, accept_tls_op(client.stream, lab().server.get(), lab().credential.get())));
  CHECK_STATUS(done, PTL_E_TIMEOUT);
  CHECK_EQ(done->flight_sent, 1);
}

TEST(a_client_that_hangs_up_before) {
  Done done = raw("", [](Peer *client) { client->shutdown_write(); });
  CHECK_STATUS(done, PTL_E_CLOSED);
  CHECK_EQ(done->flight_sent, 0);
  done = raw(hello_of(lab().client_ctx.get()).substr(0, 100), [](Peer *client) { client->shutdown_write(); });
  CHECK_STATUS(done, PTL_E_CLOSED);
  CHECK_EQ(done->flight_sent, 0);
}

TEST(no_common_version) {
  for (uint16_t version : {uint16_t{TLS1_VERSION}, uint16_t{TLS1_1_VERSION}}) {
    bssl::UniquePtr<SSL_CTX> ctx = peer_client(version);
    int client_error = 0;
    Done done = served(ctx.get(), "", &client_error);
    CHECK_STATUS(done, PTL_E_TLS_VERSION);
    CHECK_EQ(done->alert, SSL_AD_PROTOCOL_VERSION);
    CHECK_EQ(done->flight_sent, 0);
    CHECK_EQ(client_error, SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
  }
}

TEST(nothing_in_common) {
  bssl::UniquePtr<SSL_CTX> no_suite = peer_client(TLS1_2_VERSION);
  REQUIRE(SSL_CTX_set_strict_cipher_list(no_suite.get(), "ECDHE-RSA-AES128-GCM-SHA256"));
  CHECK_STATUS(served(no_suite.get()), PTL_E_TLS_SHARED);
  bssl::UniquePtr<SSL_CTX> no_algorithm = peer_client();
  const uint16_t rsa_only = SSL_SIGN_RSA_PSS_RSAE_SHA256;
  REQUIRE(SSL_CTX_set_verify_algorithm_prefs(no_algorithm.get(), &rsa_only, 1));
  CHECK_STATUS(served(no_algorithm.get()), PTL_E_TLS_SHARED);
}

TEST(clients_that_do_not_speak_tls) {
  CHECK_STATUS(raw("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"), PTL_E_NOT_TLS);
  CHECK_STATUS(raw(std::string(64, 'x')), PTL_E_NOT_TLS);
  CHECK_STATUS(raw(std::string("\x15\x03\x01\x00\x02\x02\x28", 7)), PTL_E_ALERT);
}

TEST(the_hello_that_was_peeked_at_is_the_one_accepted) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  bssl::UniquePtr<SSL_CTX> ctx = peer_client();
  offer_alpn(ctx.get(), "\x02h2");
  ptl_op peek = peek_op(client.stream);
  peek.flags = PTL_FLAG_RAW;
  std::vector<uint64_t> tags = engine.submit_all(
      {linked(peek), accept_tls_op(client.stream, lab().server.get(), lab().credential.get(), "h2")});
  client.peer.be_client(ctx.get(), "origin.test");
  REQUIRE(client.peer.handshake());
  Done peeked = engine.await(tags[0]);
  REQUIRE_STATUS(peeked, PTL_OK);
  CHECK(peeked->has_sni && peeked->has_alpn && peeked->ecdsa_ok);
  CHECK_EQ(peeked->version, TLS1_3_VERSION);
  CHECK_EQ(peeked.data.substr(0, peeked->sni_len), std::string("origin.test"));
  CHECK_EQ(peeked.data.substr(peeked->sni_len, peeked->alpn_len), std::string("\x02h2"));
  CHECK_EQ(peeked.data.size(), peeked->sni_len + peeked->alpn_len + peeked->bytes_out);
  CHECK_EQ(peeked.data[peeked->sni_len + peeked->alpn_len], '\x16');
  CHECK_STATUS(engine.await(tags[1]), PTL_OK);
  client.peer.write("inside");
  CHECK_EQ(engine.run(read_op(client.stream, 100)).data, std::string("inside"));
}

TEST(data_that_came_with_the_finished_is_kept) {
  for (uint16_t version : {uint16_t{TLS1_2_VERSION}, uint16_t{TLS1_3_VERSION}}) {
    EngineDriver engine;
    Client client = accept_client(&engine, engine.listen());
    bssl::UniquePtr<SSL_CTX> ctx = peer_client(version);
    SSL_CTX_set_mode(ctx.get(), SSL_MODE_ENABLE_FALSE_START);  // TLS 1.2: data with the Finished, too
    offer_alpn(ctx.get(), "\x02h2");
    client.peer.be_client(ctx.get());
    // Nobody answers the hello before it is sent: an answer that is there already would be read at once, and the
    // Finished leave before the data.
    REQUIRE(client.peer.shake_once() == Peer::Shake::kWantRead);
    uint64_t tag =
        engine.submit(accept_tls_op(client.stream, lab().server.get(), lab().credential.get()));
    client.peer.wait(POLLIN);
    int cork = 1;  // everything from here on leaves at once
    setsockopt(client.peer.fd(), IPPROTO_TCP, TCP_CORK, &cork, sizeof(cork));
    client.peer.shake_once();
    std::string bytes = noise(20000, 1);
    bool broken;
    size_t sent = client.peer.write_some(bytes.data(), bytes.size(), &broken);
    cork = 0;
    setsockopt(client.peer.fd(), IPPROTO_TCP, TCP_CORK, &cork, sizeof(cork));
    REQUIRE(client.peer.handshake());
    client.peer.write(bytes.substr(sent));
    CHECK_STATUS(engine.await(tag), PTL_OK);
    std::string got;
    while (got.size() < bytes.size()) {
      Done done = engine.run(read_op(client.stream, 100000));
      REQUIRE_STATUS(done, PTL_OK);
      got += done.data;
    }
    CHECK(got == bytes);
  }
}

TEST(peeking) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  std::string hello = hello_of(lab().client_ctx.get());
  Client whole = accept_client(&engine, port, hello);
  uint32_t size = static_cast<uint32_t>(hello.size());
  CHECK_STATUS(engine.run(peek_op(whole.stream, size - 1)), PTL_E_TOO_LARGE);
  Done done = engine.run(peek_op(whole.stream, size));
  CHECK_STATUS(done, PTL_OK);
  CHECK_EQ(done->bytes_out, hello.size());
  CHECK_STATUS(engine.run(peek_op(whole.stream, size + 1)), PTL_OK);  // again: nothing was consumed
  CHECK_EQ(engine.run(read_op(whole.stream, size)).data, hello);
  Client pieces = accept_client(&engine, port);
  uint64_t tag = engine.submit(peek_op(pieces.stream, size));
  for (char c : hello) pieces.peer.write(std::string(1, c));
  CHECK_STATUS(engine.await(tag), PTL_OK);
  Client other = accept_client(&engine, port, "SSH-2.0-x\r\n");
  CHECK_STATUS(engine.run(peek_op(other.stream)), PTL_E_NOT_TLS);
  Client junk = accept_client(&engine, port, std::string("\x16\x03\x01\x00\x01\x05", 6));
  CHECK_STATUS(engine.run(peek_op(junk.stream)), PTL_E_MALFORMED);
  Client half = accept_client(&engine, port, hello.substr(0, 50));
  CHECK_STATUS(engine.run(within(20, peek_op(half.stream))), PTL_E_TIMEOUT);
  half.peer.shutdown_write();
  CHECK_STATUS(engine.run(peek_op(half.stream)), PTL_E_CLOSED);
}

TEST(closing_says_goodbye_inside) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (uint8_t alert : {uint8_t{0}, uint8_t{SSL_AD_INTERNAL_ERROR}}) {
    Client client = accept_client(&engine, port);
    uint64_t tag =
        engine.submit(accept_tls_op(client.stream, lab().server.get(), lab().credential.get()));
    client.peer.be_client(lab().client_ctx.get());
    REQUIRE(client.peer.handshake());
    CHECK_STATUS(engine.await(tag), PTL_OK);
    std::vector<uint64_t> tags = engine.submit_all(
        {linked(write_op(client.stream, "bye")), close_op(client.stream, 0, alert)});
    CHECK_EQ(client.peer.read(3), std::string("bye"));
    Outcome end = client.peer.await_end();
    CHECK(end == (alert == 0 ? Outcome::kEnd : Outcome::kFailed));
    if (alert != 0) CHECK_EQ(client.peer.error(), SSL_R_TLSV1_ALERT_INTERNAL_ERROR);
    for (uint64_t one : tags) CHECK_STATUS(engine.await(one), PTL_OK);
  }
}
