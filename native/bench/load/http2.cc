// HTTP/2: some GETs at once on one connection, with windows as wide as they go.
#include <algorithm>
#include <map>

#include "common/http2.h"
#include "common/net.h"
#include "common/pattern.h"
#include "load/talk.h"

namespace bench {
namespace {

constexpr int64_t kTopUpBelow = h2::kLargestWindow / 2;

class Http2 : public Talk {
 public:
  Http2(const Settings &settings, const Plan &plan) : plan_(plan), streams_(settings.streams), left_(std::max<int64_t>(1, settings.requests)) {
    out_ = std::string(h2::kPreface, h2::kPrefaceBytes);
    h2::append_head(&out_, 12, h2::kSettings, 0, 0);
    h2::append_setting(&out_, h2::kEnablePush, 0);
    h2::append_setting(&out_, h2::kInitialWindow, h2::kLargestWindow);
    h2::append_window_update(&out_, 0, static_cast<uint32_t>(h2::kLargestWindow - h2::kFirstWindow));
    window_ = h2::kLargestWindow;
    ask();
  }

  Next pump(Channel *channel) override {
    size_t turn = 0;
    for (;;) {
      if (!out_.empty()) channel->write(out_), out_.clear();
      Io flushed = channel->flush();
      if (flushed == Io::kReset) return fail("in_request_reset");
      static thread_local uint8_t bytes[16384];
      size_t size = 0;
      Io io = channel->read(bytes, sizeof bytes, &size);
      if (io == Io::kWait) return Next::kWait;
      if (io != Io::kDone) return fail(std::string("in_streams_") + name_of(io));
      if (first_byte_ns == 0) first_byte_ns = now_ns();
      if (!take(bytes, size)) return Next::kFailed;
      if (open_.empty() && --left_ <= 0) return Next::kDone;
      if (open_.empty()) ask();
      turn += size;
      if (turn >= kTalkTurnBytes) return Next::kAgain;
    }
  }

 private:
  struct Stream {
    uint64_t got = 0;
    int64_t window = h2::kLargestWindow;
    bool answered = false;
  };

  void ask() {
    // RFC 7541 Appendix A: 2 is :method GET, 7 :scheme https, 4 the name :path, 1 :authority.
    std::string block = "\x82\x87";
    const std::string path = "/bytes/" + std::to_string(plan_.size) + "/" + std::to_string(plan_.seed);
    for (const auto &[name, value] : {std::pair<char, std::string>{4, path}, {1, plan_.name}}) {
      block += name;
      block += static_cast<char>(value.size());  // names here stay below 127 bytes
      block += value;
    }
    for (int64_t i = 0; i < streams_; i++) {
      h2::append_head(&out_, block.size(), h2::kHeaders, h2::kEndHeaders | h2::kEndStream, next_);
      out_ += block;
      open_[next_] = Stream{};
      next_ += 2;
    }
  }

  // Bytes of frames, which may be cut anywhere.
  bool take(const uint8_t *bytes, size_t size) {
    while (size > 0 || (in_frame_ && frame_left_ == 0)) {
      if (!in_frame_) {
        size_t piece = std::min(size, h2::kHeadBytes - partial_.size());
        partial_.append(reinterpret_cast<const char *>(bytes), piece);
        bytes += piece;
        size -= piece;
        if (partial_.size() < h2::kHeadBytes) return true;
        frame_ = h2::read_head(reinterpret_cast<const uint8_t *>(partial_.data()));
        partial_.clear();
        in_frame_ = true;
        frame_left_ = frame_.size;
        padding_ = 0;
        padding_known_ = !(frame_.flags & h2::kPadded) || frame_.type != h2::kData;
      }
      size_t piece = std::min<size_t>(size, frame_left_);
      frame_left_ -= static_cast<uint32_t>(piece);
      if (frame_.type == h2::kData ? !take_data(bytes, piece) : !take_other(bytes, piece)) return false;
      bytes += piece;
      size -= piece;
      if (frame_left_ > 0) return true;
      in_frame_ = false;
      if (!end_of_frame()) return false;
    }
    return true;
  }

  bool take_data(const uint8_t *bytes, size_t size) {
    auto found = open_.find(frame_.stream);
    if (found == open_.end()) return fail("data_of_no_stream") != Next::kFailed;
    Stream &stream = found->second;
    spend(frame_.stream, &stream, size);
    if (!padding_known_ && size > 0) {
      padding_ = *bytes++;
      size--;
      padding_known_ = true;
    }
    // The last |padding_| bytes of the frame are none of the body's.
    size_t behind = frame_left_, body = size + behind > padding_ ? std::min(size, size + behind - padding_) : 0;
    if (!pattern_matches(plan_.seed, stream.got, bytes, body)) return fail("bytes_differ") != Next::kFailed;
    stream.got += body;
    down += body;
    return true;
  }

  void spend(uint32_t id, Stream *stream, size_t size) {
    for (auto [window, which] : {std::pair<int64_t *, uint32_t>{&window_, 0}, {&stream->window, id}}) {
      *window -= static_cast<int64_t>(size);
      if (*window >= kTopUpBelow) continue;
      h2::append_window_update(&out_, which, static_cast<uint32_t>(h2::kLargestWindow - *window));
      *window = h2::kLargestWindow;
    }
  }

  bool take_other(const uint8_t *bytes, size_t size) {
    if (partial_.size() < h2::kMaxFrameBytes) partial_.append(reinterpret_cast<const char *>(bytes), size);
    return true;
  }

  bool end_of_frame() {
    const std::string body = std::move(partial_);
    partial_.clear();
    auto found = open_.find(frame_.stream);
    switch (frame_.type) {
      case h2::kSettings:
        if (!(frame_.flags & h2::kAck)) h2::append_head(&out_, 0, h2::kSettings, h2::kAck, 0);
        return true;
      case h2::kPing:
        if (!(frame_.flags & h2::kAck)) h2::append_head(&out_, 8, h2::kPing, h2::kAck, 0), out_ += body;
        return true;
      case h2::kReset:
        return fail("stream_reset") != Next::kFailed;
      case h2::kGoAway:
        return fail("goaway") != Next::kFailed;
      case h2::kHeaders:
        if (found == open_.end()) return true;
        if (!found->second.answered && !says_200(body)) return fail("status_not_200") != Next::kFailed;
        found->second.answered = true;
        break;
      case h2::kData:
        break;
      default:
        return true;
    }
    if (!(frame_.flags & h2::kEndStream) || found == open_.end()) return true;
    if (found->second.got != plan_.size) return fail("length_differs") != Next::kFailed;
    open_.erase(found);
    return true;
  }

  // :status comes first (RFC 9113 §8.3); 200 is entry 8 of HPACK's table, behind table size updates.
  bool says_200(const std::string &block) const {
    size_t at = 0;
    while (at < block.size() && (static_cast<uint8_t>(block[at]) & 0xe0) == 0x20) at++;
    return at < block.size() && static_cast<uint8_t>(block[at]) == 0x88;
  }

  Plan plan_;
  int64_t streams_, left_;
  std::string out_, partial_;
  std::map<uint32_t, Stream> open_;
  uint32_t next_ = 1;
  int64_t window_ = 0;
  h2::FrameHead frame_{};
  bool in_frame_ = false, padding_known_ = true;
  uint32_t frame_left_ = 0, padding_ = 0;
};

}  // namespace

std::unique_ptr<Talk> make_http2(const Settings &settings, const Plan &plan) {
  return std::make_unique<Http2>(settings, plan);
}

}  // namespace bench
