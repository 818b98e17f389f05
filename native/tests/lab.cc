#include "lab.h"

#include <openssl/pool.h>
#include <string.h>

#include "check.h"

namespace test {

namespace {

template <typename T>
T *made(T *object, const char *error) {
  if (object == nullptr) throw GaveUp(error);
  return object;
}

struct Ders {
  explicit Ders(const std::vector<std::string> &texts) {
    for (const std::string &text : texts) {
      bytes.push_back(reinterpret_cast<const uint8_t *>(text.data()));
      lengths.push_back(text.size());
    }
  }
  std::vector<const uint8_t *> bytes;
  std::vector<size_t> lengths;
};

int choose(SSL *, const uint8_t **out, uint8_t *out_len, const uint8_t *in, unsigned in_len, void *argument) {
  const auto *wanted = static_cast<const std::string *>(argument);
  for (unsigned i = 0; i < in_len; i += 1u + in[i]) {
    if (std::string(reinterpret_cast<const char *>(in + i + 1), in[i]) != *wanted) continue;
    *out = in + i + 1;
    *out_len = in[i];
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

}  // namespace

ptl_hello default_hello() {
  ptl_hello hello;
  memset(&hello, 0, sizeof(hello));
  hello.min_version = TLS1_2_VERSION;
  hello.max_version = TLS1_3_VERSION;
  hello.session_tickets = 1;
  return hello;
}

Trust new_trust(const std::vector<std::string> &roots, uint32_t cache_ms, uint32_t cache_max) {
  Ders ders(roots);
  char error[200] = "";
  size_t added = 0;
  Trust trust(made(ptl_trust_new(ders.bytes.data(), ders.lengths.data(), roots.size(), cache_ms, cache_max,
                                 &added, error, sizeof(error)),
                   error));
  CHECK_EQ(added, roots.size());
  return trust;
}

ClientContext new_client_context(const ptl_hello &hello, ptl_trust *trust, int verify) {
  char error[200] = "";
  return ClientContext(made(ptl_client_context_new(&hello, trust, verify, error, sizeof(error)), error));
}

ServerContext new_server_context() {
  char error[200] = "";
  return ServerContext(made(ptl_server_context_new(error, sizeof(error)), error));
}

Credential new_credential(const Identity &identity) {
  Ders ders(identity.chain);
  std::string key = identity.key_pkcs8();
  char error[200] = "";
  return Credential(made(ptl_credential_new(ders.bytes.data(), ders.lengths.data(), ders.bytes.size(),
                                            reinterpret_cast<const uint8_t *>(key.data()), key.size(), error,
                                            sizeof(error)),
                         error));
}

bssl::UniquePtr<SSL_CTX> peer_server(const Identity &identity, uint16_t max_version) {
  bssl::UniquePtr<SSL_CTX> ctx(SSL_CTX_new(TLS_method()));
  std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> owned;
  std::vector<CRYPTO_BUFFER *> chain;
  for (const std::string &der : identity.chain) {
    owned.emplace_back(
        CRYPTO_BUFFER_new(reinterpret_cast<const uint8_t *>(der.data()), der.size(), nullptr));
    chain.push_back(owned.back().get());
  }
  if (!SSL_CTX_set_chain_and_key(ctx.get(), chain.data(), chain.size(), identity.key.get(), nullptr)) {
    throw GaveUp("a peer's certificate does not fit");
  }
  SSL_CTX_set_min_proto_version(ctx.get(), TLS1_VERSION);
  SSL_CTX_set_max_proto_version(ctx.get(), max_version);
  return ctx;
}

bssl::UniquePtr<SSL_CTX> peer_client(uint16_t max_version) {
  bssl::UniquePtr<SSL_CTX> ctx(SSL_CTX_new(TLS_method()));
  SSL_CTX_set_min_proto_version(ctx.get(), TLS1_VERSION);
  SSL_CTX_set_max_proto_version(ctx.get(), max_version);
  SSL_CTX_set_verify(ctx.get(), SSL_VERIFY_NONE, nullptr);
  return ctx;
}

void offer_alpn(SSL_CTX *ctx, const std::string &wire) {
  SSL_CTX_set_alpn_protos(ctx, reinterpret_cast<const uint8_t *>(wire.data()), wire.size());
}

void choose_alpn(SSL_CTX *ctx, const std::string *protocol) {
  SSL_CTX_set_alpn_select_cb(ctx, choose, const_cast<std::string *>(protocol));
}

Lab &lab() {
  static auto *one = new Lab();
  return *one;
}

}  // namespace test
