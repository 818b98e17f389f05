// What handshakes leave to the next: sessions; and what makes them smaller: certificate compression.
#include <openssl/bytestring.h>
#include <openssl/ssl.h>
#include <string.h>

#include <atomic>
#include <string>

#include "check.h"
#include "tunnel.h"

using namespace test;

namespace {

constexpr uint16_t kZlib = 1, kBrotli = 2;

std::atomic<int> num_calls{0};
std::atomic<int> last_algorithm{0};
std::atomic<bool> broken{false};

// A compression that anybody can undo: each byte's complement.
int undo(int algorithm, const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len) {
  num_calls++;
  last_algorithm = algorithm;
  if (broken || in_len != out_len) return 0;
  for (size_t i = 0; i < in_len; i++) out[i] = static_cast<uint8_t>(~in[i]);
  return 1;
}

int complement(SSL *, CBB *out, const uint8_t *in, size_t in_len) {
  for (size_t i = 0; i < in_len; i++) {
    if (!CBB_add_u8(out, static_cast<uint8_t>(~in[i]))) return 0;
  }
  return 1;
}

// Claims to be a large certificate in one byte.
int bomb(SSL *, CBB *out, const uint8_t *, size_t) { return CBB_add_u8(out, 0); }

// One connection: handshake, one byte back (so that tickets are read), close.
Done visit(EngineDriver *engine, uint16_t port, ptl_client_context *context, SSL_CTX *ctx,
           const char *name = "origin.test", uint16_t session_port = 443) {
  Client client = accept_client(engine, port);
  Origin listening;
  Done connected = engine->run(connect_op(client.stream, {loopback(listening.port())}));
  REQUIRE_STATUS(connected, PTL_OK);
  Peer origin = listening.accept();
  ptl_op op = connect_tls_op(connected->stream, context, name);
  op.port = session_port;
  uint64_t tag = engine->submit(op);
  origin.be_server(ctx);
  bool good = origin.handshake();
  Done done = engine->await(tag);
  if (good && done->status == PTL_OK) {
    origin.write("x");
    CHECK_EQ(engine->run(read_op(connected->stream, 1)).data, std::string("x"));
  }
  engine->run(close_op(connected->stream));
  engine->run(close_op(client.stream));
  return done;
}

// Tickets that are nearly as long as their length can say.
constexpr size_t kTicketPadding = 65000;
size_t ticket_overhead(SSL *) { return kTicketPadding; }
int seal_ticket(SSL *, uint8_t *out, size_t *out_len, size_t, const uint8_t *in, size_t in_len) {
  memcpy(out, in, in_len);
  memset(out + in_len, 0, kTicketPadding - in_len);
  *out_len = kTicketPadding;
  return 1;
}
ssl_ticket_aead_result_t open_ticket(SSL *, uint8_t *, size_t *, size_t, const uint8_t *, size_t) {
  return ssl_ticket_aead_ignore_ticket;
}

ClientContext compressing_client() {
  ptl_hello hello = default_hello();
  const uint16_t algorithms[] = {kBrotli, kZlib};
  hello.cert_compression = algorithms;
  hello.num_cert_compression = 2;
  return new_client_context(hello, lab().trust.get());
}

Done compressed(SSL_CTX *ctx, ptl_client_context *context) {
  EngineDriver engine;
  return visit(&engine, engine.listen(), context, ctx);
}

}  // namespace

TEST(sessions_are_resumed) {
  for (uint16_t version : {uint16_t{TLS1_2_VERSION}, uint16_t{TLS1_3_VERSION}}) {
    bssl::UniquePtr<SSL_CTX> ctx = peer_server(lab().origin, version);
    ptl_hello hello = default_hello();
    hello.resumption = 1;
    ClientContext context = new_client_context(hello, lab().trust.get());
    EngineDriver engine;
    uint16_t port = engine.listen();
    CHECK_EQ(visit(&engine, port, context.get(), ctx.get())->resumed, 0);
    for (int i = 0; i < 3; i++) {
      Done again = visit(&engine, port, context.get(), ctx.get());
      CHECK_STATUS(again, PTL_OK);
      CHECK_EQ(again->resumed, 1);
      CHECK_EQ(again->version, version);
    }
    CHECK_EQ(engine.stats().sessions_offered, 3u);
  }
}

