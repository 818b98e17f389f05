#include "common/certificates.h"

#include <openssl/bytestring.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "common/net.h"

namespace bench {
namespace {

constexpr long kHour = 3600, kValid = 30 * 24 * kHour;

void add_extension(X509 *to, X509 *issuer, int nid, const std::string &value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, to, nullptr, nullptr, 0);
  bssl::UniquePtr<X509_EXTENSION> made(X509V3_EXT_nconf_nid(nullptr, &context, nid, value.c_str()));
  if (!made || !X509_add_ext(to, made.get(), -1)) die("cannot add an extension: " + value);
}

// Everything but extensions and signature.
bssl::UniquePtr<X509> blank(const std::string &name, EVP_PKEY *key) {
  bssl::UniquePtr<X509> made(X509_new());
  X509_set_version(made.get(), X509_VERSION_3);
  uint64_t serial = 0;
  RAND_bytes(reinterpret_cast<uint8_t *>(&serial), sizeof serial);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(made.get()), serial >> 1);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), -kHour);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), kValid);
  X509_set_pubkey(made.get(), key);
  X509_NAME_add_entry_by_NID(X509_get_subject_name(made.get()), NID_commonName, MBSTRING_UTF8,
                             reinterpret_cast<const uint8_t *>(name.data()), static_cast<ossl_ssize_t>(name.size()), -1, 0);
  return made;
}

void sign(X509 *certificate, X509 *issuer, EVP_PKEY *key) {
  X509_set_issuer_name(certificate, X509_get_subject_name(issuer));
  if (!X509_sign(certificate, key, EVP_sha256())) die("cannot sign a certificate");
}

}  // namespace

bssl::UniquePtr<EVP_PKEY> make_key() {
  bssl::UniquePtr<EC_KEY> curve(EC_KEY_new_by_curve_name(NID_X9_62_prime256v1));
  bssl::UniquePtr<EVP_PKEY> key(EVP_PKEY_new());
  if (!curve || !EC_KEY_generate_key(curve.get()) || !EVP_PKEY_set1_EC_KEY(key.get(), curve.get())) die("cannot make a key");
  return key;
}

Authority make_authority(const std::string &name, const Authority *signer) {
  Authority made;
  made.key = make_key();
  made.certificate = blank(name, made.key.get());
  X509 *issuer = signer ? signer->certificate.get() : made.certificate.get();
  add_extension(made.certificate.get(), issuer, NID_basic_constraints, "critical,CA:TRUE");
  add_extension(made.certificate.get(), issuer, NID_key_usage, "critical,keyCertSign,cRLSign");
  add_extension(made.certificate.get(), issuer, NID_subject_key_identifier, "hash");
  sign(made.certificate.get(), issuer, signer ? signer->key.get() : made.key.get());
  return made;
}

bssl::UniquePtr<X509> make_leaf(const std::vector<std::string> &names, EVP_PKEY *key, const Authority &signer) {
  bssl::UniquePtr<X509> made = blank(names.front(), key);
  std::string all;
  for (const std::string &name : names) {
    all += all.empty() ? "" : ",";
    all += name.rfind("IP:", 0) == 0 ? name : "DNS:" + name;
  }
  X509 *issuer = signer.certificate.get();
  add_extension(made.get(), issuer, NID_subject_alt_name, all);
  add_extension(made.get(), issuer, NID_basic_constraints, "critical,CA:FALSE");
  add_extension(made.get(), issuer, NID_key_usage, "critical,digitalSignature");
  add_extension(made.get(), issuer, NID_ext_key_usage, "serverAuth");
  add_extension(made.get(), issuer, NID_authority_key_identifier, "keyid:always");
  sign(made.get(), issuer, signer.key.get());
  return made;
}

bssl::UniquePtr<X509> make_bare_leaf(const std::string &name, EVP_PKEY *key, const Authority &signer) {
  bssl::UniquePtr<X509> made = blank(name, key);
  add_extension(made.get(), signer.certificate.get(), NID_subject_alt_name, "DNS:" + name);
  sign(made.get(), signer.certificate.get(), signer.key.get());
  return made;
}

bssl::UniquePtr<CRYPTO_BUFFER> to_buffer(X509 *certificate, CRYPTO_BUFFER_POOL *pool) {
  uint8_t *der = nullptr;
  int size = i2d_X509(certificate, &der);
  if (size < 0) die("cannot encode a certificate");
  bssl::UniquePtr<uint8_t> owned(der);
  return bssl::UniquePtr<CRYPTO_BUFFER>(CRYPTO_BUFFER_new(der, static_cast<size_t>(size), pool));
}

void write_pem(X509 *certificate, const std::string &path) {
  FILE *file = fopen(path.c_str(), "w");
  if (file == nullptr || !PEM_write_X509(file, certificate) || fclose(file) != 0) die("cannot write " + path);
}

void write_pem(EVP_PKEY *key, const std::string &path) {
  FILE *file = fopen(path.c_str(), "w");
  if (file == nullptr || !PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr) || fclose(file) != 0) {
    die("cannot write " + path);
  }
}

}  // namespace bench
