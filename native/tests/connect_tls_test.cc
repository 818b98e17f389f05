// Becoming a TLS client: of a good server, and of every kind of bad one.
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <string>

#include "check.h"
#include "exchange.h"
#include "tunnel.h"

using namespace test;

namespace {

// The engine connected to an origin, before TLS.
struct Upstream {
  explicit Upstream(EngineDriver *driver, Peer *anchor) : engine(driver) {
    Peer client = Peer::connect_to(driver->listen());
    client.write("A\r\n\r\n");
    Done accepted = driver->next_accept();
    Origin listening;
    Done done = driver->run(connect_op(accepted->stream, {loopback(listening.port())}));
    REQUIRE_STATUS(done, PTL_OK);
    stream = done->stream;
    origin = listening.accept();
    *anchor = std::move(client);
  }
  uint64_t start(ptl_client_context *context = nullptr, const char *name = "origin.test",
                 const std::string &alpn = "") {
    if (context == nullptr) context = lab().client.get();
    return engine->submit(connect_tls_op(stream, context, name, alpn));
  }
  EngineDriver *engine;
  Peer origin;
  ptl_stream stream;
};

struct Verdict {
  Done done;
  int origin_error;  // what the origin's library said; 0: it was content
};

// Shakes hands with a server of |ctx| and says how that ended.
Verdict shake(SSL_CTX *ctx, ptl_client_context *context = nullptr, const char *name = "origin.test") {
  EngineDriver engine;
  Peer client;
  Upstream upstream(&engine, &client);
  uint64_t tag = upstream.start(context, name);
  upstream.origin.be_server(ctx);
  upstream.origin.handshake();
  Done done = engine.await(tag);
  // In TLS 1.3 the server may be done before the client has judged it: the verdict comes by reading.
  std::string nothing;
  if (done->status != PTL_OK && upstream.origin.error() == 0) {
    Outcome end;
    engine.run(close_op(upstream.stream));
    upstream.origin.read_to_end(&end);
  }
  CHECK_EQ(engine.stats().handshakes, done->status == PTL_OK ? 1u : 0u);
  return {std::move(done), upstream.origin.error()};
}

Verdict shake_with(const LeafSpec &spec, const char *name = "origin.test") {
  Identity identity = lab().root.issue(spec);
  bssl::UniquePtr<SSL_CTX> ctx = peer_server(identity);
  return shake(ctx.get(), nullptr, name);
}

void check_refused(const Verdict &verdict, int verify_error, int alert, int origin_reason) {
  CHECK_STATUS(verdict.done, PTL_E_VERIFY);
  CHECK_EQ(verdict.done->verify_error, verify_error);
  CHECK_EQ(verdict.done->alert, alert);
  CHECK_EQ(verdict.origin_error, origin_reason);
  CHECK(!verdict.done.data.empty());
}

// Answers the hello with |bytes| and, if |ends|, a FIN.
Done answered(const std::string &bytes, bool ends = false) {
  EngineDriver engine;
  Peer client;
  Upstream upstream(&engine, &client);
  uint64_t tag = upstream.start();
  upstream.origin.read(100);  // the hello is on its way
  upstream.origin.write(bytes);
  if (ends) upstream.origin.shutdown_write();
  return engine.await(tag);
}

}  // namespace

TEST(a_good_server) {
  for (uint16_t version : {uint16_t{TLS1_2_VERSION}, uint16_t{TLS1_3_VERSION}}) {
    bssl::UniquePtr<SSL_CTX> ctx = peer_server(lab().origin, version);
    Verdict verdict = shake(ctx.get());
    REQUIRE_STATUS(verdict.done, PTL_OK);
    CHECK_EQ(verdict.done->version, version);
    CHECK_EQ(verdict.done->sigalg, SSL_SIGN_ECDSA_SECP256R1_SHA256);
    CHECK(verdict.done->cipher != 0 && verdict.done->group != 0);
    CHECK_EQ(verdict.done->resumed, 0);
    CHECK_EQ(verdict.done->retried, 0);
  }
}

