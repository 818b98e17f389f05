#include "tls/trust.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <string.h>

#include <new>

#include "base/clock.h"
#include "base/guard.h"
#include "base/text.h"

using ptl::Verdict;

namespace {

bool is_ip(const std::string &name) {
  uint8_t ip[16];
  return inet_pton(AF_INET, name.c_str(), ip) == 1 || inet_pton(AF_INET6, name.c_str(), ip) == 1;
}

std::string name_text(const X509_NAME *name) {
  char text[256];
  if (X509_NAME_oneline(name, text, sizeof(text)) == nullptr) return "?";
  return text;
}

bssl::UniquePtr<X509> parse(const CRYPTO_BUFFER *buffer) {
  return bssl::UniquePtr<X509>(X509_parse_from_buffer(const_cast<CRYPTO_BUFFER *>(buffer)));
}

bool lacks_issuer(int error) {
  return error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY ||
         error == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE;
}

// signed_itself tells what people call self-signed from what X.509 does: without the right to sign certificates, a
// certificate is not its own issuer, and path building says that the issuer is missing.
bool signed_itself(X509 *certificate) {
  if (X509_NAME_cmp(X509_get_subject_name(certificate), X509_get_issuer_name(certificate)) != 0) return false;
  EVP_PKEY *key = X509_get0_pubkey(certificate);
  return key != nullptr && X509_verify(certificate, key) == 1;
}

std::string detail_of(int error, int depth, const X509 *certificate) {
  return std::string(X509_verify_cert_error_string(error)) + " (depth " + std::to_string(depth) +
         ", subject " + name_text(X509_get_subject_name(certificate)) + ", issuer " +
         name_text(X509_get_issuer_name(certificate)) + ")";
}

// sparing does what can be left undone where memory is short: a verdict is no worse for not being remembered.
template <typename F>
void sparing(F remember) {
  try {
    remember();
  } catch (const std::bad_alloc &) {
  }
}

Verdict refused(int error, std::string detail) { return {false, error, std::move(detail)}; }

}  // namespace

ptl_trust::ptl_trust(uint32_t cache_ms, uint32_t cache_max)
    : cache_ns_(uint64_t{cache_ms} * 1000000u), cache_max_(cache_max), store_(X509_STORE_new()) {
  // A certificate given as trusted is an anchor, whether or not it signed itself: a lab may trust an
  // intermediate or a server's own certificate, as curl lets it.
  if (store_) X509_STORE_set_flags(store_.get(), X509_V_FLAG_PARTIAL_CHAIN);
}

ptl_trust::~ptl_trust() = default;

ptl_trust *ptl_trust::make(uint32_t cache_ms, uint32_t cache_max) {
  auto *trust = new ptl_trust(cache_ms, cache_max);
  if (trust->store_) return trust;
  trust->release();
  return nullptr;
}

bool ptl_trust::add_root(const uint8_t *der, size_t der_len) {
  const uint8_t *in = der;
  bssl::UniquePtr<X509> root(d2i_X509(nullptr, &in, static_cast<long>(der_len)));
  return root && in == der + der_len && X509_STORE_add_cert(store_.get(), root.get()) == 1;
}

size_t ptl_trust::KeyHash::operator()(const Key &key) const {
  size_t hash;  // a key is a SHA-256: any part of it is a hash
  memcpy(&hash, key.data(), sizeof(hash));
  return hash;
}

Verdict ptl_trust::verify(const STACK_OF(CRYPTO_BUFFER) *chain, const std::string &name) {
  if (chain == nullptr || sk_CRYPTO_BUFFER_num(chain) == 0) {
    return refused(X509_V_ERR_UNSPECIFIED, "upstream sent no certificate");
  }
  const bool caches = cache_max_ != 0 && cache_ns_ != 0;
  Key chain_key{}, key{};
  bssl::UniquePtr<X509> leaf;
  uint64_t until_ns = ptl::now_ns() + cache_ns_;  // of the chain, whatever names it is compared with
  if (caches) {
    chain_key = key_of(chain);
    key = key_of(chain_key, name);
    if (remembered(key)) {
      cache_hits_.fetch_add(1, std::memory_order_relaxed);
      return {true, 0, ""};
    }
    leaf = remembered_leaf(chain_key, &until_ns);
  }
  if (leaf) {
    leaf_hits_.fetch_add(1, std::memory_order_relaxed);
  } else {
    leaf = parse(sk_CRYPTO_BUFFER_value(chain, 0));
    if (!leaf) return refused(X509_V_ERR_UNSPECIFIED, "upstream's certificate cannot be parsed");
    Verdict verdict = verify_path(chain, leaf.get());
    if (!verdict.ok) return verdict;
    if (caches) {
      sparing([&] { remember_leaf(chain_key, until_ns, leaf.get()); });
    }
  }
  Verdict verdict = verify_name(leaf.get(), name);
  if (caches && verdict.ok) {
    sparing([&] { remember(key, until_ns); });
  }
  return verdict;
}

