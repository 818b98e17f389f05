#include "check.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <vector>

namespace test {

namespace {

struct Case {
  const char *name;
  void (*run)();
};

std::vector<Case> &cases() {
  static std::vector<Case> all;
  return all;
}

std::atomic<int> failures{0};  // of the running test
std::mutex output;

bool wanted(const char *name, int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    if (strstr(name, argv[i]) != nullptr) return true;
  }
  return argc < 2;
}

bool passes(const Case &one) {
  failures = 0;
  try {
    one.run();
  } catch (const std::exception &error) {
    failed("gave up", 0, error.what());
  }
  return failures == 0;
}

}  // namespace

Registration::Registration(const char *name, void (*run)()) { cases().push_back({name, run}); }

void failed(const char *file, int line, const std::string &what) {
  failures++;
  std::lock_guard<std::mutex> lock(output);
  const char *slash = strrchr(file, '/');
  fprintf(stderr, "  %s:%d: %s\n", slash != nullptr ? slash + 1 : file, line, what.c_str());
}

}  // namespace test

int main(int argc, char **argv) {
  // The TLS library's own sockets, which the peers use, do not know MSG_NOSIGNAL. The engine does.
  signal(SIGPIPE, SIG_IGN);
  int num_passed = 0, num_failed = 0;
  for (const test::Case &one : test::cases()) {
    if (!test::wanted(one.name, argc, argv)) continue;
    auto start = std::chrono::steady_clock::now();
    bool good = test::passes(one);
    (good ? num_passed : num_failed)++;
    std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    printf("%-6s %s (%.0f ms)\n", good ? "ok" : "FAILED", one.name, took.count());
    fflush(stdout);
  }
  printf("%d passed, %d failed\n", num_passed, num_failed);
  return num_failed == 0 && num_passed != 0 ? 0 : 1;
}