TEST(a_session_is_for_one_place_and_one_context) {
  ptl_hello hello = default_hello();
  hello.resumption = 1;
  ClientContext first = new_client_context(hello, lab().trust.get(), PTL_VERIFY_CHAIN);
  ClientContext second = new_client_context(hello, lab().trust.get());
  ClientContext forgetful = new_client_context(default_hello(), lab().trust.get());
  EngineDriver engine;
  uint16_t port = engine.listen();
  SSL_CTX *ctx = lab().origin_ctx.get();
  visit(&engine, port, first.get(), ctx);
  CHECK_EQ(visit(&engine, port, second.get(), ctx)->resumed, 0);
  CHECK_EQ(visit(&engine, port, first.get(), ctx, "other.test")->resumed, 0);
  CHECK_EQ(visit(&engine, port, first.get(), ctx, "origin.test", 8443)->resumed, 0);
  CHECK_EQ(visit(&engine, port, forgetful.get(), ctx)->resumed, 0);
  CHECK_EQ(visit(&engine, port, forgetful.get(), ctx)->resumed, 0);
  CHECK_EQ(visit(&engine, port, first.get(), ctx)->resumed, 1);
  CHECK_EQ(engine.stats().sessions_offered, 1u);
}

TEST(a_session_that_the_server_no_longer_knows) {
  ptl_hello hello = default_hello();
  hello.resumption = 1;
  ClientContext context = new_client_context(hello, lab().trust.get());
  EngineDriver engine;
  uint16_t port = engine.listen();
  visit(&engine, port, context.get(), lab().origin_ctx.get());
  bssl::UniquePtr<SSL_CTX> restarted = peer_server(lab().origin);
  Done done = visit(&engine, port, context.get(), restarted.get());
  CHECK_STATUS(done, PTL_OK);
  CHECK_EQ(done->resumed, 0);
}

TEST(a_ticket_that_fits_in_no_hello_is_not_kept) {
  static const SSL_TICKET_AEAD_METHOD long_tickets = {ticket_overhead, seal_ticket, open_ticket};
  bssl::UniquePtr<SSL_CTX> ctx = peer_server(lab().origin, TLS1_2_VERSION);
  SSL_CTX_set_ticket_aead_method(ctx.get(), &long_tickets);
  ptl_hello hello = default_hello();
  hello.resumption = 1;
  ClientContext context = new_client_context(hello, lab().trust.get());
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (int i = 0; i < 2; i++) CHECK_STATUS(visit(&engine, port, context.get(), ctx.get()), PTL_OK);
  CHECK_EQ(engine.stats().sessions_offered, 0u);
}

TEST(compressed_certificates) {
  ClientContext context = compressing_client();
  ptl_set_decompressor(undo);
  for (uint16_t algorithm : {kZlib, kBrotli}) {
    bssl::UniquePtr<SSL_CTX> ctx = peer_server(lab().origin);
    REQUIRE(SSL_CTX_add_cert_compression_alg(ctx.get(), algorithm, complement, nullptr));
    int before = num_calls;
    CHECK_STATUS(compressed(ctx.get(), context.get()), PTL_OK);
    CHECK_EQ(num_calls.load(), before + 1);
    CHECK_EQ(last_algorithm.load(), algorithm);
  }
}

TEST(certificates_that_do_not_decompress) {
  ClientContext context = compressing_client();
  bssl::UniquePtr<SSL_CTX> ctx = peer_server(lab().origin);
  REQUIRE(SSL_CTX_add_cert_compression_alg(ctx.get(), kZlib, complement, nullptr));
  ptl_set_decompressor(nullptr);
  CHECK_STATUS(compressed(ctx.get(), context.get()), PTL_E_TLS);
  ptl_set_decompressor(undo);
  broken = true;
  CHECK_STATUS(compressed(ctx.get(), context.get()), PTL_E_TLS);
  broken = false;
  CHECK_STATUS(compressed(ctx.get(), context.get()), PTL_OK);
}

