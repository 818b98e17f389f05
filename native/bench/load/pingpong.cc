// Small messages to and fro behind an Upgrade, as a WebSocket has them.
#include "common/net.h"
#include "common/pattern.h"
#include "load/talk.h"

namespace bench {
namespace {

class Pingpong : public Talk {
 public:
  Pingpong(const Settings &settings, const Plan &plan)
      : plan_(plan), rounds_(settings.rounds), size_(static_cast<size_t>(settings.message)) {
    if (size_ > kLongestPiece) die("--message is at most 65536");
    round_trips.reserve(static_cast<size_t>(rounds_));
  }

  Next pump(Channel *channel) override {
    if (!asked_) {
      asked_ = true;
      channel->write("GET /mirror HTTP/1.1\r\nHost: " + plan_.name + "\r\nConnection: Upgrade\r\nUpgrade: mirror\r\n\r\n");
    }
    channel->flush();
    for (;;) {
      uint8_t bytes[16384];
      size_t size = 0;
      Io io = channel->read(bytes, sizeof bytes, &size);
      if (io == Io::kWait) return Next::kWait;
      if (io != Io::kDone) return fail(std::string("in_messages_") + name_of(io));
      if (first_byte_ns == 0) first_byte_ns = now_ns();
      if (!upgraded_) {
        head_.append(reinterpret_cast<char *>(bytes), size);
        if (head_.find("\r\n\r\n") == std::string::npos) continue;
        if (head_.compare(0, 12, "HTTP/1.1 101") != 0) return fail("no_upgrade");
        upgraded_ = true;
        send(channel);
        continue;
      }
      if (!pattern_matches(plan_.seed, got_, bytes, size)) return fail("bytes_differ");
      got_ += size;
      down += size;
      if (got_ < up) continue;
      round_trips.push_back(static_cast<uint32_t>((now_ns() - sent_ns_) / 10));
      if (--rounds_ <= 0) return Next::kDone;
      send(channel);
    }
  }

 private:
  void send(Channel *channel) {
    sent_ns_ = now_ns();
    channel->write(pattern_at(plan_.seed, up), size_);
    up += size_;
    channel->flush();
  }

  Plan plan_;
  int64_t rounds_;
  size_t size_;
  bool asked_ = false, upgraded_ = false;
  std::string head_;
  uint64_t sent_ns_ = 0, got_ = 0;
};

}  // namespace

std::unique_ptr<Talk> make_pingpong(const Settings &settings, const Plan &plan) {
  return std::make_unique<Pingpong>(settings, plan);
}

}  // namespace bench
