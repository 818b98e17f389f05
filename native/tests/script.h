// One tunnel of the proxy, in steps: what cancellation is tested on, since it can end after any of them.
#ifndef POLYTLS_TESTS_SCRIPT_H
#define POLYTLS_TESTS_SCRIPT_H

#include <stdint.h>

#include <memory>
#include <string>

#include "engine_driver.h"
#include "peer.h"
#include "tunnel.h"

namespace test {

// What can happen to a tunnel at any moment.
enum class Fate {
  kCancel,       // every operation under way is cancelled
  kClose,        // both streams are closed
  kReset,        // and with RST
  kCloseTwice,   // cancelled, closed and closed again, all at once
  kPeersReset,   // the other ends go away
  kPeersClose,
  kStop,         // the engine stops
  kFree,         // and is freed, with whatever has completed and was not drained
};
constexpr int kNumFates = 8;

// A Script accepts a client, peeks at its hello, connects, shakes hands with both sides and relays both ways
// to a clean end. step does a little of it and lets the loops turn once.
class Script {
 public:
  Script(EngineDriver *engine, uint16_t port, uint64_t seed);

  // step returns false when there is nothing left to do.
  bool step();
  // meet applies |fate|, and then sees to it that nothing of the tunnel is left. The engine may be gone then.
  void meet(Fate fate);
  // The relay's completion, once step has returned false.
  const Done &relayed() const { return relayed_; }

 private:
  enum class Stage {
    kHead, kAccept, kPeek, kConnect, kConnectTls, kAcceptTls, kRelay, kBytes, kGoodbye, kOver
  };

  void advance();
  void take_accept();
  void take_connect();
  void exchange_some();
  void clean_up();
  void leave();

  EngineDriver *engine_;
  std::string up_, down_, up_got_, down_got_;
  size_t up_sent_ = 0, down_sent_ = 0;
  Stage stage_ = Stage::kHead;
  bool accepted_ = false;
  Origin listening_;
  Peer client_, origin_;
  ptl_stream stream_ = 0, other_ = 0;
  uint64_t tag_ = 0;  // of the operation the stage waits for
  uint64_t connect_tag_ = 0;
  Done relayed_{};
};

}  // namespace test

#endif
