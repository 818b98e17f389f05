#include "tls/credential.h"

#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pool.h>
#include <openssl/sha.h>

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

}  // namespace

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
    bssl::UniquePtr<SSL_CREDENTIAL> credential(SSL_CREDENTIAL_new_x509());
    std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> owned;
    std::vector<CRYPTO_BUFFER *> buffers;
    for (size_t i = 0; i < num_chain; i++) {
      owned.emplace_back(CRYPTO_BUFFER_new(chain[i], chain_lens[i], nullptr));
      if (!owned.back()) return fail("out of memory");
      buffers.push_back(owned.back().get());
    }
    if (!credential || !SSL_CREDENTIAL_set1_private_key(credential.get(), private_key.get())) {
      return fail("the private key cannot be used for TLS");
    }
    if (!SSL_CREDENTIAL_set1_cert_chain(credential.get(), buffers.data(), buffers.size())) {
      return fail("the certificate cannot be parsed, or does not match the private key");
    }
    return new ptl_credential(std::move(credential));
  });
}

void ptl_credential_free(ptl_credential *credential) {
  if (credential != nullptr) credential->release();
}
