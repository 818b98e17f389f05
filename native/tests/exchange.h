// Bytes both ways at once: what each of two ends sends, and what it gets.
#ifndef POLYTLS_TESTS_EXCHANGE_H
#define POLYTLS_TESTS_EXCHANGE_H

#include <stdint.h>

#include <string>

#include "peer.h"

namespace test {

// noise returns |size| bytes that look like no others, given their |seed|.
std::string noise(size_t size, uint64_t seed);

// How a direction ends.
enum class Goodbye { kClean, kBareFin };  // TLS: with or without close_notify

// An End sends its bytes in pieces, says goodbye, and reads until the other end has done so.
struct End {
  Peer *peer;
  std::string to_send;
  Goodbye goodbye = Goodbye::kClean;
  std::string received = "";
  Outcome outcome = Outcome::kWait;  // of reading
  size_t sent = 0;
  bool done_sending = false;
};

// exchange moves both ends' bytes until both have read to the end. Sizes of writes are random from |seed|.
void exchange(End *a, End *b, uint64_t seed);

}  // namespace test

#endif
