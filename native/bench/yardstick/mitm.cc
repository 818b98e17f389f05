#include "yardstick/mitm.h"

#include <openssl/nid.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>

#include "common/net.h"

namespace bench {
namespace {

const uint16_t kPostQuantum[] = {SSL_GROUP_X25519_MLKEM768, SSL_GROUP_X25519, SSL_GROUP_SECP256R1};

bssl::UniquePtr<SSL_CTX> make_context(CRYPTO_BUFFER_POOL *pool, bool post_quantum) {
  bssl::UniquePtr<SSL_CTX> context(SSL_CTX_new(TLS_with_buffers_method()));
  SSL_CTX_set0_buffer_pool(context.get(), pool);
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_TICKET);
  if (post_quantum) SSL_CTX_set1_group_ids(context.get(), kPostQuantum, 3);
  return context;
}

}  // namespace

Mitm::Mitm(const MitmOptions &options)
    : pool_(CRYPTO_BUFFER_POOL_new()),
      root_(make_authority("yardstick root")),
      leaf_key_(make_key()),
      trusted_(X509_STORE_new()),
      client_side_(make_context(pool_.get(), options.post_quantum)),
      upstream_side_(make_context(pool_.get(), options.post_quantum)) {
  if (!X509_STORE_load_locations(trusted_.get(), options.trusted_pem.c_str(), nullptr)) {
    die("--ca: cannot read certificates from " + options.trusted_pem);
  }
  SSL_CTX_set_app_data(upstream_side_.get(), reinterpret_cast<char *>(this));
  SSL_CTX_set_custom_verify(upstream_side_.get(), SSL_VERIFY_PEER, verify);
}

bool Mitm::give_leaf(SSL *ssl, const std::string &name) {
  std::lock_guard<std::mutex> hold(lock_);
  auto &leaf = leaves_[name];
  if (!leaf) leaf = to_buffer(make_bare_leaf(name, leaf_key_.get(), root_).get(), pool_.get());
  CRYPTO_BUFFER *chain = leaf.get();
  return SSL_set_chain_and_key(ssl, &chain, 1, leaf_key_.get(), nullptr);
}

ssl_verify_result_t Mitm::verify(SSL *ssl, uint8_t *) {
  auto *self = reinterpret_cast<Mitm *>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  const STACK_OF(CRYPTO_BUFFER) *chain = SSL_get0_peer_certificates(ssl);
  std::string key = name ? name : "";
  for (size_t i = 0; i < sk_CRYPTO_BUFFER_num(chain); i++) {
    const CRYPTO_BUFFER *certificate = sk_CRYPTO_BUFFER_value(chain, i);
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256(CRYPTO_BUFFER_data(certificate), CRYPTO_BUFFER_len(certificate), digest);
    key.append(reinterpret_cast<char *>(digest), sizeof digest);
  }
  {
    std::lock_guard<std::mutex> hold(self->lock_);
    if (self->verified_.count(key)) return ssl_verify_ok;
  }
  if (!self->verify_chain(chain, name ? name : "")) return ssl_verify_invalid;
  std::lock_guard<std::mutex> hold(self->lock_);
  self->verified_.insert(key);
  return ssl_verify_ok;
}

bool Mitm::verify_chain(const STACK_OF(CRYPTO_BUFFER) *chain, const std::string &name) {
  bssl::UniquePtr<STACK_OF(X509)> others(sk_X509_new_null());
  bssl::UniquePtr<X509> leaf;
  for (size_t i = 0; i < sk_CRYPTO_BUFFER_num(chain); i++) {
    bssl::UniquePtr<X509> parsed(X509_parse_from_buffer(sk_CRYPTO_BUFFER_value(chain, i)));
    if (!parsed) return false;
    if (i == 0) leaf = std::move(parsed);
    else bssl::PushToStack(others.get(), std::move(parsed));
  }
  bssl::UniquePtr<X509_STORE_CTX> context(X509_STORE_CTX_new());
  if (!leaf || !X509_STORE_CTX_init(context.get(), trusted_.get(), leaf.get(), others.get())) return false;
  X509_STORE_CTX_set_default(context.get(), "ssl_server");
  X509_VERIFY_PARAM_set1_host(X509_STORE_CTX_get0_param(context.get()), name.data(), name.size());
  return X509_verify_cert(context.get()) == 1;
}

}  // namespace bench
