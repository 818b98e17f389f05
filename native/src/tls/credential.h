// A certificate chain and its private key, from which is made what a connection shows to its client.
//
// There may be one for each host that was ever seen, and most of them wait for a host to be seen again. So one is the
// bytes of its leaf and little else: what BoringSSL makes of it is as large again, and made in less than a microsecond.
#ifndef POLYTLS_SRC_TLS_CREDENTIAL_H
#define POLYTLS_SRC_TLS_CREDENTIAL_H

#include <openssl/base.h>
#include <openssl/ssl.h>

#include <memory>
#include <utility>
#include <vector>

#include "base/ref.h"
#include "polytls/native.h"

struct ptl_credential : public ptl::RefCounted<ptl_credential> {
 public:
  // |leaf| is DER; |issuers|, which follow it, are as few as the authorities and shared by their leaves.
  ptl_credential(std::unique_ptr<uint8_t[]> leaf, size_t leaf_len,
                 std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> issuers, bssl::UniquePtr<EVP_PKEY> key)
      : leaf_(std::move(leaf)), leaf_len_(leaf_len), issuers_(std::move(issuers)), key_(std::move(key)) {}
  ~ptl_credential() = default;

  // make returns what a connection shows; null when memory is short, or when certificate and key do not fit, which
  // is found out when a credential is new.
  bssl::UniquePtr<SSL_CREDENTIAL> make() const;

 private:
  const std::unique_ptr<uint8_t[]> leaf_;
  const size_t leaf_len_;
  const std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> issuers_;
  const bssl::UniquePtr<EVP_PKEY> key_;
};

#endif
