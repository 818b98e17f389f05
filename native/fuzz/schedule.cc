#include "schedule.h"

#include <openssl/aead.h>
#include <openssl/bn.h>
#include <openssl/curve25519.h>
#include <openssl/digest.h>
#include <openssl/ec_key.h>
#include <openssl/hkdf.h>
#include <openssl/hmac.h>
#include <openssl/nid.h>
#include <openssl/sha.h>

#include "fuzz.h"

namespace fuzz {

namespace {

constexpr size_t kHash = SHA256_DIGEST_LENGTH;
constexpr size_t kKey = 16;
constexpr size_t kIv = 12;
constexpr size_t kTag = 16;
constexpr size_t kShare = 32;

const uint8_t *bytes_of(const std::string &text) { return reinterpret_cast<const uint8_t *>(text.data()); }
uint8_t *space_of(std::string *text) { return reinterpret_cast<uint8_t *>(&(*text)[0]); }

std::string sha256(const std::string &input) {
  std::string out(kHash, '\0');
  SHA256(bytes_of(input), input.size(), space_of(&out));
  return out;
}

std::string extract(const std::string &secret, const std::string &salt) {
  std::string out(kHash, '\0');
  size_t size = 0;
  FUZZ_CHECK(HKDF_extract(space_of(&out), &size, EVP_sha256(), bytes_of(secret), secret.size(), bytes_of(salt),
                          salt.size()));
  return out;
}

// HKDF-Expand-Label (RFC 8446 §7.1).
std::string expand(const std::string &secret, const std::string &label, const std::string &context, size_t size) {
  std::string whole = "tls13 " + label;
  std::string info = {static_cast<char>(size >> 8), static_cast<char>(size), static_cast<char>(whole.size())};
  info += whole + static_cast<char>(context.size()) + context;
  std::string out(size, '\0');
  FUZZ_CHECK(HKDF_expand(space_of(&out), size, EVP_sha256(), bytes_of(secret), secret.size(), bytes_of(info),
                         info.size()));
  return out;
}

}  // namespace

void Sealer::set(const std::string &secret) {
  secret_ = secret;
  key_ = expand(secret, "key", "", kKey);
  iv_ = expand(secret, "iv", "", kIv);
  number_ = 0;
}

void Sealer::update() { set(expand(secret_, "traffic upd", "", kHash)); }

std::string Sealer::seal(uint8_t type, const std::string &content) {
  std::string inner = content + static_cast<char>(type);
  const size_t size = inner.size() + kTag;
  std::string record = {23, 3, 3, static_cast<char>(size >> 8), static_cast<char>(size)};
  std::string nonce = iv_;
  for (size_t i = 0; i < 8; i++) nonce[kIv - 1 - i] ^= static_cast<char>(number_ >> (8 * i));
  number_++;
  bssl::ScopedEVP_AEAD_CTX ctx;
  FUZZ_CHECK(EVP_AEAD_CTX_init(ctx.get(), EVP_aead_aes_128_gcm(), bytes_of(key_), kKey, kTag, nullptr));
  std::string out(size, '\0');
  size_t written = 0;
  FUZZ_CHECK(EVP_AEAD_CTX_seal(ctx.get(), space_of(&out), &written, size, bytes_of(nonce), kIv, bytes_of(inner),
                               inner.size(), bytes_of(record), record.size()));
  return record + out;
}

void Schedule::retried() {
  transcript_ = std::string({static_cast<char>(254), 0, 0, static_cast<char>(kHash)}) + hash();
}

std::string Schedule::hash() const { return sha256(transcript_); }

bool Schedule::share(const std::string &client_public) {
  if (client_public.size() != kShare) return false;
  const std::string own(kShare, static_cast<char>(kPrivateByte));
  std::string shared(kShare, '\0');
  if (!X25519(space_of(&shared), bytes_of(own), bytes_of(client_public))) return false;
  const std::string zeros(kHash, '\0');
  std::string early = extract(zeros, "");
  handshake_secret_ = extract(shared, expand(early, "derived", sha256(""), kHash));
  server_secret_ = expand(handshake_secret_, "s hs traffic", hash(), kHash);
  handshake_keys.set(server_secret_);
  return true;
}

std::string Schedule::verify_input() const {
  return std::string(64, ' ') + "TLS 1.3, server CertificateVerify" + std::string(1, '\0') + hash();
}

std::string Schedule::finished() const {
  std::string key = expand(server_secret_, "finished", "", kHash);
  std::string input = hash(), mac(kHash, '\0');
  unsigned size = 0;
  HMAC(EVP_sha256(), key.data(), key.size(), bytes_of(input), input.size(), space_of(&mac), &size);
  return std::string({20, 0, 0, static_cast<char>(kHash)}) + mac;
}

void Schedule::application() {
  std::string master = extract(std::string(kHash, '\0'), expand(handshake_secret_, "derived", sha256(""), kHash));
  application_keys.set(expand(master, "s ap traffic", hash(), kHash));
}

std::string sign(const std::string &input) {
  static EVP_PKEY *const key = [] {
    const std::string secret(32, static_cast<char>(kSigningByte));
    bssl::UniquePtr<BIGNUM> number(BN_bin2bn(bytes_of(secret), secret.size(), nullptr));
    bssl::UniquePtr<EC_KEY> ec(EC_KEY_new_by_curve_name(NID_X9_62_prime256v1));
    const EC_GROUP *group = EC_KEY_get0_group(ec.get());
    bssl::UniquePtr<EC_POINT> point(EC_POINT_new(group));
    FUZZ_CHECK(EC_POINT_mul(group, point.get(), number.get(), nullptr, nullptr, nullptr) &&
               EC_KEY_set_private_key(ec.get(), number.get()) && EC_KEY_set_public_key(ec.get(), point.get()));
    EVP_PKEY *made = EVP_PKEY_new();
    FUZZ_CHECK(EVP_PKEY_assign_EC_KEY(made, ec.release()));
    return made;
  }();
  bssl::ScopedEVP_MD_CTX digest;
  std::string signature(128, '\0');
  size_t size = signature.size();
  FUZZ_CHECK(EVP_DigestSignInit(digest.get(), nullptr, EVP_sha256(), nullptr, key) &&
             EVP_DigestSign(digest.get(), space_of(&signature), &size, bytes_of(input), input.size()));
  signature.resize(size);
  return signature;
}

}  // namespace fuzz
