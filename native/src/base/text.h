// Sentences for people, written into buffers that callers own.
#ifndef POLYTLS_SRC_BASE_TEXT_H
#define POLYTLS_SRC_BASE_TEXT_H

#include <stddef.h>
#include <string.h>

#include <string_view>

namespace ptl {

// put_text writes |text| to |out|, cut to |out_len| with its terminating zero.
inline void put_text(char *out, size_t out_len, std::string_view text) {
  if (out == nullptr || out_len == 0) return;
  size_t n = text.size() < out_len - 1 ? text.size() : out_len - 1;
  memcpy(out, text.data(), n);
  out[n] = '\0';
}

}  // namespace ptl

#endif
