#include "common/pattern.h"

#include <string.h>

#include <algorithm>
#include <vector>

namespace bench {
namespace {

std::vector<uint8_t> make_pattern() {
  std::vector<uint8_t> bytes(kPeriod + kLongestPiece);
  uint64_t state = 1;
  for (size_t i = 0; i < kPeriod; i++) bytes[i] = static_cast<uint8_t>(mix(&state));
  for (size_t i = kPeriod; i < bytes.size(); i++) bytes[i] = bytes[i - kPeriod];
  return bytes;
}

}  // namespace

const uint8_t *pattern_at(uint64_t seed, uint64_t offset) {
  static const std::vector<uint8_t> bytes = make_pattern();
  return bytes.data() + (seed % kPeriod + offset % kPeriod) % kPeriod;
}

bool pattern_matches(uint64_t seed, uint64_t offset, const uint8_t *bytes, size_t size) {
  while (size > 0) {
    size_t piece = std::min(size, kLongestPiece);
    if (memcmp(pattern_at(seed, offset), bytes, piece) != 0) return false;
    bytes += piece;
    offset += piece;
    size -= piece;
  }
  return true;
}

uint64_t mix(uint64_t *state) {
  uint64_t value = *state += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

}  // namespace bench
