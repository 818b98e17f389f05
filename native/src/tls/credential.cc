#include "tls/credential.h"

#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pool.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <vector>

#include "base/guard.h"
#include "base/text.h"

namespace {

// Leaf keys are few and shared by every leaf, so that parsing one again for each new host would be waste.
// What is remembered is the hash of the encoding, never the encoding.
class KeyCache {
 public:
  bssl::UniquePtr<EVP_PKEY> get(const uint8_t *der, size_t der_len) {
    std::array<uint8_t, 32> id;
    SHA256(der, der_len, id.data());
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = keys_.find(id);
    if (found != keys_.end()) return bssl::UpRef(found->second);
    CBS cbs;
    CBS_init(&cbs, der, der_len);
    bssl::UniquePtr<EVP_PKEY> key(EVP_parse_private_key(&cbs));
    if (!key || CBS_len(&cbs) != 0) return nullptr;
    if (keys_.size() >= kMaxKeys) keys_.erase(keys_.begin());
    keys_[id] = bssl::UpRef(key);
    return key;
  }

 private:
  static constexpr size_t kMaxKeys = 16;
  std::mutex mutex_;
  std::map<std::array<uint8_t, 32>, bssl::UniquePtr<EVP_PKEY>> keys_;
};

KeyCache *key_cache() {
  static auto *cache = new KeyCache();  // never destroyed: threads may outlive static destruction
  return cache;
}

// Issuers are the same for every leaf of an authority.
CRYPTO_BUFFER_POOL *issuer_pool() {
  static CRYPTO_BUFFER_POOL *pool = CRYPTO_BUFFER_POOL_new();
  return pool;
}

}  // namespace

bssl::UniquePtr<SSL_CREDENTIAL> ptl_credential::make() const {
  bssl::UniquePtr<SSL_CREDENTIAL> credential(SSL_CREDENTIAL_new_x509());
  bssl::UniquePtr<CRYPTO_BUFFER> leaf(CRYPTO_BUFFER_new(leaf_.get(), leaf_len_, nullptr));
  std::vector<CRYPTO_BUFFER *> chain(1, leaf.get());
  for (const auto &issuer : issuers_) chain.push_back(issuer.get());
  if (!credential || !leaf || !SSL_CREDENTIAL_set1_private_key(credential.get(), key_.get()) ||
      !SSL_CREDENTIAL_set1_cert_chain(credential.get(), chain.data(), chain.size())) {
    return nullptr;
  }
  return credential;
}

ptl_credential *ptl_credential_new(const uint8_t *const *chain, const size_t *chain_lens,
                                   size_t num_chain, const uint8_t *key, size_t key_len, char *err,
                                   size_t err_len) {
  return ptl::guarded(err, err_len, [&]() -> ptl_credential *{
    auto fail = [&](const char *why) -> ptl_credential * {
      ERR_clear_error();
      ptl::put_text(err, err_len, why);
      return nullptr;
    };
    if (num_chain == 0) return fail("a credential needs a certificate");
    bssl::UniquePtr<EVP_PKEY> private_key = key_cache()->get(key, key_len);
    if (!private_key) return fail("the private key is not a PKCS#8 key of a known kind");
    std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> issuers;
    for (size_t i = 1; i < num_chain; i++) {
      issuers.emplace_back(CRYPTO_BUFFER_new(chain[i], chain_lens[i], issuer_pool()));
      if (!issuers.back()) return fail("out of memory");
    }
    auto leaf = std::make_unique<uint8_t[]>(chain_lens[0]);
    std::copy_n(chain[0], chain_lens[0], leaf.get());
    auto *credential =
        new ptl_credential(std::move(leaf), chain_lens[0], std::move(issuers), std::move(private_key));
    if (credential->make()) return credential;
    credential->release();
    return fail("the certificate cannot be parsed, or does not match the private key");
  });
}

void ptl_credential_free(ptl_credential *credential) {
  if (credential != nullptr) credential->release();
}
