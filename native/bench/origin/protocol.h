// What a connection of the origin speaks once TLS is up.
#ifndef POLYTLS_BENCH_ORIGIN_PROTOCOL_H
#define POLYTLS_BENCH_ORIGIN_PROTOCOL_H

#include <memory>

#include "common/channel.h"

namespace bench {

class Protocol {
 public:
  virtual ~Protocol() = default;

  enum class Next {
    kWait,   // for an event
    kAgain,  // it stopped to give others their turn
    kGone,   // the connection is over and may be closed
  };
  // pump reads and writes as far as it goes.
  virtual Next pump(Channel *channel) = 0;
};

std::unique_ptr<Protocol> make_http1();
std::unique_ptr<Protocol> make_http2();

// How much one connection sends or takes before others get their turn.
constexpr size_t kTurnBytes = 1024 * 1024;
// How much gathers before it is sent.
constexpr size_t kBurstBytes = 256 * 1024;

}  // namespace bench

#endif