TEST(a_certificate_bomb_is_refused_by_its_announced_size) {
  ClientContext context = compressing_client();
  ptl_set_decompressor(undo);
  LeafSpec large;
  large.padding = PTL_MAX_CERTIFICATE_BYTES;
  Identity identity = lab().root.issue(large);
  bssl::UniquePtr<SSL_CTX> ctx = peer_server(identity);
  REQUIRE(SSL_CTX_add_cert_compression_alg(ctx.get(), kBrotli, bomb, nullptr));
  int before = num_calls;
  CHECK_STATUS(compressed(ctx.get(), context.get()), PTL_E_TLS);
  CHECK_EQ(num_calls.load(), before);  // nobody was asked to write so much
}

TEST(contexts_that_cannot_be) {
  char error[200];
  auto refused = [&](const ptl_hello &hello, ptl_trust *trust, int verify) {
    error[0] = '\0';
    ptl_client_context *context = ptl_client_context_new(&hello, trust, verify, error, sizeof(error));
    CHECK(context == nullptr);
    CHECK(error[0] != '\0');
    ptl_client_context_free(context);
  };
  const uint16_t twice[] = {kZlib, kZlib}, unknown[] = {9};
  ptl_hello hello = default_hello();
  refused(hello, nullptr, kVerifyAll);
  hello.cipher_list = "NO-SUCH-SUITE";
  refused(hello, nullptr, 0);
  hello = default_hello();
  hello.cert_compression = twice;
  hello.num_cert_compression = 2;
  refused(hello, nullptr, 0);
  hello.cert_compression = unknown;
  hello.num_cert_compression = 1;
  refused(hello, nullptr, 0);
  hello = default_hello();
  hello.groups = unknown;
  hello.num_groups = 1;
  refused(hello, nullptr, 0);
  hello = default_hello();
  const uint8_t no_format[] = {7, 0, 0};
  hello.template_bytes = no_format;
  hello.template_len = sizeof(no_format);
  refused(hello, nullptr, 0);
  hello = default_hello();
  hello.max_version = 0x0305;
  refused(hello, nullptr, 0);
}

TEST(credentials_that_cannot_be) {
  char error[200];
  auto refused = [&](const std::string &certificate, const std::string &key) {
    const auto *der = reinterpret_cast<const uint8_t *>(certificate.data());
    size_t size = certificate.size();
    error[0] = '\0';
    const auto *pkcs8 = reinterpret_cast<const uint8_t *>(key.data());
    CHECK(ptl_credential_new(&der, &size, certificate.empty() ? 0 : 1, pkcs8, key.size(), error,
                             sizeof(error)) == nullptr);
    CHECK(error[0] != '\0');
  };
  const std::string &leaf = lab().leaf.chain[0];
  std::string key = lab().leaf.key_pkcs8();
  refused("", key);
  refused(leaf, "junk");
  refused(leaf, key + "x");
  refused("junk", key);
  refused(leaf, lab().origin.key_pkcs8());  // another's
  char tiny[4];
  CHECK(ptl_credential_new(nullptr, nullptr, 0, nullptr, 0, tiny, sizeof(tiny)) == nullptr);
  CHECK_EQ(strlen(tiny), 3u);
  ptl_credential_free(nullptr);
}

TEST(roots_that_do_not_parse_are_left_out) {
  const std::string &root = lab().root.der();
  const uint8_t *ders[] = {reinterpret_cast<const uint8_t *>("junk"),
                           reinterpret_cast<const uint8_t *>(root.data())};
  const size_t sizes[] = {4, root.size()};
  size_t added = 0;
  Trust trust(ptl_trust_new(ders, sizes, 2, 0, 0, &added, nullptr, 0));
  CHECK(trust != nullptr);
  CHECK_EQ(added, 1u);
}
