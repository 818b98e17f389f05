#include "load/tunnel.h"

#include <errno.h>
#include <string.h>

#include <algorithm>

#include "common/net.h"
#include "common/pattern.h"

namespace bench {
namespace {

constexpr int kSlowReceiveBytes = 16 * 1024;  // of a socket that is read slowly
constexpr size_t kMaxAnswerBytes = 16384;
constexpr size_t kGarbageBytes = 64;
constexpr int kResetStages = 5;
constexpr int64_t kLeaveMs = 20;

}  // namespace

Tunnel::Tunnel(Runner *runner, Plan plan) : runner_(runner), plan_(std::move(plan)) {}

void Tunnel::begin() {
  const Settings &settings = runner_->settings();
  times_.began = progress_ns_ = now_ns();
  bool slow = plan_.behaviour == Behaviour::kSlowRead;
  int fd = connect_socket(plan_.through_proxy ? settings.proxy : settings.origin, slow ? kSlowReceiveBytes : 0);
  if (fd < 0)
    return fail(errno == EADDRNOTAVAIL ? "no_local_port" : std::string("connect_") + strerrorname_np(errno));
  channel_.open(fd);
  if (slow) channel_.set_receive_limit(static_cast<size_t>(settings.slow_bytes));
  runner_->loop()->add(fd, this);
}

void Tunnel::on_event(uint32_t events) {
  if (events != 0) channel_.ready(events & kEnding);
  progress_ns_ = now_ns();
  if (!paused_) go_on();
}

void Tunnel::wake() {
  paused_ = false;
  progress_ns_ = now_ns();
  go_on();
}

// Each step returns whether the next one can begin at once.
void Tunnel::go_on() {
  for (bool more = true; more;) {
    switch (step_) {
      case Step::kConnect: more = connected(); break;
      case Step::kAsk: more = ask(); break;
      case Step::kShake: more = shake(); break;
      case Step::kTalk: more = talk(); break;
      case Step::kAwaitEnd: more = await_end(); break;
      case Step::kHeld: more = held(); break;
    }
  }
}

bool Tunnel::connected() {
  int error = connect_error(channel_.fd());
  if (error != 0) return fail(std::string("connect_") + strerrorname_np(error)), false;
  if (reset_here(0)) return false;
  if (!plan_.through_proxy) return begin_tls();
  std::string head = "CONNECT " + plan_.connect_to + " HTTP/1.1\r\nHost: " + plan_.connect_to + "\r\n";
  if (plan_.behaviour == Behaviour::kNotConnect) head.replace(0, 7, "OPTIONS");
  if (plan_.behaviour == Behaviour::kBadHead) head.replace(7, 1, "  ");
  for (const std::string &field : runner_->settings().connect_fields) head += field + "\r\n";
  channel_.write(head + "\r\n");
  channel_.flush();
  if (reset_here(1)) return false;
  step_ = Step::kAsk;
  if (plan_.behaviour == Behaviour::kLeave) {
    paused_ = true;  // the proxy is to have begun
    runner_->wake(this, kLeaveMs);
    return false;
  }
  return true;
}

bool Tunnel::ask() {
  if (plan_.behaviour == Behaviour::kLeave) {
    channel_.reset();
    end_well();
    return false;
  }
  // One byte too many would be the origin's: none may come before the client has spoken.
  uint8_t bytes[4096];
  size_t size = 0;
  Io io = channel_.read(bytes, sizeof bytes, &size);
  if (io == Io::kWait) return false;
  if (io != Io::kDone) return fail(std::string("connect_") + name_of(io)), false;
  in_.append(reinterpret_cast<char *>(bytes), size);
  size_t end = in_.find("\r\n\r\n");
  if (end == std::string::npos) return in_.size() < kMaxAnswerBytes || (fail("connect_answer_too_long"), false);
  if (in_.compare(0, 7, "HTTP/1.") != 0) return fail("connect_answer_no_http"), false;
  if (in_.compare(9, plan_.status.size(), plan_.status) != 0) return fail("connect_status_" + in_.substr(9, 3)), false;
  if (plan_.status != "2") return end_well(), false;
  if (in_.size() != end + 4) return fail("connect_answer_with_more"), false;
  in_.clear();
  if (reset_here(2)) return false;
  return begin_tls();
}

bool Tunnel::begin_tls() {
  times_.answered = now_ns();
  if (plan_.behaviour == Behaviour::kHelloCut || plan_.behaviour == Behaviour::kGarbage) {
    const std::string &hello = runner_->sample_hello();
    if (plan_.behaviour == Behaviour::kHelloCut) channel_.write(hello.substr(0, plan_.chance % hello.size()));
    else channel_.write(std::string(kGarbageBytes, static_cast<char>('A' + plan_.chance % 26)));
    channel_.flush();
    if (plan_.behaviour == Behaviour::kHelloCut) channel_.shutdown_write();
    step_ = Step::kAwaitEnd;
    return true;
  }
  SSL *ssl = channel_.make_tls(runner_->context(), false);
  SSL_set_app_data(ssl, reinterpret_cast<char *>(this));
  SSL_set_tlsext_host_name(ssl, plan_.behaviour == Behaviour::kSniMismatch ? "another.test" : plan_.name.c_str());
  if (plan_.behaviour == Behaviour::kAlpnMismatch) {
    static const uint8_t odd[] = "\x03odd";
    SSL_set_alpn_protos(ssl, odd, sizeof odd - 1);
  }
  if (!runner_->settings().ca.empty()) SSL_set1_host(ssl, plan_.name.c_str());
  if (runner_->settings().resume && runner_->session_of(plan_.name))
    SSL_set_session(ssl, runner_->session_of(plan_.name));
  if (plan_.behaviour == Behaviour::kRejectLeaf) {
    SSL_set_custom_verify(ssl, SSL_VERIFY_PEER, [](SSL *, uint8_t *alert) {
      *alert = SSL_AD_UNKNOWN_CA;
      return ssl_verify_invalid;
    });
  }
  step_ = Step::kShake;
  return true;
}

bool Tunnel::shake() {
  Io io = channel_.handshake();
  if (reset_here(3)) return false;
  if (io == Io::kWait) return false;
  if (io != Io::kDone) {
    const std::string detail = last_tls_error();
    bool rejected = plan_.behaviour == Behaviour::kRejectLeaf && detail == "CERTIFICATE_VERIFY_FAILED";
    if (rejected || upstream_fails(plan_.behaviour)) return end_well(), false;
    if (plan_.behaviour == Behaviour::kSniMismatch && detail == "TLSV1_ALERT_UNRECOGNIZED_NAME") return end_well(), false;
    if (plan_.behaviour == Behaviour::kAlpnMismatch && detail == "TLSV1_ALERT_NO_APPLICATION_PROTOCOL") return end_well(), false;
    return fail("handshake_" + (detail.empty() ? name_of(io) : detail)), false;
  }
  const Behaviour does = plan_.behaviour;
  if (does == Behaviour::kRejectLeaf || does == Behaviour::kSniMismatch || does == Behaviour::kAlpnMismatch) {
    return fail("handshake_was_not_refused"), false;
  }
  if (reset_here(4)) return false;
  times_.shaken = now_ns();
  const uint8_t *protocol = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(channel_.ssl(), &protocol, &size);
  is_h2_ = size == 2 && memcmp(protocol, "h2", 2) == 0;
  resumed_ = SSL_session_reused(channel_.ssl());
  if (plan_.behaviour == Behaviour::kPingpong) talk_ = make_pingpong(runner_->settings(), plan_);
  else talk_ = is_h2_ ? make_http2(runner_->settings(), plan_) : make_http1(runner_->settings(), plan_);
  step_ = Step::kTalk;
  return true;
}

bool Tunnel::talk() {
  switch (talk_->pump(&channel_)) {
    case Talk::Next::kWait: return false;
    case Talk::Next::kAgain: runner_->loop()->again(this); return false;
    case Talk::Next::kPause:
      paused_ = true;
      runner_->wake(this, runner_->settings().slow_ms);
      return false;
    case Talk::Next::kReset:
      channel_.reset();
      end_well();
      return false;
    case Talk::Next::kFailed: fail(talk_->failure); return false;
    case Talk::Next::kDone: break;
  }
  times_.first_byte = talk_->first_byte_ns;
  times_.done = now_ns();
  if (plan_.behaviour == Behaviour::kHold && !held_before_) {
    held_before_ = true;
    step_ = Step::kHeld;
    runner_->held(this);
    return false;
  }
  channel_.say_goodbye();
  end_well();
  return false;
}

// Whatever comes, until the connection ends.
bool Tunnel::await_end() {
  uint8_t bytes[4096];
  size_t size = 0;
  Io io;
  while ((io = channel_.read(bytes, sizeof bytes, &size)) == Io::kDone) continue;
  if (io != Io::kWait) end_well();
  return false;
}

// Nothing is to come but what TLS itself says.
bool Tunnel::held() {
  uint8_t byte;
  size_t size = 0;
  Io io = channel_.read(&byte, 1, &size);
  if (io == Io::kWait || is_h2_) return false;
  fail(io == Io::kDone ? "held_got_bytes" : std::string("held_") + name_of(io));
  return false;
}

void Tunnel::ask_again() {
  step_ = Step::kTalk;
  progress_ns_ = now_ns();
  talk_->begin_again();
  go_on();
}

// A tunnel that is to be reset early is, at the stage that chance has chosen.
bool Tunnel::reset_here(int stage) {
  if (plan_.behaviour != Behaviour::kResetEarly || static_cast<int>(plan_.chance % kResetStages) != stage)
    return false;
  channel_.reset();
  end_well();
  return true;
}

void Tunnel::end_well() {
  Tally *tally = runner_->tally_of(plan_);
  tally->ended_well(plan_, times_, talk_ ? talk_->down : 0, talk_ ? talk_->up : 0, is_h2_, resumed_);
  if (talk_) tally->add_round_trips(talk_->round_trips);
  channel_.close();
  runner_->ended(this);
}

void Tunnel::fail(const std::string &why) {
  runner_->tally_of(plan_)->failed(plan_, why, in_.substr(0, 80));
  channel_.close();
  runner_->ended(this);
}

const char *Tunnel::where() const {
  switch (step_) {
    case Step::kConnect: return "connecting";
    case Step::kAsk: return "connect_answer";
    case Step::kShake: return "handshake";
    case Step::kTalk: return "talk";
    case Step::kAwaitEnd: return "awaiting_end";
    case Step::kHeld: return "held";
  }
  return "";
}

}  // namespace bench
