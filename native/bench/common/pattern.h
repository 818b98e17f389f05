// The bytes of every body: byte i of the body with seed s is a function of i and s alone, so that either end
// can tell whether one was lost, doubled or changed, without keeping any.
//
// They repeat every kPeriod bytes, a prime: no record, frame or buffer size divides it, so what is displaced by
// one of these shows.
#ifndef POLYTLS_BENCH_COMMON_PATTERN_H
#define POLYTLS_BENCH_COMMON_PATTERN_H

#include <stddef.h>
#include <stdint.h>

namespace bench {

constexpr size_t kPeriod = 65521;
constexpr size_t kLongestPiece = 65536;

// pattern_at returns kLongestPiece bytes of the body with |seed|, from |offset| on.
const uint8_t *pattern_at(uint64_t seed, uint64_t offset);

// pattern_matches returns whether |bytes| is the body's piece at |offset|. Any |size| is taken.
bool pattern_matches(uint64_t seed, uint64_t offset, const uint8_t *bytes, size_t size);

// mix returns the next of a sequence of well-mixed numbers and moves |state| on (splitmix64).
uint64_t mix(uint64_t *state);

}  // namespace bench

#endif
