// What a tunnel says once it stands: HTTP/1.1, HTTP/2 or small messages. Every byte is compared.
#ifndef POLYTLS_BENCH_LOAD_TALK_H
#define POLYTLS_BENCH_LOAD_TALK_H

#include <stdint.h>

#include <memory>
#include <string>
#include <vector>

#include "common/channel.h"
#include "load/plan.h"

namespace bench {

class Talk {
 public:
  virtual ~Talk() = default;

  enum class Next {
    kWait,    // for an event
    kAgain,   // it stopped to give others their turn
    kPause,   // for Settings::slow_ms
    kDone,    // as meant
    kReset,   // the client is to reset, as meant
    kFailed,  // |failure| says why
  };
  virtual Next pump(Channel *channel) = 0;

  // begin_again makes ready for another request on the same connection.
  virtual void begin_again() {}

  std::string failure;
  uint64_t first_byte_ns = 0;
  uint64_t down = 0, up = 0;           // body bytes
  std::vector<uint32_t> round_trips;  // pingpong, in units of 10 ns

 protected:
  Next fail(const std::string &why) {
    failure = why;
    return Next::kFailed;
  }
};

std::unique_ptr<Talk> make_http1(const Settings &settings, const Plan &plan);
std::unique_ptr<Talk> make_http2(const Settings &settings, const Plan &plan);
std::unique_ptr<Talk> make_pingpong(const Settings &settings, const Plan &plan);

// name_of says how a connection ended, for a failure.
const char *name_of(Io io);

constexpr size_t kTalkTurnBytes = 1024 * 1024;  // then others get their turn

}  // namespace bench

#endif
