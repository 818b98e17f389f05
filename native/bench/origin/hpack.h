// As much of HPACK (RFC 7541) as finding a request's path takes.
//
// The origin announces a dynamic table of no bytes, so a field that refers to one cannot come after a peer has
// heard; until then, in the first request, peers may add entries, but have none to refer to.
#ifndef POLYTLS_BENCH_ORIGIN_HPACK_H
#define POLYTLS_BENCH_ORIGIN_HPACK_H

#include <stddef.h>
#include <stdint.h>

#include <string>

namespace bench {

// find_path stores the value of :path. It returns false when the block cannot be read or has none.
bool find_path(const uint8_t *block, size_t size, std::string *out_path);

}  // namespace bench

#endif
