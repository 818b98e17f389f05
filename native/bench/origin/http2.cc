// HTTP/2 for GET /bytes/SIZE/SEED: streams in turn, flow control, 16 KiB records. Other paths are answered 404.
#include <string.h>

#include <algorithm>
#include <map>

#include "common/http2.h"
#include "common/pattern.h"
#include "origin/hpack.h"
#include "origin/protocol.h"
#include "origin/route.h"

namespace bench {
namespace {

// A DATA frame with its head fills one record exactly.
constexpr size_t kPieceBytes = h2::kMaxFrameBytes - h2::kHeadBytes;
constexpr char kStatus200 = static_cast<char>(0x88), kStatus404 = static_cast<char>(0x8d);

struct Stream {
  Route route;
  uint64_t left = 0, offset = 0;
  int64_t window = 0;
};

class Http2 : public Protocol {
 public:
  Next pump(Channel *channel) override {
    if (!greeted_) greet(channel);
    size_t turn = 0;
    for (;;) {
      Next next = take_all(channel, &turn);
      if (next == Next::kGone) return next;
      Io flushed = channel->flush();
      if (flushed == Io::kReset || flushed == Io::kFailed) return Next::kGone;
      if (flushed == Io::kWait) return Next::kWait;
      size_t sent = send_some(channel);
      if (sent == 0) return next;
      turn += sent;
      flushed = channel->flush();
      if (flushed == Io::kReset) return Next::kGone;
      if (flushed == Io::kWait) return Next::kWait;
      if (turn >= kTurnBytes) return Next::kAgain;
    }
  }

 private:
  void greet(Channel *channel) {
    std::string hello;
    h2::append_head(&hello, 12, h2::kSettings, 0, 0);
    h2::append_setting(&hello, h2::kHeaderTableSize, 0);
    h2::append_setting(&hello, h2::kMaxStreams, 256);
    channel->write(hello);
    greeted_ = true;
  }

  // Whatever has come, frame by frame.
  Next take_all(Channel *channel, size_t *turn) {
    for (;;) {
      uint8_t bytes[4096];
      size_t size = 0;
      Io io = channel->read(bytes, sizeof bytes, &size);
      if (io == Io::kWait) return Next::kWait;
      if (io != Io::kDone) {
        channel->say_goodbye();
        return Next::kGone;
      }
      in_.append(reinterpret_cast<const char *>(bytes), size);
      *turn += size;
      if (!take_frames(channel)) return Next::kGone;
    }
  }

  bool take_frames(Channel *channel) {
    size_t at = 0;
    if (!prefaced_) {
      if (in_.size() < h2::kPrefaceBytes) return true;
      if (in_.compare(0, h2::kPrefaceBytes, h2::kPreface) != 0) return false;
      prefaced_ = true;
      at = h2::kPrefaceBytes;
    }
    while (in_.size() - at >= h2::kHeadBytes) {
      const auto *bytes = reinterpret_cast<const uint8_t *>(in_.data()) + at;
      h2::FrameHead head = h2::read_head(bytes);
      if (head.size > h2::kMaxFrameBytes) return false;
      if (in_.size() - at < h2::kHeadBytes + head.size) break;
      if (!take(channel, head, bytes + h2::kHeadBytes)) return false;
      at += h2::kHeadBytes + head.size;
    }
    in_.erase(0, at);
    if (in_.empty()) std::string().swap(in_);
    return true;
  }

  bool take(Channel *channel, const h2::FrameHead &head, const uint8_t *body) {
    switch (head.type) {
      case h2::kHeaders:
        return take_request(channel, head, body);
      case h2::kSettings:
        return take_settings(channel, head, body);
      case h2::kWindowUpdate:
        return head.size == 4 && widen(head.stream, h2::read_u32(body) & 0x7fffffff);
      case h2::kReset:
        streams_.erase(head.stream);
        return true;
      case h2::kPing:
        if (!(head.flags & h2::kAck) && head.size == 8) {
          std::string pong;
          h2::append_head(&pong, 8, h2::kPing, h2::kAck, 0);
          channel->write(pong.append(reinterpret_cast<const char *>(body), 8));
        }
        return true;
      case h2::kContinuation:
        return false;  // no request here is that long
      default:
        return true;
    }
  }

