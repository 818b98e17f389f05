// Two directions between two streams, until both have ended.
//
// A direction reads a chunk, turns it into what the other side wants and sends it in one go. It reads nothing while
// the other side's socket has bytes of ours waiting: that is the back-pressure, and the bound of what a stalled
// reader can make us hold, which is one chunk (kChunkBytes and the records around it) each way. After a chunk it gives
// its turn to other streams, and chunks are small while there are others than bulk relays. The end of one direction is
// handed on as it came: close_notify and FIN as such, a FIN without close_notify as just that, so that a truncation
// stays visible as one.
#ifndef POLYTLS_SRC_RELAY_RELAY_H
#define POLYTLS_SRC_RELAY_RELAY_H

#include <stddef.h>
#include <stdint.h>

#include "base/timer_wheel.h"

namespace ptl {

struct Op;
struct Stream;

// Who moves less than a full record in a turn is waiting for more: those are let through between the chunks of others.
constexpr size_t kBulkBytes = 16 << 10;

// Whose tunnel was quiet for so long gives up half of what its TLS connections hold. To be ready again takes some
// microseconds, which is little once a second.
constexpr uint32_t kRestAfterMs = 1000;

struct Direction {
  Stream *from = nullptr;
  Stream *to = nullptr;
  uint64_t bytes = 0;
  bool bulk = false;       // kBulkBytes or more moved when last something did
  bool ended = false;      // |from| has no more to say
  bool truncated = false;  // it ended without close_notify
  bool told = false;       // |to| has everything that |from| said
  bool done = false;       // and knows that this was all
};

struct Relay {
  Op *op = nullptr;
  Direction up;    // from the operation's |stream| to its |other|
  Direction down;  // back
  uint64_t moved_ns = 0;       // when a byte last moved
  uint64_t first_byte_ns = 0;  // when |other| first gave one
  bool truncated = false;      // |other| stopped without close_notify while |stream| may have been waiting
  Stream *lost = nullptr;      // who stopped taking bytes while it still sent some of its own
  bool over = false;
  bool resting = false;        // TLS was told to, and no byte has moved since
  Timer idle;

  bool may_rest() const;
  bool is_bulk() const { return up.bulk || down.bulk; }
  Direction &leaving(const Stream *stream) { return up.from == stream ? up : down; }
  Direction &reaching(const Stream *stream) { return up.to == stream ? up : down; }
};

}  // namespace ptl

#endif
