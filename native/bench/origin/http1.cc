// HTTP/1.1 for the paths of route.h.
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>

#include <algorithm>

#include "common/pattern.h"
#include "origin/protocol.h"
#include "origin/route.h"

namespace bench {
namespace {

constexpr size_t kMaxHeadBytes = 65536;
constexpr size_t kRecordBytes = 16384;

class Http1 : public Protocol {
 public:
  Next pump(Channel *channel) override {
    size_t turn = 0;
    for (;;) {
      Io flushed = channel->flush();
      if (flushed == Io::kWait) return Next::kWait;
      if (flushed != Io::kDone) return Next::kGone;
      if (sending_ > 0) {
        turn += send_some(channel);
        if (turn >= kTurnBytes) return Next::kAgain;
        continue;
      }
      if (after_ != After::kNothing) return finish(channel);
      static thread_local uint8_t bytes[kRecordBytes];
      size_t size = 0;
      Io io = channel->read(bytes, sizeof bytes, &size);
      if (io == Io::kWait) return Next::kWait;
      if (io != Io::kDone) {
        channel->say_goodbye();
        return Next::kGone;
      }
      if (!take(channel, bytes, size)) return Next::kGone;
      turn += size;
      if (turn >= kTurnBytes) return Next::kAgain;
    }
  }

 private:
  enum class After { kNothing, kGoodbye, kCut, kReset, kDrain };

  size_t send_some(Channel *channel) {
    size_t sent = 0;
    while (sending_ > 0 && sent < kBurstBytes) {
      size_t piece = static_cast<size_t>(std::min<uint64_t>(sending_, kRecordBytes));
      channel->write(pattern_at(route_.seed, offset_), piece);
      offset_ += piece;
      sending_ -= piece;
      sent += piece;
    }
    return sent;
  }

  // What went before has left; close_notify may still have to wait for room. Then what the peer has sent is read to
  // its end: closing a socket with bytes unread sends RST, which may overtake what the peer has not read yet.
  Next finish(Channel *channel) {
    if (after_ == After::kReset) {
      channel->reset();
      return Next::kGone;
    }
    if (after_ == After::kGoodbye) {
      channel->say_goodbye();
      after_ = After::kCut;
      if (channel->waiting() > 0) return Next::kWait;
    }
    if (after_ == After::kCut) shutdown(channel->fd(), SHUT_WR);
    after_ = After::kDrain;
    uint8_t bytes[4096];
    size_t size = 0;
    Io io;
    while ((io = channel->read(bytes, sizeof bytes, &size)) == Io::kDone) continue;
    return io == Io::kWait ? Next::kWait : Next::kGone;
  }

  // Bytes of the request: heads, bodies, or what is mirrored. False: they are no request.
  bool take(Channel *channel, const uint8_t *bytes, size_t size) {
    while (size > 0) {
      if (route_.kind == Route::kMirror) return channel->write(bytes, size) == Io::kDone;
      if (receiving_ > 0) {
        size_t piece = static_cast<size_t>(std::min<uint64_t>(receiving_, size));
        take_body(channel, bytes, piece);
        bytes += piece;
        size -= piece;
        continue;
      }
      if (sending_ > 0) return false;  // pipelining, which nobody here does
      size_t before = head_.size();
      head_.append(reinterpret_cast<const char *>(bytes), size);
      size_t end = head_.find("\r\n\r\n", before > 3 ? before - 3 : 0);
      if (end == std::string::npos) return head_.size() <= kMaxHeadBytes;
      size_t used = end + 4 - before;
      head_.resize(end + 2);
      if (!answer(channel)) return false;
      std::string().swap(head_);
      bytes += used;
      size -= used;
    }
    return true;
  }

  void take_body(Channel *channel, const uint8_t *bytes, size_t size) {
    matches_ = matches_ && pattern_matches(route_.seed, offset_, bytes, size);
    offset_ += size;
    receiving_ -= size;
    if (route_.kind == Route::kEcho) channel->write(bytes, size);
    if (receiving_ == 0 && route_.kind == Route::kSink) answer_sink(channel);
  }

  void answer_sink(Channel *channel) {
    std::string said = std::to_string(offset_) + (matches_ ? " ok" : " wrong");
    channel->write("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(said.size()) + "\r\n\r\n" + said);
  }

  std::string field(const char *name) const {
    for (size_t at = head_.find("\r\n"); at + 2 < head_.size(); at = head_.find("\r\n", at + 2)) {
      size_t colon = head_.find(':', at);
      if (colon == std::string::npos) break;
      std::string found = head_.substr(at + 2, colon - at - 2);
      if (strcasecmp(found.c_str(), name) != 0) continue;
      size_t from = head_.find_first_not_of(" \t", colon + 1);
      return head_.substr(from, head_.find("\r\n", from) - from);
    }
    return "";
  }

  bool answer(Channel *channel) {
    size_t first = head_.find(' '), second = head_.find(' ', first + 1);
    if (first == std::string::npos || second == std::string::npos) return false;
    route_ = route_of(head_.substr(first + 1, second - first - 1));
    offset_ = 0;
    matches_ = true;
    uint64_t length = strtoull(field("content-length").c_str(), nullptr, 10);
    if (strcasecmp(field("connection").c_str(), "close") == 0) after_ = After::kGoodbye;
    switch (route_.kind) {
      case Route::kMirror:
        channel->write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: mirror\r\n\r\n");
        return true;
      case Route::kSink:
        receiving_ = length;
        if (length == 0) answer_sink(channel);
        return true;
      case Route::kEcho:
        receiving_ = length;
        channel->write("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(length) + "\r\n\r\n");
        return true;
      case Route::kClose:
        after_ = After::kGoodbye;
        sending_ = route_.size;
        channel->write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        return true;
      case Route::kUnknown:
        channel->write("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        return true;
      case Route::kBytes:
      case Route::kCut:
      case Route::kReset:
        break;
    }
    if (route_.kind != Route::kBytes) after_ = route_.kind == Route::kCut ? After::kCut : After::kReset;
    sending_ = route_.kind == Route::kBytes ? route_.size : route_.size / 2;
    channel->write("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: " +
                   std::to_string(route_.size) + "\r\n\r\n");
    return true;
  }

  std::string head_;
  Route route_;
  uint64_t sending_ = 0, receiving_ = 0, offset_ = 0;
  bool matches_ = true;
  After after_ = After::kNothing;
};

}  // namespace

std::unique_ptr<Protocol> make_http1() { return std::make_unique<Http1>(); }

}  // namespace bench
