// Caches of the engine keep what they may and no more: sessions, verified chains, verified leaves.
#include <openssl/pool.h>
#include <openssl/ssl.h>

#include <string>
#include <vector>

#include "check.h"
#include "lab.h"
#include "tls/session_cache.h"
#include "tls/trust.h"

using namespace test;

namespace {

// A chain as a handshake has it.
bssl::UniquePtr<STACK_OF(CRYPTO_BUFFER)> buffers(const Identity &identity) {
  bssl::UniquePtr<STACK_OF(CRYPTO_BUFFER)> found(sk_CRYPTO_BUFFER_new_null());
  for (const std::string &der : identity.chain) {
    bssl::PushToStack(found.get(), bssl::UniquePtr<CRYPTO_BUFFER>(CRYPTO_BUFFER_new(
                                       reinterpret_cast<const uint8_t *>(der.data()), der.size(), nullptr)));
  }
  return found;
}

LeafSpec for_all_of(const std::string &domain) {
  LeafSpec spec;
  spec.dns = "*." + domain;
  return spec;
}

}  // namespace

TEST(sessions) {
  bssl::UniquePtr<SSL_CTX> ctx(SSL_CTX_new(TLS_method()));
  ptl::SessionCache cache;
  const size_t most = ptl::SessionCache::kMaxSessions;
  for (size_t i = 0; i < most; i++) {
    cache.put(std::to_string(i), bssl::UniquePtr<SSL_SESSION>(SSL_SESSION_new(ctx.get())));
  }
  CHECK(cache.take("0") != nullptr);  // as many as there may be
  cache.put("0", bssl::UniquePtr<SSL_SESSION>(SSL_SESSION_new(ctx.get())));  // the newest again
  cache.put("one more", bssl::UniquePtr<SSL_SESSION>(SSL_SESSION_new(ctx.get())));
  CHECK(cache.take("1") == nullptr);  // the oldest
  CHECK(cache.take("2") != nullptr);
  CHECK(cache.take("0") != nullptr);
  CHECK(cache.take("one more") != nullptr);
}

TEST(verified_chains) {
  Trust trust = new_trust({lab().root.der()}, 60000, 2);
  auto chain = buffers(lab().root.issue(for_all_of("lab.test")));
  for (const char *name : {"a.lab.test", "b.lab.test"}) CHECK(trust->verify(chain.get(), name).ok);
  CHECK_EQ(trust->cache_hits(), 0u);
  for (const char *name : {"a.lab.test", "b.lab.test"}) CHECK(trust->verify(chain.get(), name).ok);
  CHECK_EQ(trust->cache_hits(), 2u);  // two there may be
  CHECK(trust->verify(chain.get(), "c.lab.test").ok);
  CHECK(trust->verify(chain.get(), "b.lab.test").ok);
  CHECK_EQ(trust->cache_hits(), 3u);
  CHECK(trust->verify(chain.get(), "a.lab.test").ok);  // it made room
  CHECK_EQ(trust->cache_hits(), 3u);
}

TEST(verified_leaves) {
  constexpr size_t kMost = 32;
  Trust trust = new_trust({lab().root.der()}, 60000, 4096);
  std::vector<bssl::UniquePtr<STACK_OF(CRYPTO_BUFFER)>> chains;
  for (size_t i = 0; i < kMost + 1; i++) {
    chains.push_back(buffers(lab().root.issue(for_all_of("lab.test"))));
    if (i < kMost) CHECK(trust->verify(chains[i].get(), "a.lab.test").ok);
  }
  CHECK(trust->verify(chains[0].get(), "b.lab.test").ok);
  CHECK_EQ(trust->leaf_hits(), 1u);  // the first of as many as there may be
  CHECK(trust->verify(chains[kMost].get(), "a.lab.test").ok);
  CHECK(trust->verify(chains[1].get(), "b.lab.test").ok);
  CHECK_EQ(trust->leaf_hits(), 2u);
  CHECK(trust->verify(chains[0].get(), "c.lab.test").ok);  // it made room
  CHECK_EQ(trust->leaf_hits(), 2u);
}
