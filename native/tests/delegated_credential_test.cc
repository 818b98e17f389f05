// Delegated credentials (RFC 9345): taken where a template offers them, and refused for every rule that one breaks.
#include <openssl/bytestring.h>
#include <openssl/digest.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pool.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <string>
#include <vector>

#include "check.h"
#include "tunnel.h"

using namespace test;

namespace {

constexpr uint16_t kEcdsaP256 = 0x0403;
constexpr uint16_t kEcdsaP384 = 0x0503;
constexpr int kDay = 24 * 60 * 60;

// What one credential says, and the certificate it stands in for. The defaults make a good one.
struct Case {
  uint32_t valid_seconds = 2 * kDay;  // from the certificate's notBefore, a day ago
  bool delegation_usage = true;
  bool digital_signature = true;
  bool good_signature = true;
  bool offered = true;  // the template has the extension
  bool resuming = false;  // the template has psk_key_exchange_modes
};

bssl::UniquePtr<EVP_PKEY> new_key() {
  bssl::UniquePtr<EC_KEY> ec(EC_KEY_new_by_curve_name(NID_X9_62_prime256v1));
  bssl::UniquePtr<EVP_PKEY> key(EVP_PKEY_new());
  REQUIRE(ec && EC_KEY_generate_key(ec.get()) && EVP_PKEY_assign_EC_KEY(key.get(), ec.release()));
  return key;
}

void add_extension(X509 *certificate, const char *oid, bool critical, const std::string &der) {
  bssl::UniquePtr<ASN1_OBJECT> object(OBJ_txt2obj(oid, 1));
  bssl::UniquePtr<ASN1_OCTET_STRING> value(ASN1_OCTET_STRING_new());
  ASN1_OCTET_STRING_set(value.get(), reinterpret_cast<const uint8_t *>(der.data()),
                        static_cast<int>(der.size()));
  bssl::UniquePtr<X509_EXTENSION> extension(
      X509_EXTENSION_create_by_OBJ(nullptr, object.get(), critical, value.get()));
  REQUIRE(extension && X509_add_ext(certificate, extension.get(), -1));
}

// A certificate that signed itself: what is tested comes before anybody asks who issued it.
std::string certificate_of(const Case &what, EVP_PKEY *key) {
  bssl::UniquePtr<X509> made(X509_new());
  X509_set_version(made.get(), X509_VERSION_3);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(made.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), -kDay);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), 30 * kDay);
  X509_set_pubkey(made.get(), key);
  add_extension(made.get(), "2.5.29.15", true,
                what.digital_signature ? std::string("\x03\x02\x07\x80") : std::string("\x03\x02\x05\x20"));
  if (what.delegation_usage) {
    add_extension(made.get(), "1.3.6.1.4.1.44363.44", false, std::string("\x05\x00", 2));
  }
  REQUIRE(X509_sign(made.get(), key, EVP_sha256()));
  uint8_t *der = nullptr;
  int size = i2d_X509(made.get(), &der);
  std::string text(reinterpret_cast<char *>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return text;
}

std::string finished(CBB *cbb) {
  uint8_t *bytes;
  size_t size;
  REQUIRE(CBB_finish(cbb, &bytes, &size));
  std::string text(reinterpret_cast<char *>(bytes), size);
  OPENSSL_free(bytes);
  return text;
}

// The credential for |key|, signed by the certificate's |signer| (RFC 9345 §4).
std::string credential_of(const Case &what, EVP_PKEY *key, EVP_PKEY *signer, const std::string &certificate) {
  bssl::ScopedCBB cbb;
  CBB spki;
  REQUIRE(CBB_init(cbb.get(), 256) && CBB_add_u32(cbb.get(), what.valid_seconds) &&
          CBB_add_u16(cbb.get(), kEcdsaP256) &&
          CBB_add_u24_length_prefixed(cbb.get(), &spki) && EVP_marshal_public_key(&spki, key) &&
          CBB_add_u16(cbb.get(), kEcdsaP256));
  std::string body = finished(cbb.get());
  std::string input = std::string(64, ' ') + std::string("TLS, server delegated credentials") +
                      std::string(1, '\0') + certificate + body;
  uint8_t signature[128];
  size_t size = sizeof(signature);
  bssl::ScopedEVP_MD_CTX digest;
  REQUIRE(EVP_DigestSignInit(digest.get(), nullptr, EVP_sha256(), nullptr, signer) &&
          EVP_DigestSign(digest.get(), signature, &size, reinterpret_cast<const uint8_t *>(input.data()),
                         input.size()));
  if (!what.good_signature) signature[size - 1] ^= 1;
  body += static_cast<char>(size >> 8);
  body += static_cast<char>(size);
  return body + std::string(reinterpret_cast<char *>(signature), size);
}

