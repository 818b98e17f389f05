// Trusted roots, and the memory of chains that verified.
//
// Verification is the dearest part of a handshake that repeats, so what verified is remembered for a short, bounded
// time: a chain with the name it verified for, by its hash; and the parsed leaves of the last few chains, for hosts
// with many names and one certificate, where only the name is left to be compared.
#ifndef POLYTLS_SRC_TLS_TRUST_H
#define POLYTLS_SRC_TLS_TRUST_H

#include <openssl/base.h>
#include <openssl/pool.h>
#include <stdint.h>

#include <array>
#include <atomic>
#include <deque>
#include <list>
#include <mutex>
#include <string>
#include <unordered_map>

#include "base/ref.h"
#include "polytls/native.h"

namespace ptl {

struct Verdict {
  bool ok = false;
  int error = 0;       // X509_V_ERR_*
  std::string detail;  // which certificate, and why
};

}  // namespace ptl

struct ptl_trust : public ptl::RefCounted<ptl_trust> {
 public:
  // make returns a trust without roots, or null when memory is short.
  static ptl_trust *make(uint32_t cache_ms, uint32_t cache_max);
  ~ptl_trust();

  // add_root returns whether |der| is a certificate, which is trusted from then on.
  bool add_root(const uint8_t *der, size_t der_len);

  // verify checks that |chain| (leaf first) leads to a root and, unless |name| is empty, that the leaf is for
  // |name|, a DNS name or an IP address.
  ptl::Verdict verify(const STACK_OF(CRYPTO_BUFFER) *chain, const std::string &name);

  uint64_t cache_hits() const { return cache_hits_.load(std::memory_order_relaxed); }
  uint64_t leaf_hits() const { return leaf_hits_.load(std::memory_order_relaxed); }

 private:
  using Key = std::array<uint8_t, 32>;
  struct KeyHash {
    size_t operator()(const Key &key) const;
  };
  struct Entry {
    uint64_t until_ns;
    std::list<Key>::iterator order;
  };

  ptl_trust(uint32_t cache_ms, uint32_t cache_max);
  struct Leaf {
    Key chain;
    uint64_t until_ns;
    bssl::UniquePtr<X509> leaf;
  };
  // Some 6 KB each. The chains that many names share are few.
  static constexpr size_t kLeavesMax = 32;

  static Key key_of(const STACK_OF(CRYPTO_BUFFER) *chain);
  static Key key_of(const Key &chain, const std::string &name);
  ptl::Verdict verify_path(const STACK_OF(CRYPTO_BUFFER) *chain, X509 *leaf);
  static ptl::Verdict verify_name(X509 *leaf, const std::string &name);
  bssl::UniquePtr<X509> remembered_leaf(const Key &chain, uint64_t *out_until_ns);
  void remember_leaf(const Key &chain, uint64_t until_ns, X509 *leaf);
  bool remembered(const Key &key);
  void remember(const Key &key, uint64_t until_ns);

  const uint64_t cache_ns_;
  const uint32_t cache_max_;
  bssl::UniquePtr<X509_STORE> store_;
  std::atomic<uint64_t> cache_hits_{0};
  std::atomic<uint64_t> leaf_hits_{0};
  std::mutex mutex_;  // guards what is below
  std::deque<Leaf> leaves_;  // oldest first
  std::list<Key> order_;  // oldest first
  std::unordered_map<Key, Entry, KeyHash> cache_;
};

#endif