TEST(protocols_are_negotiated) {
  EngineDriver engine;
  Peer client;
  Upstream upstream(&engine, &client);
  std::string protocol = "h2";
  bssl::UniquePtr<SSL_CTX> ctx = peer_server(lab().origin);
  choose_alpn(ctx.get(), &protocol);
  uint64_t tag = upstream.start(nullptr, "origin.test", "\x02h2\x08http/1.1");
  upstream.origin.be_server(ctx.get());
  REQUIRE(upstream.origin.handshake());
  Done done = engine.await(tag);
  CHECK_STATUS(done, PTL_OK);
  CHECK_EQ(done.data, protocol);
  CHECK_EQ(std::string(SSL_get_servername(upstream.origin.ssl(), TLSEXT_NAMETYPE_host_name)),
           std::string("origin.test"));
}

TEST(a_server_without_a_common_protocol) {
  std::string protocol = "h3";
  bssl::UniquePtr<SSL_CTX> ctx = peer_server(lab().origin);
  choose_alpn(ctx.get(), &protocol);
  EngineDriver engine;
  Peer client;
  Upstream upstream(&engine, &client);
  uint64_t tag = upstream.start(nullptr, "origin.test", "\x02h2");
  upstream.origin.be_server(ctx.get());
  CHECK(!upstream.origin.handshake());
  Done done = engine.await(tag);
  CHECK_STATUS(done, PTL_E_ALERT);
  CHECK_EQ(done->alert, SSL_AD_NO_APPLICATION_PROTOCOL);
}

TEST(a_hello_retry_is_noted) {
  bssl::UniquePtr<SSL_CTX> ctx = peer_server(lab().origin);
  const uint16_t group = SSL_GROUP_SECP384R1;
  SSL_CTX_set1_group_ids(ctx.get(), &group, 1);
  Verdict verdict = shake(ctx.get());
  REQUIRE_STATUS(verdict.done, PTL_OK);
  CHECK_EQ(verdict.done->retried, 1);
  CHECK_EQ(verdict.done->group, group);
}

TEST(certificates_that_do_not_hold) {
  LeafSpec expired;
  expired.from_days = -30;
  expired.until_days = -1;
  check_refused(shake_with(expired), X509_V_ERR_CERT_HAS_EXPIRED, SSL_AD_CERTIFICATE_EXPIRED,
                SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED);
  LeafSpec early;
  early.from_days = 2;
  check_refused(shake_with(early), X509_V_ERR_CERT_NOT_YET_VALID, SSL_AD_CERTIFICATE_EXPIRED,
                SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED);
  LeafSpec own;
  own.self_signed = true;
  own.key_usage = "";
  check_refused(shake_with(own), X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, SSL_AD_UNKNOWN_CA,
                SSL_R_TLSV1_ALERT_UNKNOWN_CA);
  LeafSpec client_only;
  client_only.extended_key_usage = "clientAuth";
  CHECK_STATUS(shake_with(client_only).done, PTL_E_VERIFY);
  Identity strange = lab().stranger.issue(LeafSpec());
  bssl::UniquePtr<SSL_CTX> ctx = peer_server(strange);
  check_refused(shake(ctx.get()), X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, SSL_AD_UNKNOWN_CA,
                SSL_R_TLSV1_ALERT_UNKNOWN_CA);
}

TEST(names) {
  check_refused(shake_with(LeafSpec(), "other.test"), X509_V_ERR_HOSTNAME_MISMATCH, SSL_AD_BAD_CERTIFICATE,
                SSL_R_SSLV3_ALERT_BAD_CERTIFICATE);
  LeafSpec wildcard;
  wildcard.dns = "*.origin.test";
  CHECK_STATUS(shake_with(wildcard, "a.origin.test").done, PTL_OK);
  CHECK_STATUS(shake_with(wildcard, "a.b.origin.test").done, PTL_E_VERIFY);
  LeafSpec address;
  address.ip = "127.0.0.1";
  CHECK_STATUS(shake_with(address, "127.0.0.1").done, PTL_OK);
  check_refused(shake_with(address, "127.0.0.2"), X509_V_ERR_IP_ADDRESS_MISMATCH, SSL_AD_BAD_CERTIFICATE,
                SSL_R_SSLV3_ALERT_BAD_CERTIFICATE);
}