bssl::UniquePtr<SSL_CTX> server_with(const Case &what) {
  bssl::UniquePtr<EVP_PKEY> signer = new_key(), key = new_key();
  std::string certificate = certificate_of(what, signer.get());
  std::string delegated = credential_of(what, key.get(), signer.get(), certificate);
  auto buffer = [](const std::string &bytes) {
    return bssl::UniquePtr<CRYPTO_BUFFER>(CRYPTO_BUFFER_new(
        reinterpret_cast<const uint8_t *>(bytes.data()), bytes.size(), nullptr));
  };
  bssl::UniquePtr<CRYPTO_BUFFER> leaf = buffer(certificate), dc = buffer(delegated);
  bssl::UniquePtr<SSL_CREDENTIAL> credential(SSL_CREDENTIAL_new_delegated());
  CRYPTO_BUFFER *chain[] = {leaf.get()};
  REQUIRE(SSL_CREDENTIAL_set1_cert_chain(credential.get(), chain, 1) &&
          SSL_CREDENTIAL_set1_delegated_credential(credential.get(), dc.get()) &&
          SSL_CREDENTIAL_set1_private_key(credential.get(), key.get()));
  bssl::UniquePtr<SSL_CTX> ctx(SSL_CTX_new(TLS_method()));
  REQUIRE(SSL_CTX_add1_credential(ctx.get(), credential.get()));
  // A certificate of the usual kind for clients that offer no delegated credentials.
  REQUIRE(SSL_CTX_set_chain_and_key(ctx.get(), chain, 1, signer.get(), nullptr));
  return ctx;
}

std::string u16(unsigned value) { return {static_cast<char>(value >> 8), static_cast<char>(value)}; }
std::string vec8(const std::string &bytes) { return static_cast<char>(bytes.size()) + bytes; }
std::string vec16(const std::string &bytes) { return u16(static_cast<unsigned>(bytes.size())) + bytes; }
std::string entry(unsigned type, char kind, const std::string &body) {
  return u16(type) + std::string{kind, 0, 0} + vec16(body) + vec8("");
}

// The least template that offers TLS 1.3 with delegated credentials.
std::string template_of(const Case &what) {
  std::string entries = entry(10, 0, vec16(u16(0x001d))) + entry(13, 0, vec16(u16(kEcdsaP256) + u16(kEcdsaP384))) +
                        entry(43, 0, vec8(u16(0x0304))) + entry(51, 1, "");
  if (what.offered) entries += entry(34, 0, vec16(u16(kEcdsaP256)));
  if (what.resuming) entries += entry(45, 0, vec8(std::string(1, '\1')));
  return std::string("\x01") + u16(0x0301) + std::string(1, '\0') + vec16(u16(0x1301)) +
         vec8(std::string(1, '\0')) + vec16(u16(0x001d)) + vec16("") + vec16("") + std::string(1, '\0') +
         vec16(entries);
}

Done shake(const Case &what) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Origin listening;
  Done connected = engine.run(connect_op(client.stream, {loopback(listening.port())}));
  REQUIRE_STATUS(connected, PTL_OK);
  Peer origin = listening.accept();
  ptl_hello hello = default_hello();
  std::string bytes = template_of(what);
  hello.template_bytes = reinterpret_cast<const uint8_t *>(bytes.data());
  hello.template_len = bytes.size();
  ClientContext context = new_client_context(hello, nullptr, 0);
  bssl::UniquePtr<SSL_CTX> server = server_with(what);
  uint64_t tag = engine.submit(connect_tls_op(connected->stream, context.get(), "origin.test"));
  origin.be_server(server.get());
  origin.handshake();
  return engine.await(tag);
}

enum class Came { kToNothing, kFull, kResumed };

// Both ends of a connection in memory, as the library itself has them: it knows about clocks.
struct Clocked {
  explicit Clocked(const Case &what) : server(server_with(what)), client(SSL_CTX_new(TLS_method())) {
    std::string bytes = template_of(what);
    size_t offset;
    hello.reset(SSL_CLIENT_HELLO_TEMPLATE_parse(reinterpret_cast<const uint8_t *>(bytes.data()),
                                                bytes.size(), &offset));
    REQUIRE(hello);
    for (SSL_CTX *ctx : {server.get(), client.get()}) SSL_CTX_set_current_time_cb(ctx, now);
    SSL_CTX_set_custom_verify(client.get(), SSL_VERIFY_PEER,
                              [](SSL *, uint8_t *) { return ssl_verify_ok; });
    SSL_CTX_set_session_cache_mode(client.get(), SSL_SESS_CACHE_CLIENT);
    SSL_CTX_sess_set_new_cb(client.get(), [](SSL *, SSL_SESSION *session) {
      kept.reset(session);
      return 1;
    });
  }

