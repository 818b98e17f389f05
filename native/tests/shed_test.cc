// What an established connection can do without: its session, and what its keys expand to.
#include <openssl/bio.h>
#include <openssl/ssl.h>

#include <string>
#include <utility>

#include "check.h"
#include "lab.h"

using namespace test;

namespace {

bssl::UniquePtr<SSL_SESSION> &kept() {
  static bssl::UniquePtr<SSL_SESSION> session;
  return session;
}

int keep(SSL *, SSL_SESSION *session) {
  kept().reset(session);
  return 1;
}

// A client and a server of BoringSSL's, face to face.
struct Pair {
  Pair(uint16_t version, SSL_CTX *server_ctx, SSL_SESSION *session = nullptr)
      : client_ctx(SSL_CTX_new(TLS_with_buffers_method())) {
    SSL_CTX_set_max_proto_version(client_ctx.get(), version);
    SSL_CTX_set_session_cache_mode(client_ctx.get(), SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client_ctx.get(), keep);
    SSL_CTX_set_custom_verify(client_ctx.get(), SSL_VERIFY_PEER, [](SSL *, uint8_t *) { return ssl_verify_ok; });
    client.reset(SSL_new(client_ctx.get()));
    server.reset(SSL_new(server_ctx));
    if (session != nullptr) SSL_set_session(client.get(), session);
    BIO *one, *other;
    REQUIRE(BIO_new_bio_pair(&one, 1 << 16, &other, 1 << 16));
    SSL_set_bio(client.get(), one, one);
    SSL_set_bio(server.get(), other, other);
    SSL_set_connect_state(client.get());
    SSL_set_accept_state(server.get());
    SSL_set_shed_handshake_config(client.get(), 1);
    SSL_set_shed_handshake_config(server.get(), 1);
    bool done = false;
    for (int i = 0; i < 10 && !done; i++) {
      const int ours = SSL_do_handshake(client.get()), theirs = SSL_do_handshake(server.get());
      done = ours == 1 && theirs == 1;
    }
    REQUIRE(done);
  }

  void talk() {
    for (auto ends : {std::pair(client.get(), server.get()), std::pair(server.get(), client.get())}) {
      char got[5];
      CHECK_EQ(SSL_write(ends.first, "hello", 5), 5);
      REQUIRE(SSL_read(ends.second, got, 5) == 5);
      CHECK_EQ(std::string(got, 5), std::string("hello"));
    }
  }

  bssl::UniquePtr<SSL_CTX> client_ctx;
  bssl::UniquePtr<SSL> client, server;
};

}  // namespace

TEST(a_shed_session) {
  for (uint16_t version : {uint16_t{TLS1_2_VERSION}, uint16_t{TLS1_3_VERSION}}) {
    kept().reset();
    bssl::UniquePtr<SSL_CTX> server_ctx = peer_server(lab().origin, version);
    Pair pair(version, server_ctx.get());
    const SSL_CIPHER *cipher = SSL_get_current_cipher(pair.client.get());
    const uint16_t algorithm = SSL_get_peer_signature_algorithm(pair.client.get());
    REQUIRE(SSL_get0_peer_certificates(pair.client.get()) != nullptr);
    CHECK(SSL_shed_session(pair.client.get()) == 1 && SSL_shed_session(pair.server.get()) == 1);
    CHECK(SSL_get0_peer_certificates(pair.client.get()) == nullptr);
    CHECK(SSL_get_current_cipher(pair.client.get()) == cipher);
    CHECK(SSL_SESSION_is_resumable(SSL_get_session(pair.client.get())) == 0);
    pair.talk();  // the client reads the tickets of TLS 1.3
    REQUIRE(kept() != nullptr);
    CHECK(SSL_SESSION_is_resumable(kept().get()) == 1);
    if (version == TLS1_3_VERSION) CHECK(SSL_SESSION_get0_peer_certificates(kept().get()) == nullptr);
    bssl::UniquePtr<SSL_SESSION> session = std::move(kept());
    Pair again(version, server_ctx.get(), session.get());
    CHECK_EQ(SSL_session_reused(again.client.get()), 1);
    CHECK_EQ(SSL_get_peer_signature_algorithm(again.client.get()), algorithm);
    CHECK(SSL_shed_session(again.client.get()) == 1);
    again.talk();
  }
}

TEST(a_session_is_not_shed_before_its_time) {
  bssl::UniquePtr<SSL_CTX> ctx = peer_server(lab().origin);
  bssl::UniquePtr<SSL> ssl(SSL_new(ctx.get()));
  SSL_set_accept_state(ssl.get());
  CHECK_EQ(SSL_shed_session(ssl.get()), 0);
}

TEST(rest_and_wake) {
  bssl::UniquePtr<SSL_CTX> old = peer_server(lab().origin, TLS1_2_VERSION), ctx = peer_server(lab().origin);
  Pair tls12(TLS1_2_VERSION, old.get()), tls13(TLS1_3_VERSION, ctx.get());
  CHECK_EQ(SSL_rest(tls12.client.get()), 0);
  CHECK_EQ(SSL_wake(tls12.client.get()), 1);
  tls12.talk();
  for (int i = 0; i < 3; i++) {
    if (i == 1) CHECK(SSL_shed_session(tls13.client.get()) == 1);
    if (i == 2) REQUIRE(SSL_key_update(tls13.server.get(), SSL_KEY_UPDATE_REQUESTED));
    CHECK(SSL_rest(tls13.client.get()) == 1 && SSL_rest(tls13.server.get()) == 1);
    CHECK(SSL_rest(tls13.client.get()) == 1);
    CHECK(SSL_wake(tls13.client.get()) == 1 && SSL_wake(tls13.server.get()) == 1);
    CHECK_EQ(SSL_wake(tls13.client.get()), 1);
    tls13.talk();
  }
}
