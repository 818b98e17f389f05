// The two TLS contexts of the yardstick: leaves minted per name, upstream verified once per name and chain.
#ifndef POLYTLS_BENCH_YARDSTICK_MITM_H
#define POLYTLS_BENCH_YARDSTICK_MITM_H

#include <openssl/ssl.h>

#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "common/certificates.h"

namespace bench {

struct MitmOptions {
  std::string trusted_pem;
  bool post_quantum = false;  // X25519MLKEM768 before X25519, on both sides
};

class Mitm {
 public:
  explicit Mitm(const MitmOptions &options);  // dies when the trusted certificates cannot be read

  SSL_CTX *client_side() { return client_side_.get(); }
  SSL_CTX *upstream_side() { return upstream_side_.get(); }

  bool give_leaf(SSL *ssl, const std::string &name);

 private:
  static ssl_verify_result_t verify(SSL *ssl, uint8_t *out_alert);
  bool verify_chain(const STACK_OF(CRYPTO_BUFFER) *chain, const std::string &name);

  bssl::UniquePtr<CRYPTO_BUFFER_POOL> pool_;
  Authority root_;
  bssl::UniquePtr<EVP_PKEY> leaf_key_;
  bssl::UniquePtr<X509_STORE> trusted_;
  bssl::UniquePtr<SSL_CTX> client_side_, upstream_side_;
  std::mutex lock_;
  std::unordered_map<std::string, bssl::UniquePtr<CRYPTO_BUFFER>> leaves_;
  std::unordered_set<std::string> verified_;
};

}  // namespace bench

#endif
