// Certificates of a laboratory, made when a test starts.
#ifndef POLYTLS_TESTS_CERTIFICATES_H
#define POLYTLS_TESTS_CERTIFICATES_H

#include <openssl/base.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <string>
#include <vector>

namespace test {

// What a leaf says. Days count from now.
struct LeafSpec {
  std::string dns = "origin.test";
  std::string ip = "";
  int from_days = -1;
  int until_days = 30;
  std::string extended_key_usage = "serverAuth";
  std::string key_usage = "digitalSignature";
  bool rsa = false;
  bool self_signed = false;
  size_t padding = 0;  // bytes of a comment: to make it large
};

// A chain in DER, leaf first, and the leaf's key.
struct Identity {
  bssl::UniquePtr<EVP_PKEY> key;
  std::vector<std::string> chain;

  std::string key_pkcs8() const;
};

// An Authority is a self-signed root that issues leaves.
class Authority {
 public:
  explicit Authority(const std::string &name);

  const std::string &der() const { return der_; }
  Identity issue(const LeafSpec &spec) const;

 private:
  bssl::UniquePtr<EVP_PKEY> key_;
  bssl::UniquePtr<X509> certificate_;
  std::string der_;
};

}  // namespace test

#endif
