// A certificate chain and its private key, ready to be shown to clients.
#ifndef POLYTLS_SRC_TLS_CREDENTIAL_H
#define POLYTLS_SRC_TLS_CREDENTIAL_H

#include <openssl/base.h>
#include <openssl/ssl.h>

#include "base/ref.h"
#include "polytls/native.h"

struct ptl_credential : public ptl::RefCounted<ptl_credential> {
 public:
  explicit ptl_credential(bssl::UniquePtr<SSL_CREDENTIAL> credential)
      : credential_(std::move(credential)) {}
  ~ptl_credential() = default;

  const SSL_CREDENTIAL *get() const { return credential_.get(); }

 private:
  bssl::UniquePtr<SSL_CREDENTIAL> credential_;
};

#endif
