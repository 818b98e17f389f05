// What fuzzers are made of: the entry that libFuzzer and standalone.cc call, a reader of the input, and a check that
// ends the process, as everything that a fuzzer finds must.
#ifndef POLYTLS_FUZZ_FUZZ_H
#define POLYTLS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

namespace fuzz {

// broken says what does not hold and aborts.
[[noreturn]] void broken(const char *file, int line, const std::string &what);

// An Input is read from its front. What is no longer there reads as zero, so that a short input means something too.
class Input {
 public:
  Input(const uint8_t *data, size_t size) : data_(data), size_(size) {}

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  uint8_t u8() {
    if (size_ == 0) return 0;
    size_--;
    return *data_++;
  }
  uint16_t u16() {
    uint8_t high = u8();
    return static_cast<uint16_t>(high << 8 | u8());
  }
  std::string bytes(size_t most) {
    size_t n = most < size_ ? most : size_;
    std::string taken(reinterpret_cast<const char *>(data_), n);
    data_ += n;
    size_ -= n;
    return taken;
  }
  std::string rest() { return bytes(size_); }

 private:
  const uint8_t *data_;
  size_t size_;
};

}  // namespace fuzz

#define FUZZ_CHECK(condition)                                              \
  do {                                                                     \
    if (!(condition)) fuzz::broken(__FILE__, __LINE__, #condition);        \
  } while (0)

#endif
