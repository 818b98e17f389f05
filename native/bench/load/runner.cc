#include "load/runner.h"

#include <openssl/bio.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "common/net.h"
#include "load/tunnel.h"

namespace bench {
namespace {

constexpr uint64_t kSecond = 1'000'000'000, kCheckEvery = kSecond / 5;
constexpr int kPollMs = 100;
constexpr size_t kCheckAtOnce = 64;  // held tunnels asked again at a time

bssl::UniquePtr<SSL_CTX> make_context(const Settings &settings, Runner *runner) {
  bssl::UniquePtr<SSL_CTX> context(SSL_CTX_new(settings.ca.empty() ? TLS_with_buffers_method() : TLS_method()));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_max_proto_version(context.get(), settings.tls12 ? TLS1_2_VERSION : TLS1_3_VERSION);
  if (!SSL_CTX_set1_groups_list(context.get(), settings.groups.c_str())) die("--groups: BoringSSL does not know " + settings.groups);
  static const uint8_t h2[] = "\x02h2\x08http/1.1", h1[] = "\x08http/1.1";
  if (settings.h2) SSL_CTX_set_alpn_protos(context.get(), h2, sizeof h2 - 1);
  else if (!settings.no_alpn) SSL_CTX_set_alpn_protos(context.get(), h1, sizeof h1 - 1);
  SSL_CTX_set_app_data(context.get(), reinterpret_cast<char *>(runner));
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  if (settings.resume) {
    SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context.get(), [](SSL *ssl, SSL_SESSION *session) {
      auto *tunnel = reinterpret_cast<Tunnel *>(SSL_get_app_data(ssl));
      auto *kept_by = reinterpret_cast<Runner *>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
      kept_by->keep_session(tunnel->plan().name, bssl::UniquePtr<SSL_SESSION>(session));
      return 1;
    });
  }
  if (settings.ca.empty()) {
    SSL_CTX_set_custom_verify(context.get(), SSL_VERIFY_PEER, [](SSL *, uint8_t *) { return ssl_verify_ok; });
    return context;
  }
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  for (const std::string &path : split(settings.ca, ',')) {
    if (!SSL_CTX_load_verify_locations(context.get(), path.c_str(), nullptr)) die("--ca: cannot read certificates from " + path);
  }
  return context;
}

// The record of a ClientHello, to send parts of.
std::string make_hello(SSL_CTX *context, const std::string &name) {
  bssl::UniquePtr<SSL> ssl(SSL_new(context));
  BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), in, out);
  SSL_set_connect_state(ssl.get());
  SSL_set_tlsext_host_name(ssl.get(), name.c_str());
  SSL_do_handshake(ssl.get());
  const uint8_t *bytes = nullptr;
  size_t size = 0;
  if (!BIO_mem_contents(out, &bytes, &size) || size == 0) die("cannot make a ClientHello");
  return std::string(reinterpret_cast<const char *>(bytes), size);
}

}  // namespace

Runner::Runner(const Settings &settings) : settings_(settings), context_(make_context(settings, this)) {
  sample_hello_ = make_hello(context_.get(), "origin.test");
  deadline_ = now_ns() + static_cast<uint64_t>(settings.max_seconds * static_cast<double>(kSecond));
}

std::string Runner::run() {
  const bool holds = std::any_of(settings_.mix.begin(), settings_.mix.end(), [](const auto &part) { return part.first == Behaviour::kHold; });
  if (settings_.warmup > 0 && !holds) {
    counting_ = false;
    run_batch(settings_.warmup, 0);
    counting_ = true;
  }
  double cpu = process_cpu_s();
  uint64_t began = now_ns();
  run_batch(settings_.count, settings_.seconds);
  double wall = static_cast<double>(now_ns() - began) / 1e9;
  if (holds) hold_all();
  cpu = process_cpu_s() - cpu;
  char text[512];
  snprintf(text, sizeof text,
           "{\"wall_s\": %.6f, \"client_cpu_s\": %.6f, \"overtime\": %s, \"seed\": %llu, \"held\": %lld, \"held_lost\": %lld, \"held_alive\": %lld",
           wall, cpu, overtime_ ? "true" : "false", static_cast<unsigned long long>(settings_.seed), static_cast<long long>(established_),
           static_cast<long long>(lost_), static_cast<long long>(alive_));
  return std::string(text) + ", \"through\": " + through_.json(wall) + ", \"direct\": " + direct_.json(wall) + "}";
}

