// HTTP/1.1: one request after another, its body going up while the answer comes down.
#include <stdlib.h>
#include <strings.h>

#include <algorithm>

#include "common/net.h"
#include "common/pattern.h"
#include "load/talk.h"

namespace bench {
namespace {

constexpr size_t kRecordBytes = 16384, kBurstBytes = 256 * 1024, kMaxHeadBytes = 65536;

class Http1 : public Talk {
 public:
  Http1(const Settings &settings, const Plan &plan)
      : plan_(plan),
        slow_bytes_(static_cast<size_t>(settings.slow_bytes)),
        left_(std::max<int64_t>(1, settings.requests)) {
    const Behaviour does = plan.behaviour;
    uploads_ = does == Behaviour::kPost || does == Behaviour::kEcho || does == Behaviour::kSlowWrite;
    echoes_ = does == Behaviour::kEcho;
    slow_read_ = does == Behaviour::kSlowRead;
    slow_write_ = does == Behaviour::kSlowWrite;
    cut_ = does == Behaviour::kOriginCut || does == Behaviour::kOriginReset;
    half_close_ = does == Behaviour::kHalfClose;
    upstream_fails_ = upstream_fails(does);
    if (does == Behaviour::kReset) reset_at_ = plan.size == 0 ? 0 : plan.chance % plan.size;
    resets_ = does == Behaviour::kReset;
    if (does != Behaviour::kGet && does != Behaviour::kPost && does != Behaviour::kEcho) left_ = 1;
    begin();
  }

  void begin_again() override {
    left_ = 1;
    begin();
  }

  Next pump(Channel *channel) override {
    size_t turn = 0;
    for (;;) {
      bool paused = false;
      size_t sent = send(channel, &paused);
      if (paused) return Next::kPause;
      static thread_local uint8_t bytes[kRecordBytes];
      size_t size = 0;
      Io io = channel->read(bytes, slow_read_ ? std::min(slow_bytes_, kRecordBytes) : kRecordBytes, &size);
      if (io == Io::kDone) {
        if (first_byte_ns == 0) first_byte_ns = now_ns();
        Next next = take(bytes, size);
        if (next != Next::kAgain) return next;
        if (slow_read_) return Next::kPause;
      } else if (io != Io::kWait) {
        return at_end(io);
      } else if (sent == 0) {
        return Next::kWait;
      }
      turn += size + sent;
      if (turn >= kTalkTurnBytes) return Next::kAgain;
    }
  }

 private:
  enum class Answer { kHead, kLength, kToEnd };

  void begin() {
    head_ = request_head();
    to_send_ = uploads_ ? plan_.size : 0;
    sent_ = got_ = 0;
    answer_ = Answer::kHead;
    in_.clear();
    said_.clear();
  }

  std::string request_head() const {
    const std::string seed = std::to_string(plan_.seed), size = std::to_string(plan_.size);
    std::string verb = "bytes";
    if (plan_.behaviour == Behaviour::kOriginClose) verb = "close";
    if (plan_.behaviour == Behaviour::kOriginCut) verb = "cut";
    if (plan_.behaviour == Behaviour::kOriginReset) verb = "reset";
    std::string line = "GET /" + verb + "/" + size + "/" + seed;
    if (uploads_) line = std::string("POST /") + (echoes_ ? "echo" : "sink") + "/" + seed;
    std::string head = line + " HTTP/1.1\r\nHost: " + plan_.name + "\r\nUser-Agent: bench\r\nAccept: */*\r\n";
    if (uploads_) head += "Content-Length: " + size + "\r\n";
    if (half_close_) head += "Connection: close\r\n";
    return head + "\r\n";
  }

  // What can be sent now; it returns how many bytes that was.
  size_t send(Channel *channel, bool *out_paused) {
    if (channel->flush() != Io::kDone) return 0;
    size_t sent = head_.size();
    if (!head_.empty()) {
      channel->write(head_);
      head_.clear();
      if (half_close_) channel->shutdown_write();
    }
    size_t most = slow_write_ ? slow_bytes_ : kBurstBytes, body = 0;
    while (to_send_ > 0 && body < most) {
      size_t piece = static_cast<size_t>(std::min<uint64_t>(to_send_, std::min(kRecordBytes, most - body)));
      channel->write(pattern_at(plan_.seed, sent_), piece);
      sent_ += piece;
      to_send_ -= piece;
      body += piece;
    }
    up += body;
    channel->flush();
    *out_paused = slow_write_ && body > 0;
    return sent + body;
  }