TEST(what_is_verified_can_be_chosen) {
  ClientContext chain_only = new_client_context(default_hello(), lab().trust.get(), PTL_VERIFY_CHAIN);
  ClientContext nothing = new_client_context(default_hello(), nullptr, 0);
  Identity strange = lab().stranger.issue(LeafSpec());
  bssl::UniquePtr<SSL_CTX> stranger = peer_server(strange);
  CHECK_STATUS(shake(lab().origin_ctx.get(), chain_only.get(), "other.test").done, PTL_OK);
  CHECK_STATUS(shake(stranger.get(), chain_only.get(), "origin.test").done, PTL_E_VERIFY);
  CHECK_STATUS(shake(stranger.get(), nothing.get(), "other.test").done, PTL_OK);
}

TEST(verified_chains_are_remembered_and_refused_ones_are_not) {
  Trust trust = new_trust({lab().root.der()}, 60000, 2);
  ClientContext context = new_client_context(default_hello(), trust.get());
  for (int i = 0; i < 3; i++) CHECK_STATUS(shake(lab().origin_ctx.get(), context.get()).done, PTL_OK);
  for (int i = 0; i < 2; i++) {
    // The same chain for another name is another question.
    CHECK_STATUS(shake(lab().origin_ctx.get(), context.get(), "other.test").done, PTL_E_VERIFY);
  }
}

TEST(key_usage) {
  LeafSpec agreement_only;
  agreement_only.rsa = true;
  agreement_only.key_usage = "keyEncipherment";
  CHECK_STATUS(shake_with(agreement_only).done, PTL_E_KEY_USAGE);
}

TEST(old_versions) {
  for (uint16_t version : {uint16_t{TLS1_VERSION}, uint16_t{TLS1_1_VERSION}}) {
    bssl::UniquePtr<SSL_CTX> ctx = peer_server(lab().origin, version);
    Done done = shake(ctx.get()).done;
    // A server that knows the client offers more answers with its own version or with an alert.
    bool told = done->status == PTL_E_TLS_VERSION ||
                (done->status == PTL_E_ALERT && done->alert == SSL_AD_PROTOCOL_VERSION);
    CHECK(told);
  }
  // A ServerHello of TLS 1.0, as a server would send that knows nothing newer.
  std::string hello = std::string("\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01", 11) + std::string(32, 'r') +
                      std::string("\x00\xc0\x13\x00", 4);
  CHECK_STATUS(answered(hello), PTL_E_TLS_VERSION);
}

TEST(nothing_in_common) {
  ptl_hello hello = default_hello();
  hello.max_version = TLS1_2_VERSION;
  hello.cipher_list = "ECDHE-RSA-AES128-GCM-SHA256";
  ClientContext rsa_only = new_client_context(hello, lab().trust.get());
  Done done = shake(lab().origin_ctx.get(), rsa_only.get()).done;
  CHECK_STATUS(done, PTL_E_ALERT);
  CHECK_EQ(done->alert, SSL_AD_HANDSHAKE_FAILURE);
}

TEST(servers_that_do_not_speak_tls) {
  CHECK_STATUS(answered("HTTP/1.1 400 Bad Request\r\n\r\n"), PTL_E_NOT_TLS);
  CHECK_STATUS(answered("SSH-2.0-something\r\n"), PTL_E_NOT_TLS);
  CHECK_STATUS(answered("220 mail.test ESMTP\r\n"), PTL_E_NOT_TLS);
  CHECK_STATUS(answered(std::string(64, '\0')), PTL_E_NOT_TLS);
  CHECK_STATUS(answered(std::string("\x16\x03\x03\x00\x04", 5) + "junk"), PTL_E_TLS);
}

TEST(alerts) {
  Done done = answered(std::string("\x15\x03\x03\x00\x02\x02\x28", 7));
  CHECK_STATUS(done, PTL_E_ALERT);
  CHECK_EQ(done->alert, SSL_AD_HANDSHAKE_FAILURE);
  CHECK_EQ(done.data, std::string("handshake failure"));
  // With a FIN right behind it, it is still the alert that counts.
  CHECK_STATUS(answered(std::string("\x15\x03\x03\x00\x02\x02\x46", 7), true), PTL_E_ALERT);
}

TEST(servers_that_go_away) {
  CHECK_STATUS(answered("", true), PTL_E_CLOSED);
  CHECK_STATUS(answered(std::string("\x16\x03\x03", 3), true), PTL_E_CLOSED);
  EngineDriver engine;
  Peer client;
  Upstream upstream(&engine, &client);
  uint64_t tag = upstream.start();
  upstream.origin.read(100);
  upstream.origin.reset();
  Done done = engine.await(tag);
  CHECK_STATUS(done, PTL_E_RESET);
  CHECK_EQ(done->flight_sent, 1);
}

