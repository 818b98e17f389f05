// Memory that runs out while a tunnel is made: BoringSSL's, and what the engine allocates by the size of what came.
//
// BoringSSL asks OPENSSL_memory_alloc where a program has one; this one refuses the Nth request of a loop thread, and
// malloc what Buffers and completions ask for. Every Nth is tried, in steps that grow, and at the end tunnels go
// through again. (What the C++ library allocates is refused by allocation_test. Upstream's certificate is not verified
// here: of the library's X.509 code x509_name_get_cache does not look whether it got its memory.)
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <string>

#include "check.h"
#include "mitm.h"

using namespace test;

namespace {

constexpr size_t kBytes = 3000;

// Before the bytes handed out stands their number, as OPENSSL_memory_get_size must know it.
constexpr size_t kPrefix = 16;

std::atomic<int64_t> left{-1};  // requests until one is refused; below 0: none is
std::atomic<uint64_t> refused{0}, asked{0};

bool on_loop_thread() {
  char name[16] = "";
  pthread_getname_np(pthread_self(), name, sizeof(name));
  return strncmp(name, "polytls-", 8) == 0;
}

bool refuses() {
  if (left < 0 || !on_loop_thread()) return false;
  asked++;
  if (left-- != 0) return false;
  refused++;
  return true;
}

}  // namespace

extern "C" void *OPENSSL_memory_alloc(size_t size) {
  if (refuses()) return nullptr;
  auto *memory = static_cast<uint8_t *>(malloc(size + kPrefix));
  if (memory == nullptr) return nullptr;
  memcpy(memory, &size, sizeof(size));
  return memory + kPrefix;
}

extern "C" size_t OPENSSL_memory_get_size(void *memory) {
  size_t size;
  memcpy(&size, static_cast<uint8_t *>(memory) - kPrefix, sizeof(size));
  return size;
}

extern "C" void OPENSSL_memory_free(void *memory) {
  if (memory != nullptr) free(static_cast<uint8_t *>(memory) - kPrefix);
}

TEST(every_refusal_has_a_status) {
  EngineDriver engine;
  MitmRunner runner(&engine, engine.listen());
  runner.begin(Manner::kUnverified, 1, kBytes);
  runner.finish();
  uint64_t tried = 0, short_of_memory = 0;
  // The first request and those after it one by one; later ones, of which there are thousands, in growing steps.
  for (int64_t at = 0;; at += 1 + at / 40) {
    refused = asked = 0;
    left = at;
    runner.begin(Manner::kUnverified, static_cast<uint64_t>(at) + 1, kBytes);
    auto ended = runner.finish();
    left = -1;
    const int status = ended[0]->status();
    // A refusal that BoringSSL can do without (a cache's entry) ends nothing; one during the handshake does.
    const bool good = refused == 0 ? status == PTL_OK : status == PTL_OK || status == PTL_E_NOMEM || status == PTL_E_TLS ||
                                                            status == PTL_E_VERIFY || status == PTL_E_CLOSED || status == PTL_E_RESET;
    if (!good || (status == PTL_OK && !ended[0]->whole())) {
      failed(__FILE__, __LINE__, "request " + std::to_string(at) + ": " + ended[0]->told());
    }
    short_of_memory += status == PTL_E_NOMEM;
    engine.await_no_streams();
    tried++;
    if (refused == 0) break;
  }
  printf("  %llu requests refused, of which %llu ended in nomem\n", static_cast<unsigned long long>(tried),
         static_cast<unsigned long long>(short_of_memory));
  CHECK(tried > 20 && short_of_memory > 0);
  for (uint64_t seed = 1; seed <= 5; seed++) runner.begin(Manner::kClean, seed, 20000);
  for (const auto &tunnel : runner.finish()) CHECK(tunnel->status() == PTL_OK && tunnel->whole());
  engine.await_no_streams();
}