  // connect makes one connection, which keeps its newest session in |kept|.
  Came connect(SSL_SESSION *session) {
    bssl::UniquePtr<SSL> near(SSL_new(client.get())), far(SSL_new(server.get()));
    BIO *a, *b;
    REQUIRE(BIO_new_bio_pair(&a, 0, &b, 0));
    SSL_set_bio(near.get(), a, a);
    SSL_set_bio(far.get(), b, b);
    SSL_set_connect_state(near.get());
    SSL_set_accept_state(far.get());
    REQUIRE(SSL_set1_client_hello_template(near.get(), hello.get()));
    if (session != nullptr) REQUIRE(SSL_set_session(near.get(), session));
    bool near_done = false, far_done = false;
    for (int turn = 0; turn < 10 && !(near_done && far_done); turn++) {
      near_done = SSL_do_handshake(near.get()) == 1;
      far_done = SSL_do_handshake(far.get()) == 1;
    }
    if (!near_done || !far_done) return Came::kToNothing;
    char byte = 'x';
    REQUIRE(SSL_write(far.get(), &byte, 1) == 1 && SSL_read(near.get(), &byte, 1) == 1);  // and its tickets
    return SSL_session_reused(near.get()) == 1 ? Came::kResumed : Came::kFull;
  }

  static void now(const SSL *, timeval *out) {
    out->tv_sec = time(nullptr) + later;
    out->tv_usec = 0;
  }

  static inline long later = 0;
  static inline bssl::UniquePtr<SSL_SESSION> kept;
  bssl::UniquePtr<SSL_CTX> server, client;
  bssl::UniquePtr<SSL_CLIENT_HELLO_TEMPLATE> hello;
};

void check_refused(const Case &what) {
  Done done = shake(what);
  CHECK_STATUS(done, PTL_E_TLS);
}

}  // namespace

TEST(a_good_credential_is_taken) {
  Done done = shake({});
  CHECK_STATUS(done, PTL_OK);
  CHECK_EQ(done->sigalg, kEcdsaP256);
}

TEST(without_an_offer_the_certificate_is_used) {
  Case what;
  what.offered = false;
  CHECK_STATUS(shake(what), PTL_OK);
}

TEST(a_wrong_signature_is_refused) {
  Case what;
  what.good_signature = false;
  check_refused(what);
}

TEST(a_credential_whose_time_is_over_is_refused) {
  Case what;
  what.valid_seconds = kDay - 60;
  check_refused(what);
}

TEST(a_credential_for_more_than_seven_days_is_refused) {
  Case what;
  what.valid_seconds = 8 * kDay + 60;
  check_refused(what);
}

TEST(a_certificate_that_may_not_delegate_is_refused) {
  Case what;
  what.delegation_usage = false;
  check_refused(what);
}

TEST(a_session_lives_as_long_as_the_credential_at_most) {
  Case what;
  what.resuming = true;
  what.valid_seconds = kDay + kDay / 2;  // from a day ago
  for (bool delegated : {true, false}) {
    what.offered = delegated;
    Clocked pair(what);
    Clocked::later = 0;
    CHECK(pair.connect(nullptr) == Came::kFull);
    CHECK_EQ(SSL_SESSION_get_timeout(Clocked::kept.get()) <= uint32_t{kDay / 2}, delegated);
    Clocked::later = kDay / 4;
    bssl::UniquePtr<SSL_SESSION> first = std::move(Clocked::kept);
    CHECK(pair.connect(first.get()) == Came::kResumed);
    // It is renewed by being used, and not beyond that time.
    bssl::UniquePtr<SSL_SESSION> second = std::move(Clocked::kept);
    CHECK_EQ(SSL_SESSION_get_timeout(second.get()) <= uint32_t{kDay / 4}, delegated);
    // Then the credential is over: its session is not offered, and the handshake in full fails by it.
    Clocked::later = kDay / 2 + 60;
    CHECK(pair.connect(second.get()) == (delegated ? Came::kToNothing : Came::kResumed));
    Clocked::kept.reset();
  }
}
