#include "origin/hpack.h"

#include <array>
#include <utility>
#include <vector>

namespace bench {
namespace {

constexpr size_t kSymbols = 257;  // 256 is the end of string
constexpr uint8_t kLongestCode = 30;
constexpr uint64_t kPathWithRoot = 4, kPath = 5, kStaticEntries = 61;  // RFC 7541 Appendix A

// How many bits each symbol's code has: RFC 7541 Appendix B. The code is canonical, so that the lengths alone
// determine it.
constexpr std::array<uint8_t, kSymbols> kCodeBits = {
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8,
    7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7,
    7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23,
    24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22,
    23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25,
    26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24,
    20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27,
    27, 27, 27, 26, 30,
};

// By length: the first code of it, and the symbols that have it, in the order of their codes.
struct Code {
  std::array<uint32_t, kLongestCode + 1> first{};
  std::array<std::vector<uint16_t>, kLongestCode + 1> symbols;
};

Code make_code() {
  Code code;
  for (size_t symbol = 0; symbol < kSymbols; symbol++) {
    code.symbols[kCodeBits[symbol]].push_back(static_cast<uint16_t>(symbol));
  }
  uint32_t next = 0;
  for (size_t bits = 1; bits <= kLongestCode; bits++) {
    next <<= 1;
    code.first[bits] = next;
    next += static_cast<uint32_t>(code.symbols[bits].size());
  }
  return code;
}

bool unpack(const uint8_t *bytes, size_t size, std::string *out) {
  static const Code code = make_code();
  uint32_t value = 0;
  size_t bits = 0;
  for (size_t i = 0; i < size * 8; i++) {
    value = value << 1 | (bytes[i / 8] >> (7 - i % 8) & 1);
    if (++bits > kLongestCode) return false;
    const std::vector<uint16_t> &symbols = code.symbols[bits];
    if (value < code.first[bits] || value - code.first[bits] >= symbols.size()) continue;
    uint16_t symbol = symbols[value - code.first[bits]];
    if (symbol == kSymbols - 1) return false;
    out->push_back(static_cast<char>(symbol));
    value = 0;
    bits = 0;
  }
  return bits < 8;  // what is left is padding
}

struct Reader {
  const uint8_t *at, *end;

  // RFC 7541 §5.1: an integer behind |prefix| bits.
  bool integer(int prefix, uint64_t *out) {
    if (at == end) return false;
    uint8_t mask = static_cast<uint8_t>((1 << prefix) - 1);
    *out = *at++ & mask;
    if (*out < mask) return true;
    for (int shift = 0; at != end && shift < 28; shift += 7) {
      uint8_t byte = *at++;
      *out += static_cast<uint64_t>(byte & 0x7f) << shift;
      if (!(byte & 0x80)) return true;
    }
    return false;
  }

  // RFC 7541 §5.2.
  bool text(std::string *out) {
    if (at == end) return false;
    bool packed = *at & 0x80;
    uint64_t size = 0;
    if (!integer(7, &size) || size > static_cast<uint64_t>(end - at)) return false;
    const uint8_t *bytes = at;
    at += size;
    out->clear();
    if (packed) return unpack(bytes, static_cast<size_t>(size), out);
    out->assign(reinterpret_cast<const char *>(bytes), static_cast<size_t>(size));
    return true;
  }
};

}  // namespace

bool find_path(const uint8_t *block, size_t size, std::string *out_path) {
  Reader reader{block, block + size};
  bool found = false;
  while (reader.at != reader.end) {
    uint8_t first = *reader.at;
    uint64_t index = 0;
    if (first & 0x80) {  // indexed
      if (!reader.integer(7, &index) || index == 0 || index > kStaticEntries) return false;
      if (index == kPathWithRoot || index == kPath) *out_path = index == kPath ? "/index.html" : "/", found = true;
      continue;
    }
    if ((first & 0xe0) == 0x20) {  // table size
      if (!reader.integer(5, &index)) return false;
      continue;
    }
    if (!reader.integer(first & 0x40 ? 6 : 4, &index) || index > kStaticEntries) return false;
    std::string name, value;
    if (index == 0 && !reader.text(&name)) return false;
    if (!reader.text(&value)) return false;
    if (index == kPathWithRoot || index == kPath || name == ":path") *out_path = value, found = true;
  }
  return found;
}

}  // namespace bench
