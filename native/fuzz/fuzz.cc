#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

namespace fuzz {

void broken(const char *file, int line, const std::string &what) {
  const char *slash = strrchr(file, '/');
  fprintf(stderr, "%s:%d: %s\n", slash != nullptr ? slash + 1 : file, line, what.c_str());
  abort();
}

}  // namespace fuzz

namespace test {

// The tests' checks, which fuzzers use through what they share with them.
void failed(const char *file, int line, const std::string &what) { fuzz::broken(file, line, what); }

}  // namespace test
