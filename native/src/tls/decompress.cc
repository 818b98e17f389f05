#include "tls/decompress.h"

#include <openssl/pool.h>

#include <atomic>

#include "polytls/native.h"

namespace ptl {

namespace {

using Decompress = int (*)(int, const uint8_t *, size_t, uint8_t *, size_t);
std::atomic<Decompress> decompressor{nullptr};

// BoringSSL's callback carries no argument of ours, so that each algorithm is its own function.
template <int algorithm>
int decompress(SSL *, CRYPTO_BUFFER **out, size_t out_len, const uint8_t *in, size_t in_len) {
  Decompress function = decompressor.load(std::memory_order_acquire);
  if (function == nullptr || out_len == 0 || out_len > PTL_MAX_CERTIFICATE_BYTES) return 0;
  uint8_t *data;
  bssl::UniquePtr<CRYPTO_BUFFER> buffer(CRYPTO_BUFFER_alloc(&data, out_len));
  if (!buffer || function(algorithm, in, in_len, data, out_len) != 1) return 0;
  *out = buffer.release();
  return 1;
}

}  // namespace

bool offer_decompression(SSL_CTX *ctx, uint16_t algorithm) {
  switch (algorithm) {
    case TLSEXT_cert_compression_zlib:
      return SSL_CTX_add_cert_compression_alg(ctx, algorithm, nullptr, decompress<1>) == 1;
    case TLSEXT_cert_compression_brotli:
      return SSL_CTX_add_cert_compression_alg(ctx, algorithm, nullptr, decompress<2>) == 1;
    case 3:  // zstd, RFC 8879 §7.3
      return SSL_CTX_add_cert_compression_alg(ctx, algorithm, nullptr, decompress<3>) == 1;
    default:
      return false;
  }
}

}  // namespace ptl

void ptl_set_decompressor(int (*decompress)(int algorithm, const uint8_t *in, size_t in_len,
                                            uint8_t *out, size_t out_len)) {
  ptl::decompressor.store(decompress, std::memory_order_release);
}
