#include "certificates.h"

#include <openssl/bytestring.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include <atomic>

#include "check.h"

namespace test {

namespace {

constexpr int kSecondsPerDay = 24 * 60 * 60;

void must(bool good, const char *what) {
  if (!good) throw GaveUp(std::string("certificates: ") + what);
}

bssl::UniquePtr<EVP_PKEY> new_key(bool rsa) {
  bssl::UniquePtr<EVP_PKEY> key(EVP_PKEY_new());
  if (rsa) {
    bssl::UniquePtr<RSA> made(RSA_new());
    bssl::UniquePtr<BIGNUM> exponent(BN_new());
    must(BN_set_word(exponent.get(), RSA_F4), "an RSA exponent");
    must(RSA_generate_key_ex(made.get(), 2048, exponent.get(), nullptr), "an RSA key");
    EVP_PKEY_set1_RSA(key.get(), made.get());
  } else {
    bssl::UniquePtr<EC_KEY> made(EC_KEY_new_by_curve_name(NID_X9_62_prime256v1));
    must(EC_KEY_generate_key(made.get()), "a P-256 key");
    EVP_PKEY_set1_EC_KEY(key.get(), made.get());
  }
  return key;
}

void add_extension(X509 *certificate, X509 *issuer, int nid, const std::string &value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  bssl::UniquePtr<X509_EXTENSION> extension(
      X509V3_EXT_nconf_nid(nullptr, &context, nid, const_cast<char *>(value.c_str())));
  must(extension && X509_add_ext(certificate, extension.get(), -1), value.c_str());
}

bssl::UniquePtr<X509> unsigned_certificate(const std::string &name, EVP_PKEY *key, const X509_NAME *issuer,
                                           int from_days, int until_days) {
  static std::atomic<int> last_serial{0};
  bssl::UniquePtr<X509> certificate(X509_new());
  X509_set_version(certificate.get(), X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), ++last_serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), static_cast<long>(from_days) * kSecondsPerDay);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), static_cast<long>(until_days) * kSecondsPerDay);
  X509_NAME *subject = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, reinterpret_cast<const uint8_t *>(name.data()),
                             static_cast<ossl_ssize_t>(name.size()), -1, 0);
  X509_set_issuer_name(certificate.get(), issuer != nullptr ? issuer : subject);
  X509_set_pubkey(certificate.get(), key);
  return certificate;
}

std::string to_der(X509 *certificate) {
  uint8_t *bytes = nullptr;
  int size = i2d_X509(certificate, &bytes);
  must(size > 0, "DER");
  std::string der(reinterpret_cast<char *>(bytes), static_cast<size_t>(size));
  OPENSSL_free(bytes);
  return der;
}

}  // namespace

std::string Identity::key_pkcs8() const {
  bssl::ScopedCBB cbb;
  must(CBB_init(cbb.get(), 256) && EVP_marshal_private_key(cbb.get(), key.get()), "PKCS#8");
  return std::string(reinterpret_cast<const char *>(CBB_data(cbb.get())), CBB_len(cbb.get()));
}

Authority::Authority(const std::string &name)
    : key_(new_key(false)), certificate_(unsigned_certificate(name, key_.get(), nullptr, -1, 3650)) {
  X509 *root = certificate_.get();
  add_extension(root, root, NID_basic_constraints, "critical,CA:TRUE");
  add_extension(root, root, NID_key_usage, "critical,keyCertSign,cRLSign");
  add_extension(root, root, NID_subject_key_identifier, "hash");
  must(X509_sign(root, key_.get(), EVP_sha256()) > 0, "signing");
  der_ = to_der(root);
}

Identity Authority::issue(const LeafSpec &spec) const {
  Identity identity;
  identity.key = new_key(spec.rsa);
  const X509_NAME *issuer = spec.self_signed ? nullptr : X509_get_subject_name(certificate_.get());
  bssl::UniquePtr<X509> leaf =
      unsigned_certificate(spec.dns, identity.key.get(), issuer, spec.from_days, spec.until_days);
  X509 *issuing = spec.self_signed ? leaf.get() : certificate_.get();
  add_extension(leaf.get(), issuing, NID_basic_constraints, "critical,CA:FALSE");
  if (!spec.key_usage.empty()) {
    add_extension(leaf.get(), issuing, NID_key_usage, "critical," + spec.key_usage);
  }
  if (!spec.extended_key_usage.empty()) {
    add_extension(leaf.get(), issuing, NID_ext_key_usage, spec.extended_key_usage);
  }
  std::string names = spec.ip.empty() ? "DNS:" + spec.dns : "IP:" + spec.ip;
  add_extension(leaf.get(), issuing, NID_subject_alt_name, names);
  if (spec.padding != 0) {
    add_extension(leaf.get(), issuing, NID_netscape_comment, std::string(spec.padding, 'x'));
  }
  EVP_PKEY *signer = spec.self_signed ? identity.key.get() : key_.get();
  must(X509_sign(leaf.get(), signer, EVP_sha256()) > 0, "signing");
  identity.chain.push_back(to_der(leaf.get()));
  return identity;
}

}  // namespace test
