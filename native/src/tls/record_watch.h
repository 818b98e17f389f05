// Looks at the records that a server's handshake reads, without touching them.
//
// A TLS 1.3 client that refuses our certificate may say so in the clear: OpenSSL's does not switch its keys before
// its own flight. The TLS library can only call that a record that does not decrypt, and the commonest mistake of
// all, a root that is not trusted, would go by a wrong name.
#ifndef POLYTLS_SRC_TLS_RECORD_WATCH_H
#define POLYTLS_SRC_TLS_RECORD_WATCH_H

#include <stddef.h>
#include <stdint.h>

#include <algorithm>

namespace ptl {

class RecordWatch {
 public:
  // feed takes the next |size| bytes that were read.
  void feed(const uint8_t *bytes, size_t size) {
    while (size != 0) {
      if (have_ < kHeader) {
        head_[have_++] = *bytes++;
        size--;
        if (have_ == kHeader) left_ = static_cast<size_t>(head_[3]) << 8 | head_[4];
        if (have_ == kHeader && left_ == 0) have_ = 0;
        continue;
      }
      size_t n = std::min(size, left_);
      // RFC 8446 §6: an alert in the clear is a record of two bytes, level and description.
      if (head_[0] == kAlert && length() == 2) alert_ = bytes[n - 1];
      bytes += n;
      size -= n;
      left_ -= n;
      if (left_ == 0) have_ = 0;
    }
  }

  // alert returns the description in the last alert that came in the clear, or 0.
  uint8_t alert() const { return alert_; }

 private:
  static constexpr size_t kHeader = 5;
  static constexpr uint8_t kAlert = 21;

  size_t length() const { return static_cast<size_t>(head_[3]) << 8 | head_[4]; }

  uint8_t head_[kHeader] = {};
  size_t have_ = 0;
  size_t left_ = 0;
  uint8_t alert_ = 0;
};

}  // namespace ptl

#endif