ptl_trust::Key ptl_trust::key_of(const STACK_OF(CRYPTO_BUFFER) *chain) {
  Key key;
  SHA256_CTX sha;
  SHA256_Init(&sha);
  for (size_t i = 0; i < sk_CRYPTO_BUFFER_num(chain); i++) {
    const CRYPTO_BUFFER *certificate = sk_CRYPTO_BUFFER_value(chain, i);
    uint64_t length = CRYPTO_BUFFER_len(certificate);
    SHA256_Update(&sha, &length, sizeof(length));
    SHA256_Update(&sha, CRYPTO_BUFFER_data(certificate), CRYPTO_BUFFER_len(certificate));
  }
  SHA256_Final(key.data(), &sha);
  return key;
}

ptl_trust::Key ptl_trust::key_of(const Key &chain, const std::string &name) {
  Key key;
  SHA256_CTX sha;
  SHA256_Init(&sha);
  SHA256_Update(&sha, chain.data(), chain.size());
  SHA256_Update(&sha, name.data(), name.size());
  SHA256_Final(key.data(), &sha);
  return key;
}

bool ptl_trust::remembered(const Key &key) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = cache_.find(key);
  if (found == cache_.end()) return false;
  if (ptl::now_ns() < found->second.until_ns) return true;
  order_.erase(found->second.order);
  cache_.erase(found);
  return false;
}

void ptl_trust::remember(const Key &key, uint64_t until_ns) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (cache_.count(key) != 0) return;
  while (cache_.size() >= cache_max_) {
    cache_.erase(order_.front());
    order_.pop_front();
  }
  std::list<Key> newest(1, key);
  Entry &entry = cache_[key];
  order_.splice(order_.end(), newest);
  entry = {until_ns, std::prev(order_.end())};
}

bssl::UniquePtr<X509> ptl_trust::remembered_leaf(const Key &chain, uint64_t *out_until_ns) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Leaf &one : leaves_) {
    if (one.chain != chain || ptl::now_ns() >= one.until_ns) continue;
    *out_until_ns = one.until_ns;
    return bssl::UpRef(one.leaf.get());
  }
  return nullptr;
}

void ptl_trust::remember_leaf(const Key &chain, uint64_t until_ns, X509 *leaf) {
  std::lock_guard<std::mutex> lock(mutex_);
  // Handshakes at the same time verify the same chain; it counts once.
  for (auto it = leaves_.begin(); it != leaves_.end(); ++it) {
    if (it->chain != chain) continue;
    leaves_.erase(it);
    break;
  }
  if (leaves_.size() >= kLeavesMax) leaves_.pop_front();
  leaves_.push_back({chain, until_ns, bssl::UpRef(leaf)});
}

Verdict ptl_trust::verify_path(const STACK_OF(CRYPTO_BUFFER) *chain, X509 *leaf) {
  bssl::UniquePtr<STACK_OF(X509)> others(sk_X509_new_null());
  for (size_t i = 1; others && i < sk_CRYPTO_BUFFER_num(chain); i++) {
    // What does not parse cannot be part of the path; whether one exists without it, verification says.
    bssl::UniquePtr<X509> other = parse(sk_CRYPTO_BUFFER_value(chain, i));
    if (other) bssl::PushToStack(others.get(), std::move(other));
  }
  bssl::UniquePtr<X509_STORE_CTX> context(X509_STORE_CTX_new());
  if (!others || !context || !X509_STORE_CTX_init(context.get(), store_.get(), leaf, others.get()) ||
      !X509_STORE_CTX_set_default(context.get(), "ssl_server")) {
    return refused(X509_V_ERR_OUT_OF_MEM, "out of memory");
  }
  if (X509_verify_cert(context.get()) == 1) return {true, 0, ""};

  int error = X509_STORE_CTX_get_error(context.get());
  const int depth = X509_STORE_CTX_get_error_depth(context.get());
  if (depth == 0 && lacks_issuer(error) && signed_itself(leaf)) {
    error = X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT;
  }
  const X509 *current = X509_STORE_CTX_get_current_cert(context.get());
  return refused(error, detail_of(error, depth, current == nullptr ? leaf : current));
}

// A certificate is for the names in its subjectAltName alone (RFC 9525 §2).
Verdict ptl_trust::verify_name(X509 *leaf, const std::string &name) {
  if (name.empty()) return {true, 0, ""};
  const bool ip = is_ip(name);
  const int matches =
      ip ? X509_check_ip_asc(leaf, name.c_str(), 0)
         : X509_check_host(leaf, name.data(), name.size(), X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, nullptr);
  if (matches == 1) return {true, 0, ""};
  const int error = ip ? X509_V_ERR_IP_ADDRESS_MISMATCH : X509_V_ERR_HOSTNAME_MISMATCH;
  return refused(error, detail_of(error, 0, leaf));
}

ptl_trust *ptl_trust_new(const uint8_t *const *der, const size_t *der_lens, size_t num_der,
                         uint32_t cache_ms, uint32_t cache_max, size_t *out_num_added, char *err,
                         size_t err_len) {
  return ptl::guarded(err, err_len, [&]() -> ptl_trust *{
    ptl_trust *trust = ptl_trust::make(cache_ms, cache_max);
    if (trust == nullptr) {
      ptl::put_text(err, err_len, "out of memory");
      return nullptr;
    }
    size_t added = 0;
    for (size_t i = 0; i < num_der; i++) {
      if (trust->add_root(der[i], der_lens[i])) added++;
    }
    ERR_clear_error();
    *out_num_added = added;
    return trust;
  });
}

void ptl_trust_free(ptl_trust *trust) {
  if (trust != nullptr) trust->release();
}
