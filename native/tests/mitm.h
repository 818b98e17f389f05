// One MITM tunnel as the proxy leads it, with both of its ends, as a state machine: many can run at once, and any
// step of any of them may fail.
//
// A client that goes through the engine sends a CONNECT, is answered, shakes hands, sends its bytes and gets the
// origin's; the operations are linked and quiet as the proxy's are. Every byte that arrives is compared with the one
// that was sent at that place, also when the tunnel ends in a failure. How it ends is in |status|: that of the first
// operation that failed, or of the relay.
#ifndef POLYTLS_TESTS_MITM_H
#define POLYTLS_TESTS_MITM_H

#include <poll.h>
#include <stdint.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine_driver.h"
#include "peer.h"

namespace test {

// What the ends of a tunnel do.
enum class Manner {
  kClean,
  kClientResets,   // anywhere
  kOriginResets,   // anywhere
  kHalfClose,      // the client ends before the origin has said anything
  kSlow,           // both ends take and give little at a time
  kGarbage,        // the client speaks no TLS
  kHelloCut,       // the client leaves within its hello
  kBadOrigin,      // the origin's certificate leads to no trusted root
  kNoProtocol,     // the client does not offer what upstream chose
  kRefused,        // nobody listens where upstream should be
  kUnverified,     // as kClean, but nobody looks at the origin's certificate
  kResumed,        // as kClean, with upstream's sessions kept and offered again, and its hello asked for
};
constexpr int kNumManners = 12;

constexpr int kNoStatus = -1;  // the engine never told of the client: it left, or was lost, while it was accepted

class Mitm {
 public:
  Mitm(EngineDriver *engine, uint16_t port, Manner manner, uint64_t seed, size_t most_bytes);

  // step does what can be done now, and returns whether that was anything.
  bool step();
  bool over() const;
  // taken hands over the accept of this tunnel's client.
  void taken(const Done &accept);
  uint16_t client_port() const { return client_port_; }
  bool left_early() const { return !client_.open && !accepted_; }
  void add_polls(std::vector<pollfd> *out) const;

  Manner manner() const { return manner_; }
  bool accepted() const { return accepted_; }
  int status() const { return status_; }
  bool whole() const { return client_.got == origin_.to_send && origin_.got == client_.to_send; }
  uint64_t seed() const { return seed_; }
  std::string told() const;  // where it is, for a failure

 private:
  struct Side {
    Peer peer;
    std::string to_send, got;
    size_t sent = 0;
    size_t resets_at = SIZE_MAX;  // when so many bytes were sent and got
    bool open = false, shaking = false, talking = false, said = false, ended = false;
  };

  bool react();
  bool step_client();
  bool step_origin();
  bool shake(Side *side);
  bool talk(Side *side, const Side &other);
  void leave(Side *side, bool reset);
  void first_chain();
  void second_chain();
  void fail(int status);

  EngineDriver *engine_;
  const Manner manner_;
  const uint64_t seed_;
  uint16_t client_port_ = 0;
  Origin listening_;
  Side client_, origin_;
  std::string answer_;
  bool answered_ = false;
  ptl_stream stream_ = 0, other_ = 0;
  std::vector<uint64_t> tags_;  // out, in the order of their operations
  int status_ = kNoStatus;
  bool accepted_ = false, closed_ = false;
};

// run_all runs |tunnels| to their ends, |at_once| at a time, handing every accept to its client. |each| is called with
// each that is over.
class MitmRunner {
 public:
  MitmRunner(EngineDriver *engine, uint16_t port) : engine_(engine), port_(port) {}

  Mitm *begin(Manner manner, uint64_t seed, size_t most_bytes);
  size_t open() const { return tunnels_.size(); }
  // turn moves all of them, waiting for an event where nothing can move, and returns those that are over.
  std::vector<std::unique_ptr<Mitm>> turn();
  // finish turns until all are over, and gives the test up when that takes longer than anything may.
  std::vector<std::unique_ptr<Mitm>> finish();

 private:
  static constexpr uint32_t kBeyondPorts = 1 << 16;

  void take_accepts();
  void go_round();

  EngineDriver *engine_;
  const uint16_t port_;
  // By the client's port; beyond those, tunnels whose clients have left and whose ports are others' now.
  std::map<uint32_t, std::unique_ptr<Mitm>> tunnels_;
  uint32_t past_ = 0;
};

// open_descriptors counts those of this process.
size_t open_descriptors();

}  // namespace test

#endif