  bool take_settings(Channel *channel, const h2::FrameHead &head, const uint8_t *body) {
    if (head.flags & h2::kAck) return true;
    for (size_t at = 0; at + 6 <= head.size; at += 6) {
      if ((body[at] << 8 | body[at + 1]) != h2::kInitialWindow) continue;
      int64_t fresh = h2::read_u32(body + at + 2);
      for (auto &[id, stream] : streams_) stream.window += fresh - first_window_;
      first_window_ = fresh;
    }
    std::string ack;
    h2::append_head(&ack, 0, h2::kSettings, h2::kAck, 0);
    channel->write(ack);
    return true;
  }

  bool widen(uint32_t stream, int64_t by) {
    auto found = streams_.find(stream);
    if (stream == 0) window_ += by;
    else if (found != streams_.end()) found->second.window += by;
    return window_ <= h2::kLargestWindow;
  }

  bool take_request(Channel *channel, const h2::FrameHead &head, const uint8_t *body) {
    size_t from = head.flags & h2::kPadded ? 1 : 0, to = head.size;
    if (from == 1) to -= std::min<size_t>(to, body[0]);
    if (head.flags & h2::kPriority) from += 5;
    std::string path;
    if (!(head.flags & h2::kEndHeaders) || from > to || !find_path(body + from, to - from, &path)) return false;
    Stream stream{route_of(path), 0, 0, first_window_};
    bool known = stream.route.kind == Route::kBytes;
    stream.left = stream.route.size;
    std::string answer;
    h2::append_head(&answer, 1, h2::kHeaders, h2::kEndHeaders | (known && stream.left > 0 ? 0 : h2::kEndStream), head.stream);
    answer += known ? kStatus200 : kStatus404;
    channel->write(answer);
    if (known && stream.left > 0) streams_[head.stream] = stream;
    return true;
  }

  // One burst, a record of each stream in turn. It returns how much was written.
  size_t send_some(Channel *channel) {
    size_t sent = 0;
    auto it = streams_.upper_bound(last_);
    for (size_t idle = 0; sent < kBurstBytes && idle <= streams_.size() && !streams_.empty();) {
      if (it == streams_.end()) it = streams_.begin();
      Stream &stream = it->second;
      int64_t room = std::min(window_, stream.window);
      size_t piece = static_cast<size_t>(std::max<int64_t>(0, std::min<int64_t>(room, kPieceBytes)));
      piece = static_cast<size_t>(std::min<uint64_t>(piece, stream.left));
      if (piece == 0) {
        idle++;
        ++it;
        continue;
      }
      idle = 0;
      last_ = it->first;
      write_data(channel, it->first, &stream, piece);
      sent += piece;
      it = stream.left == 0 ? streams_.erase(it) : std::next(it);
    }
    return sent;
  }

  void write_data(Channel *channel, uint32_t id, Stream *stream, size_t piece) {
    static thread_local uint8_t record[h2::kMaxFrameBytes];
    std::string head;
    h2::append_head(&head, piece, h2::kData, stream->left == piece ? h2::kEndStream : 0, id);
    memcpy(record, head.data(), h2::kHeadBytes);
    memcpy(record + h2::kHeadBytes, pattern_at(stream->route.seed, stream->offset), piece);
    channel->write(record, h2::kHeadBytes + piece);
    stream->left -= piece;
    stream->offset += piece;
    stream->window -= static_cast<int64_t>(piece);
    window_ -= static_cast<int64_t>(piece);
  }

  bool greeted_ = false, prefaced_ = false;
  std::string in_;
  std::map<uint32_t, Stream> streams_;
  uint32_t last_ = 0;
  int64_t window_ = h2::kFirstWindow, first_window_ = h2::kFirstWindow;
};

}  // namespace

std::unique_ptr<Protocol> make_http2() { return std::make_unique<Http2>(); }

}  // namespace bench
