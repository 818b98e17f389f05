// Exceptions stop at the ABI.
#ifndef POLYTLS_SRC_BASE_GUARD_H
#define POLYTLS_SRC_BASE_GUARD_H

#include <stddef.h>

#include <exception>

#include "base/text.h"

namespace ptl {

// guarded returns what |make| returns, a pointer, or null with a sentence in |err| when it throws: the standard
// library does so when memory is short.
template <typename F>
auto guarded(char *err, size_t err_len, F make) -> decltype(make()) {
  try {
    return make();
  } catch (const std::exception &error) {
    put_text(err, err_len, error.what());
    return nullptr;
  }
}

}  // namespace ptl

#endif
