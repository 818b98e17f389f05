// A tunnel whose two ends do what they like: bytes, records that do not decrypt, key updates, alerts, goodbyes of every
// kind, resets.
//
// The input's first byte chooses a plain tunnel, TLS 1.2 or TLS 1.3; the rest are steps. Held: what an end receives
// is the beginning of what the other sent, whatever else goes on; the relay ends in one completion; where nobody did
// wrong everything arrives and every byte is counted; and nothing is left in the engine.
#include <poll.h>
#include <sys/socket.h>

#include <string>

#include "check.h"
#include "exchange.h"
#include "fuzz.h"
#include "host.h"
#include "tunnel.h"

using test::Done;
using test::Outcome;

namespace {

constexpr size_t kMaxSteps = 48;
constexpr size_t kMaxSent = 150000;  // a direction; what sockets hold without a reader

struct End {
  test::Peer *peer;
  std::string sent = "", got = "";
  bool finished = false;  // has said goodbye
  bool reset = false;
};

enum Act : uint8_t { kSend, kRead, kTurn, kUpdateKey, kGoodbye, kBareFin, kInject, kJunkRecord, kAlert, kReset, kActs };

// A Play is one tunnel and what its ends have done to it.
class Play {
 public:
  explicit Play(const test::TunnelSpec &spec)
      : tls_(spec.tls),
        tunnel_(test::open_tunnel(&fuzz::engine(), fuzz::listening_port(test::kHeadMax), spec)),
        ends_{{&tunnel_.client}, {&tunnel_.origin}} {
    relay_ = fuzz::engine().submit(test::relay_op(tunnel_.stream, tunnel_.other));
  }

  void act(Act act, int which, fuzz::Input *input) {
    End *end = &ends_[which];
    if (end->reset) return;
    SSL *ssl = end->peer->ssl();
    switch (act) {
      case kSend: {
        size_t size = input->u16();
        if (!end->finished) send(end, test::noise(size, size + end->sent.size()));
        break;
      }
      case kRead:
        read(end);
        break;
      case kTurn:
        fuzz::engine().turn(tunnel_.stream);
        break;
      case kUpdateKey:
        if (tls_ && !end->finished && SSL_version(ssl) == TLS1_3_VERSION) SSL_key_update(ssl, input->u8() % 2);
        break;
      case kGoodbye:
      case kBareFin:
        finish(end, act == kGoodbye);
        if (act == kBareFin && tls_) wrong_ = true;
        break;
      case kInject:
        inject(end, input->bytes(input->u8()));
        break;
      case kJunkRecord: {
        std::string body = input->bytes(input->u8());
        inject(end, std::string({23, 3, 3, 0, static_cast<char>(body.size())}) + body);
        break;
      }
      case kAlert:
        if (!tls_ || end->finished) break;
        SSL_send_fatal_alert(ssl, input->u8());
        wrong_ = end->finished = true;
        break;
      default:
        end->peer->reset();
        wrong_ = end->reset = true;
    }
  }

  void end() {
    if (!wrong_) {
      for (End &end : ends_) finish(&end, true);
      for (End &end : ends_) read_to_end(&end);
      Done done = fuzz::engine().await(relay_);
      FUZZ_CHECK(done->status == PTL_OK);
      FUZZ_CHECK(ends_[1].got == ends_[0].sent && ends_[0].got == ends_[1].sent);
      FUZZ_CHECK(done->bytes_out == ends_[0].sent.size() && done->bytes_in == ends_[1].sent.size());
    }
    for (End &end : ends_) {
      if (!end.reset) read(&end);
      if (!end.reset) end.peer->reset();
    }
    if (wrong_) fuzz::engine().await(relay_);
    fuzz::settle();
  }

 private:
  void send(End *end, const std::string &bytes) {
    if (end->sent.size() + bytes.size() > kMaxSent) return;
    size_t done = 0;
    while (done < bytes.size()) {
      bool broken;
      size_t n = end->peer->write_some(bytes.data() + done, bytes.size() - done, &broken);
      done += n;
      if (broken) {
        FUZZ_CHECK(wrong_);
        break;  // how much of it goes out nobody can tell
      }
      if (n != 0) continue;
      End *other = &ends_[end == &ends_[0] ? 1 : 0];
      if (!other->reset) read(other);
      fuzz::engine().turn(tunnel_.stream);
    }
    end->sent += bytes;
  }

  // What goes around the end's own TLS. In a plain tunnel they are bytes like others.
  void inject(End *end, const std::string &bytes) {
    if (end->finished || bytes.empty()) return;
    if (!tls_) {
      send(end, bytes);
      return;
    }
    wrong_ = true;
    (void)!::send(end->peer->fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }

  void finish(End *end, bool clean) {
    if (end->finished) return;
    end->finished = true;
    if (tls_ && clean) end->peer->say_goodbye();
    end->peer->shutdown_write();
  }

  Outcome read(End *end) {
    Outcome outcome;
    do {
      outcome = end->peer->read_some(&end->got, SIZE_MAX);
    } while (outcome == Outcome::kBytes);
    const std::string &sent = ends_[end == &ends_[0] ? 1 : 0].sent;
    FUZZ_CHECK(sent.compare(0, end->got.size(), end->got) == 0);
    return outcome;
  }

  void read_to_end(End *end) {
    Outcome outcome;
    while ((outcome = read(end)) == Outcome::kWait) end->peer->wait(POLLIN);
    FUZZ_CHECK(outcome == Outcome::kEnd);
  }

  const bool tls_;
  test::Tunnel tunnel_;
  End ends_[2];
  uint64_t relay_ = 0;
  bool wrong_ = false;  // somebody did what no honest end does
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz::Input input(data, size);
  const uint8_t kind = input.u8() % 3;
  test::TunnelSpec spec;
  spec.tls = kind != 0;
  spec.version = kind == 1 ? TLS1_2_VERSION : TLS1_3_VERSION;
  Play play(spec);
  for (size_t steps = 0; steps < kMaxSteps && !input.empty(); steps++) {
    uint8_t code = input.u8();
    play.act(static_cast<Act>((code >> 1) % kActs), code & 1, &input);
  }
  play.end();
  return 0;
}