  // kAgain: go on.
  Next take(const uint8_t *bytes, size_t size) {
    if (answer_ != Answer::kHead) return take_body(bytes, size);
    size_t before = in_.size();
    in_.append(reinterpret_cast<const char *>(bytes), size);
    size_t end = in_.find("\r\n\r\n", before > 3 ? before - 3 : 0);
    if (end == std::string::npos) return in_.size() > kMaxHeadBytes ? fail("head_too_long") : Next::kAgain;
    size_t used = end + 4 - before;
    in_.resize(end + 2);
    if (in_.compare(0, 7, "HTTP/1.") != 0) return fail("no_http");
    const std::string status = in_.substr(9, 3);
    if (upstream_fails_) return status[0] == '5' ? Next::kDone : fail("a_refusal_got_" + status);
    if (status != "200") return fail("status_" + status);
    read_length();
    if (resets_ && reset_at_ == 0) return Next::kReset;
    return take_body(bytes + used, size - used);
  }

  void read_length() {
    answer_ = Answer::kToEnd;
    expected_ = uploads_ && !echoes_ ? 0 : plan_.size;
    for (size_t at = in_.find("\r\n"); at + 2 < in_.size(); at = in_.find("\r\n", at + 2)) {
      if (strncasecmp(in_.c_str() + at + 2, "content-length:", 15) != 0) continue;
      announced_ = strtoull(in_.c_str() + at + 17, nullptr, 10);
      answer_ = Answer::kLength;
    }
  }

  Next take_body(const uint8_t *bytes, size_t size) {
    if (uploads_ && !echoes_) {
      said_.append(reinterpret_cast<const char *>(bytes), size);
      if (said_.size() < announced_) return Next::kAgain;
      return said_ == std::to_string(plan_.size) + " ok" ? finished() : fail("origin_got_other_bytes");
    }
    if (!pattern_matches(plan_.seed, got_, bytes, size)) return fail("bytes_differ");
    got_ += size;
    down += size;
    if (got_ > expected_) return fail("bytes_too_many");
    if (resets_ && got_ >= reset_at_) return Next::kReset;
    if (answer_ == Answer::kToEnd || half_close_ || got_ < expected_) return Next::kAgain;
    return announced_ == expected_ ? finished() : fail("length_differs");
  }

  Next finished() {
    if (to_send_ > 0) return fail("answered_early");
    if (--left_ == 0) return Next::kDone;
    begin();
    return Next::kAgain;
  }

  Next at_end(Io io) {
    if (cut_) {
      if (answer_ == Answer::kHead) return fail(std::string("before_the_cut_") + name_of(io));
      return io != Io::kEnd && io != Io::kFailed && got_ < expected_
                 ? Next::kDone
                 : fail(std::string("cut_looks_like_") + name_of(io));
    }
    bool whole = answer_ != Answer::kHead && got_ == expected_;
    if ((answer_ == Answer::kToEnd || half_close_) && whole && io == Io::kEnd) return Next::kDone;
    return fail(std::string(answer_ == Answer::kHead ? "before_answer_" : "in_body_") + name_of(io));
  }

  Plan plan_;
  size_t slow_bytes_;
  int64_t left_;
  bool uploads_ = false, echoes_ = false, slow_read_ = false, slow_write_ = false, cut_ = false;
  bool half_close_ = false, resets_ = false, upstream_fails_ = false;
  uint64_t reset_at_ = 0;
  std::string head_, in_, said_;
  uint64_t to_send_ = 0, sent_ = 0, got_ = 0, expected_ = 0, announced_ = 0;
  Answer answer_ = Answer::kHead;
};

}  // namespace

std::unique_ptr<Talk> make_http1(const Settings &settings, const Plan &plan) {
  return std::make_unique<Http1>(settings, plan);
}

const char *name_of(Io io) {
  switch (io) {
    case Io::kEnd: return "end";
    case Io::kCut: return "cut";
    case Io::kReset: return "reset";
    case Io::kFailed: return "tls_error";
    default: return "unexpected";
  }
}

}  // namespace bench
