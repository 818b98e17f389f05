// P-256 keys and certificates made while running: of the origin, and of the yardstick's leaves.
#ifndef POLYTLS_BENCH_COMMON_CERTIFICATES_H
#define POLYTLS_BENCH_COMMON_CERTIFICATES_H

#include <openssl/pool.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <string>
#include <vector>

namespace bench {

bssl::UniquePtr<EVP_PKEY> make_key();

struct Authority {
  bssl::UniquePtr<X509> certificate;
  bssl::UniquePtr<EVP_PKEY> key;
};

// make_authority returns a CA of its own, or one that |signer| signed.
Authority make_authority(const std::string &name, const Authority *signer = nullptr);

// make_leaf returns a server certificate for |names| (DNS names, or "IP:..." ) and |key|.
bssl::UniquePtr<X509> make_leaf(const std::vector<std::string> &names, EVP_PKEY *key, const Authority &signer);

// make_bare_leaf is the least that a client takes: one name, nothing else. The yardstick mints these.
bssl::UniquePtr<X509> make_bare_leaf(const std::string &name, EVP_PKEY *key, const Authority &signer);

bssl::UniquePtr<CRYPTO_BUFFER> to_buffer(X509 *certificate, CRYPTO_BUFFER_POOL *pool);
// write_pem dies when it cannot write |path|.
void write_pem(X509 *certificate, const std::string &path);
void write_pem(EVP_PKEY *key, const std::string &path);

}  // namespace bench

#endif