void Runner::run_batch(int64_t count, double seconds) {
  begun_ = finished_ = 0;
  uint64_t last = seconds > 0 ? now_ns() + static_cast<uint64_t>(seconds * static_cast<double>(kSecond)) : UINT64_MAX;
  for (bool beginning = true; beginning || finished_ < begun_;) {
    beginning = beginning && begun_ < count && now_ns() < last && !overtime_;
    while (beginning && begun_ - finished_ < settings_.at_once && begun_ < count) {
      begun_++;
      auto *tunnel = new Tunnel(this, plan_of(settings_, next_++));
      open_.insert(tunnel);
      tunnel->begin();
    }
    if (finished_ < begun_) poll(kPollMs);
  }
}

void Runner::hold_all() {
  established_ = static_cast<int64_t>(held_.size());
  printf("READY {\"held\": %lld}\n", static_cast<long long>(established_));
  fflush(stdout);
  wait_while_held();
  lost_ = established_ - static_cast<int64_t>(held_.size());
  check_held();
}

void Runner::wait_while_held() {
  uint64_t until = now_ns() + static_cast<uint64_t>(settings_.hold_seconds * static_cast<double>(kSecond));
  for (;;) {
    poll(kPollMs);
    if (overtime_ || (!settings_.hold_stdin && now_ns() >= until)) return;
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (settings_.hold_stdin && ::poll(&input, 1, 0) > 0) return;
  }
}

// Every held tunnel answers once more.
void Runner::check_held() {
  std::vector<Tunnel *> waiting(held_.begin(), held_.end());
  checking_ = true;
  int64_t ok = through_.ok() + direct_.ok();
  while (!waiting.empty() || !open_.empty()) {
    while (!waiting.empty() && open_.size() < kCheckAtOnce) {
      Tunnel *tunnel = waiting.back();
      waiting.pop_back();
      if (held_.erase(tunnel) == 0) continue;  // lost meanwhile
      open_.insert(tunnel);
      tunnel->ask_again();
    }
    poll(kPollMs);
  }
  alive_ = through_.ok() + direct_.ok() - ok;
}

void Runner::poll(int milliseconds) {
  uint64_t now = now_ns();
  if (!sleeping_.empty()) {
    uint64_t first = sleeping_.begin()->first;
    milliseconds = std::min<int>(milliseconds, first <= now ? 0 : static_cast<int>((first - now) / 1'000'000 + 1));
  }
  loop_.poll(milliseconds);
  now = now_ns();
  while (!sleeping_.empty() && sleeping_.begin()->first <= now) {
    Tunnel *tunnel = sleeping_.begin()->second;
    sleeping_.erase(sleeping_.begin());
    tunnel->wake();
  }
  if (now < next_check_) return;
  next_check_ = now + kCheckEvery;
  overtime_ = overtime_ || now > deadline_;
  end_overdue();
}

void Runner::end_overdue() {
  uint64_t now = now_ns(), limit = static_cast<uint64_t>(settings_.timeout * static_cast<double>(kSecond));
  std::vector<Tunnel *> overdue;
  for (Tunnel *tunnel : open_) {
    if (!tunnel->paused() && (overtime_ || now - std::min(now, tunnel->progress_ns()) > limit)) overdue.push_back(tunnel);
  }
  for (Tunnel *tunnel : overdue) tunnel->fail(std::string(overtime_ ? "overtime_in_" : "timeout_in_") + tunnel->where());
}

SSL_SESSION *Runner::session_of(const std::string &name) {
  auto found = sessions_.find(name);
  return found == sessions_.end() ? nullptr : found->second.get();
}

void Runner::keep_session(const std::string &name, bssl::UniquePtr<SSL_SESSION> session) { sessions_[name] = std::move(session); }

void Runner::wake(Tunnel *tunnel, int64_t milliseconds) {
  sleeping_.emplace(now_ns() + static_cast<uint64_t>(milliseconds) * 1'000'000, tunnel);
}

void Runner::held(Tunnel *tunnel) {
  open_.erase(tunnel);
  held_.insert(tunnel);
  finished_++;
}

void Runner::ended(Tunnel *tunnel) {
  open_.erase(tunnel);
  bool was_held = held_.erase(tunnel) > 0;
  if (!was_held && !checking_) finished_++;
  for (auto it = sleeping_.begin(); tunnel->paused() && it != sleeping_.end(); ++it) {
    if (it->second != tunnel) continue;
    sleeping_.erase(it);
    break;
  }
  loop_.bury(tunnel);
}

}  // namespace bench