TEST(servers_that_never_answer) {
  EngineDriver engine;
  Peer client;
  Upstream upstream(&engine, &client);
  Done done = engine.run(
      within(30, connect_tls_op(upstream.stream, lab().client.get(), "origin.test")));
  CHECK_STATUS(done, PTL_E_TIMEOUT);
  CHECK_EQ(done->flight_sent, 1);
  CHECK(done->ended_ns - done->started_ns >= 29000000);
}

TEST(arguments_that_fit_none) {
  EngineDriver engine;
  Peer client;
  Upstream upstream(&engine, &client);
  auto refused = [&](const char *name, const std::string &alpn) {
    CHECK_STATUS(engine.run(connect_tls_op(upstream.stream, lab().client.get(), name, alpn)), PTL_E_INVALID);
  };
  refused("", "");
  refused(std::string(300, 'x').c_str(), "");
  refused("origin.test", "\x05h2");
  refused("origin.test", std::string("\x00", 1));
  // The stream is as it was: plain, and nothing of a hello was sent.
  CHECK_STATUS(engine.run(write_op(upstream.stream, "plain")), PTL_OK);
  CHECK_EQ(upstream.origin.read(5), std::string("plain"));
}

TEST(data_that_came_with_the_last_flight_is_kept) {
  EngineDriver engine;
  Peer client;
  Upstream upstream(&engine, &client);
  uint64_t tag = upstream.start();
  upstream.origin.be_server(lab().origin_ctx.get());
  REQUIRE(upstream.origin.handshake());
  std::string bytes = noise(40000, 3);
  upstream.origin.write(bytes);
  upstream.origin.say_goodbye();
  upstream.origin.shutdown_write();
  CHECK_STATUS(engine.await(tag), PTL_OK);
  std::string got;
  while (got.size() < bytes.size()) {
    Done done = engine.run(read_op(upstream.stream, 10000));
    REQUIRE_STATUS(done, PTL_OK);
    got += done.data;
  }
  CHECK(got == bytes);
  CHECK_STATUS(engine.run(read_op(upstream.stream, 1)), PTL_E_CLOSED);
}

TEST(the_hello_that_was_sent_is_handed_out_where_it_is_asked_for) {
  for (bool good : {true, false}) {
    for (bool raw : {true, false}) {
      EngineDriver engine;
      Peer client;
      Upstream upstream(&engine, &client);
      const std::string offered = "\x02h2";
      ptl_op op = connect_tls_op(upstream.stream, lab().client.get(), "origin.test", offered);
      if (raw) op.flags |= PTL_FLAG_RAW;
      uint64_t tag = engine.submit(op);
      std::string sent;
      if (good) {
        std::string protocol = "h2";
        bssl::UniquePtr<SSL_CTX> ctx = peer_server(lab().origin);
        choose_alpn(ctx.get(), &protocol);
        upstream.origin.be_server(ctx.get());
        upstream.origin.handshake();
      } else {
        sent = upstream.origin.read(5);
        const size_t rest = static_cast<uint8_t>(sent[3]) * 256u + static_cast<uint8_t>(sent[4]);
        sent += upstream.origin.read(rest);
        upstream.origin.write("\x15\x03\x03" + std::string("\x00\x02\x02\x28", 4));  // handshake_failure
      }
      Done done = engine.await(tag);
      CHECK_STATUS(done, good ? PTL_OK : PTL_E_ALERT);
      const size_t hello_len = static_cast<size_t>(done->bytes_out);
      CHECK_EQ(hello_len != 0, raw);
      REQUIRE(hello_len <= done.data.size());
      const std::string said = done.data.substr(0, done.data.size() - hello_len);
      const std::string hello = done.data.substr(said.size());
      if (good) CHECK_EQ(said, std::string("h2"));
      CHECK(!said.empty());
      if (!raw) continue;
      CHECK_EQ(hello.substr(0, 2), std::string("\x16\x03"));
      CHECK(hello.find("origin.test") != std::string::npos);
      if (!good) CHECK(hello == sent);  // these bytes and no others
    }
  }
}
