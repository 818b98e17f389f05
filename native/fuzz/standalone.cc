// A fuzzer without libFuzzer: it replays files, then mutations of them, the same ones for the same seed.
//
//   fuzz_NAME [--mutations=N] [--seed=N] FILE|DIRECTORY...
//
// Where the process dies, the input it died of is written to crash-NAME in the working directory.
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "fuzz.h"

namespace {

using Bytes = std::vector<uint8_t>;

constexpr size_t kMaxInput = 1 << 16;  // of a mutation

const Bytes *running = nullptr;
std::string crash_name;

void keep_input(int signal_number) {
  if (running != nullptr) {
    int fd = open(crash_name.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ssize_t written = write(fd, running->data(), running->size());
    (void)written;
    close(fd);
  }
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

Bytes contents(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

bool collect(const std::string &path, std::vector<std::string> *out) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return false;
  if (!S_ISDIR(status.st_mode)) {
    out->push_back(path);
    return true;
  }
  DIR *directory = opendir(path.c_str());
  if (directory == nullptr) return false;
  while (const dirent *entry = readdir(directory)) {
    if (entry->d_name[0] != '.') out->push_back(path + "/" + entry->d_name);
  }
  closedir(directory);
  return true;
}

// One to four changes, by place: a bit, a byte, a number at its bounds, bytes gone, new, doubled, or another input's.
Bytes mutated(const std::vector<Bytes> &corpus, std::mt19937_64 *random) {
  auto below = [&](size_t n) { return n == 0 ? 0 : static_cast<size_t>((*random)() % n); };
  Bytes bytes = corpus[below(corpus.size())];
  for (size_t left = 1 + below(4); left != 0; left--) {
    size_t at = below(bytes.size() + 1);
    size_t size = 1 + below(below(8) == 0 ? 300 : 8);
    auto from = bytes.begin() + static_cast<ptrdiff_t>(at);
    auto to = bytes.begin() + static_cast<ptrdiff_t>(std::min(bytes.size(), at + size));
    switch (below(7)) {
      case 0:
        if (at < bytes.size()) bytes[at] ^= static_cast<uint8_t>(1u << below(8));
        break;
      case 1:
        for (auto it = from; it != to; ++it) *it = static_cast<uint8_t>((*random)());
        break;
      case 2: {
        const uint8_t bounds[] = {0, 1, 2, 0x7f, 0x80, 0xfe, 0xff};
        if (at < bytes.size()) bytes[at] = bounds[below(sizeof(bounds))];
        break;
      }
      case 3:
        bytes.erase(from, to);
        break;
      case 4: {
        Bytes fresh(size);
        for (uint8_t &byte : fresh) byte = static_cast<uint8_t>((*random)());
        bytes.insert(from, fresh.begin(), fresh.end());
        break;
      }
      case 5: {
        Bytes again(from, to);
        bytes.insert(from, again.begin(), again.end());
        break;
      }
      default: {
        const Bytes &other = corpus[below(corpus.size())];
        size_t begin = below(other.size() + 1);
        bytes.erase(from, bytes.end());
        bytes.insert(bytes.end(), other.begin() + static_cast<ptrdiff_t>(begin), other.end());
      }
    }
  }
  if (bytes.size() > kMaxInput) bytes.resize(kMaxInput);
  return bytes;
}

void run(const Bytes &bytes) {
  // Memory of exactly this size, so that a sanitizer sees the first byte too many.
  std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);
  if (!bytes.empty()) memcpy(exact.get(), bytes.data(), bytes.size());
  running = &bytes;
  try {
    LLVMFuzzerTestOneInput(exact.get(), bytes.size());
  } catch (const std::exception &error) {
    fuzz::broken(__FILE__, __LINE__, error.what());
  }
  running = nullptr;
}

unsigned long number_of(const char *argument) { return strtoul(strchr(argument, '=') + 1, nullptr, 10); }

}  // namespace

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  for (int fatal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) signal(fatal, keep_input);
  const char *slash = strrchr(argv[0], '/');
  crash_name = std::string("crash-") + (slash != nullptr ? slash + 1 : argv[0]);
  unsigned long mutations = 0, seed = 1;
  std::vector<std::string> paths;
  for (int i = 1; i < argc; i++) {
    if (strncmp(argv[i], "--mutations=", 12) == 0) {
      mutations = number_of(argv[i]);
    } else if (strncmp(argv[i], "--seed=", 7) == 0) {
      seed = number_of(argv[i]);
    } else if (!collect(argv[i], &paths)) {
      fprintf(stderr, "%s: error: %s cannot be read\n", argv[0], argv[i]);
      return 1;
    }
  }
  std::sort(paths.begin(), paths.end());  // a directory comes in any order
  std::vector<Bytes> corpus;
  for (const std::string &path : paths) corpus.push_back(contents(path));
  if (corpus.empty()) {
    fprintf(stderr, "%s: error: there is nothing to replay; name files or directories\n", argv[0]);
    return 1;
  }
  for (const Bytes &bytes : corpus) run(bytes);
  std::mt19937_64 random(seed);
  for (unsigned long i = 0; i < mutations; i++) run(mutated(corpus, &random));
  printf("replayed %zu, mutations %lu\n", corpus.size(), mutations);
  return 0;
}
