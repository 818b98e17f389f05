// Certificate compression (RFC 8879): the one place where a loop thread calls out of the engine.
#ifndef POLYTLS_SRC_TLS_DECOMPRESS_H
#define POLYTLS_SRC_TLS_DECOMPRESS_H

#include <openssl/ssl.h>
#include <stdint.h>

namespace ptl {

// offer_decompression makes |ctx| offer |algorithm| (1 zlib, 2 brotli, 3 zstd) and undo it by the function
// given to |ptl_set_decompressor|. It returns false for an algorithm that is unknown or offered already.
bool offer_decompression(SSL_CTX *ctx, uint16_t algorithm);

}  // namespace ptl

#endif
