// What both ends of HTTP/2 share here (RFC 9113): frames, and no more.
#ifndef POLYTLS_BENCH_COMMON_HTTP2_H
#define POLYTLS_BENCH_COMMON_HTTP2_H

#include <stddef.h>
#include <stdint.h>

#include <string>

namespace bench::h2 {

constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr size_t kPrefaceBytes = sizeof kPreface - 1;
constexpr size_t kHeadBytes = 9;
constexpr size_t kMaxFrameBytes = 16384;       // SETTINGS_MAX_FRAME_SIZE that nobody raised
constexpr int64_t kFirstWindow = 65535;        // RFC 9113 §6.9.2
constexpr int64_t kLargestWindow = 0x7fffffff;

enum Type : uint8_t {
  kData = 0, kHeaders = 1, kReset = 3, kSettings = 4, kPing = 6, kGoAway = 7, kWindowUpdate = 8, kContinuation = 9,
};
enum Flag : uint8_t { kEndStream = 1, kAck = 1, kEndHeaders = 4, kPadded = 8, kPriority = 32 };
enum Setting : uint16_t { kHeaderTableSize = 1, kEnablePush = 2, kMaxStreams = 3, kInitialWindow = 4 };

struct FrameHead {
  uint32_t size;
  uint8_t type, flags;
  uint32_t stream;
};

inline uint32_t read_u32(const uint8_t *at) {
  return static_cast<uint32_t>(at[0]) << 24 | static_cast<uint32_t>(at[1]) << 16 | static_cast<uint32_t>(at[2]) << 8 | at[3];
}

inline FrameHead read_head(const uint8_t *at) {
  return {read_u32(at) >> 8, at[3], at[4], read_u32(at + 5) & 0x7fffffff};
}

inline void append_u32(std::string *to, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) to->push_back(static_cast<char>(value >> shift));
}

inline void append_head(std::string *to, size_t size, uint8_t type, uint8_t flags, uint32_t stream) {
  append_u32(to, static_cast<uint32_t>(size) << 8 | type);
  to->push_back(static_cast<char>(flags));
  append_u32(to, stream);
}

inline void append_setting(std::string *to, uint16_t name, uint32_t value) {
  to->push_back(static_cast<char>(name >> 8));
  to->push_back(static_cast<char>(name));
  append_u32(to, value);
}

inline void append_window_update(std::string *to, uint32_t stream, uint32_t by) {
  append_head(to, 4, kWindowUpdate, 0, stream);
  append_u32(to, by);
}

}  // namespace bench::h2

#endif
