#include "mitm.h"

#include <dirent.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "base/clock.h"
#include "check.h"
#include "engine/slab.h"
#include "exchange.h"
#include "lab.h"
#include "operations.h"

namespace test {

namespace {

const char kHead[] = "CONNECT origin.test:443 HTTP/1.1\r\n\r\n";
const char kAnswer[] = "HTTP/1.1 200 OK\r\n\r\n";
const std::string kOffered("\x02h2\x08http/1.1", 12);
const std::string kPairs("\x02h2\x02h2\x08http/1.1\x08http/1.1", 24);
constexpr uint32_t kStepMs = 10000;  // a deadline for every operation: none may hang beyond it
constexpr size_t kSlowBytes = 900;

// Bytes of any tunnel, without making them anew each time.
std::string bytes_of(uint64_t seed, size_t size) {
  static const std::string all = noise(1 << 20, 4242);
  return all.substr((seed * 2654435761u) % (all.size() - size), size);
}

ClientContext resuming_context(ptl_trust *trust) {
  ptl_hello hello = default_hello();
  hello.resumption = 1;
  return new_client_context(hello, trust);
}

struct Contexts {
  std::string h2 = "h2";
  ClientContext unverified = new_client_context(default_hello(), nullptr, 0);
  Trust remembering = new_trust({lab().root.der()}, 60000, 16);
  ClientContext resuming = resuming_context(remembering.get());
  Identity bad = lab().stranger.issue(LeafSpec());
  bssl::UniquePtr<SSL_CTX> origin = peer_server(lab().origin), bad_origin = peer_server(bad);
  bssl::UniquePtr<SSL_CTX> client = peer_client(), odd_client = peer_client();

  Contexts() {
    choose_alpn(origin.get(), &h2);
    offer_alpn(client.get(), kOffered);
    offer_alpn(odd_client.get(), std::string("\x03odd", 4));
  }
};

Contexts &contexts() {
  static auto *one = new Contexts();
  return *one;
}

}  // namespace

Mitm::Mitm(EngineDriver *engine, uint16_t port, Manner manner, uint64_t seed, size_t most_bytes)
    : engine_(engine), manner_(manner), seed_(seed) {
  contexts();
  client_.to_send = bytes_of(seed, 1 + seed * 7919 % most_bytes);
  origin_.to_send = bytes_of(seed + 1, 1 + seed * 104729 % most_bytes);
  const size_t both = client_.to_send.size() + origin_.to_send.size();
  if (manner == Manner::kClientResets) client_.resets_at = seed * 31 % both;
  if (manner == Manner::kOriginResets) origin_.resets_at = seed * 37 % both;
  if (manner == Manner::kRefused) listening_.close();
  client_.peer = Peer::connect_to(port);
  client_.open = true;
  client_port_ = client_.peer.port();
  client_.peer.write(kHead);
}

bool Mitm::over() const { return !client_.open && !origin_.open && tags_.empty() && (closed_ || !accepted_); }

std::string Mitm::told() const {
  return "manner " + std::to_string(static_cast<int>(manner_)) + ", seed " + std::to_string(seed_) + ", status " +
         (status_ < 0 ? "none" : ptl_status_name(status_)) + (accepted_ ? ", accepted" : "") + ", " +
         std::to_string(tags_.size()) + " operations out" + (client_.open ? ", client open" : "") +
         (origin_.open ? ", origin open" : "");
}

void Mitm::add_polls(std::vector<pollfd> *out) const {
  for (const Side *side : {&client_, &origin_}) {
    if (!side->open) continue;
    const bool writes = side->talking && !side->said && !(manner_ == Manner::kHalfClose && side == &origin_ && !side->ended);
    out->push_back({side->peer.fd(), static_cast<short>(POLLIN | (writes ? POLLOUT : 0)), 0});
  }
  if (listening_.fd() >= 0 && !origin_.open) out->push_back({listening_.fd(), POLLIN, 0});
}

void Mitm::taken(const Done &accept) {
  CHECK(!accepted_);
  accepted_ = true;
  stream_ = accept->stream;
  if (accept->status != PTL_OK) {
    fail(accept->status);
    return;
  }
  first_chain();
}

// Connect, answer, look at the hello: as the proxy does it, in one submission.
void Mitm::first_chain() {
  std::vector<ptl_address> where = {
      loopback(manner_ == Manner::kRefused ? refusing_port() : listening_.port())};
  std::string answer = kAnswer;
  ptl_op connect = linked(within(kStepMs, connect_op(stream_, where)));
  ptl_op write = linked(within(kStepMs, write_op(stream_, answer)));
  connect.flags |= PTL_FLAG_QUIET;
  write.flags |= PTL_FLAG_QUIET;
  tags_ = engine_->submit_all({connect, write, within(kStepMs, peek_op(stream_))});
}

// Both handshakes and the relay, upstream first; what upstream chose decides what the client gets.
void Mitm::second_chain() {
  ptl_client_context *context = manner_ == Manner::kUnverified ? contexts().unverified.get()
                                : manner_ == Manner::kResumed  ? contexts().resuming.get()
                                                               : lab().client.get();
  ptl_op up = linked(within(kStepMs, connect_tls_op(other_, context, "origin.test", kOffered)));
  ptl_op down = linked(
      within(kStepMs, accept_tls_op(stream_, lab().server.get(), lab().credential.get(), kPairs)));
  down.other = other_;
  up.flags |= PTL_FLAG_QUIET | (manner_ == Manner::kResumed ? PTL_FLAG_RAW : 0);
  down.flags |= PTL_FLAG_QUIET;
  ptl_op relay = within(3 * kStepMs, relay_op(stream_, other_));
  relay.idle_ms = relay.half_idle_ms = kStepMs;
  tags_ = engine_->submit_all({up, down, relay});
}

void Mitm::fail(int status) {
  if (status_ == kNoStatus) status_ = status;
  if (closed_ || !tags_.empty()) return;
  closed_ = true;
  std::vector<ptl_op> closes;
  for (ptl_stream stream : {stream_, other_}) {
    if (stream == 0) continue;
    closes.push_back(close_op(stream));
    closes.back().tag = EngineDriver::kUntagged;
  }
  if (!closes.empty()) engine_->submit_all(closes);
}

// What the engine has told since.
bool Mitm::react() {
  bool moved = false;
  while (!tags_.empty() && engine_->has(tags_.front())) {
    Done done = engine_->await(tags_.front());
    tags_.erase(tags_.begin());
    moved = true;
    CHECK(done->status != PTL_E_STALE && done->status != PTL_E_BUSY && done->status != PTL_E_INVALID);
    if (done->kind == PTL_OP_CONNECT && done->status == PTL_OK) other_ = done->stream;
    if (done->status != PTL_OK && status_ == kNoStatus) status_ = done->status;
    if (!tags_.empty()) continue;
    if (done->kind == PTL_OP_RELAY && status_ == kNoStatus) status_ = PTL_OK;
    if (done->kind == PTL_OP_PEEK_HELLO && done->status == PTL_OK) {
      second_chain();
    } else {
      fail(status_);
    }
  }
  return moved;
}

void Mitm::leave(Side *side, bool reset) {
  if (!side->open) return;
  side->open = false;
  if (reset) {
    side->peer.reset();
  } else {
    side->peer.close();
  }
}

bool Mitm::shake(Side *side) {
  switch (side->peer.shake_once()) {
    case Peer::Shake::kDone:
      side->shaking = false;
      side->talking = true;
      return true;
    case Peer::Shake::kFailed:
      leave(side, false);
      return true;
    default:
      return false;
  }
}

// Some bytes each way. What has come must be what was sent, up to there.
bool Mitm::talk(Side *side, const Side &other) {
  bool moved = false, broken = false;
  const bool slow = manner_ == Manner::kSlow;
  const bool waits = manner_ == Manner::kHalfClose && side == &origin_ && !side->ended;
  if (side->sent < side->to_send.size() && !waits) {
    const size_t left = side->to_send.size() - side->sent;
    const size_t n = side->peer.write_some(side->to_send.data() + side->sent, slow ? std::min(left, kSlowBytes) : left, &broken);
    side->sent += n;
    moved = n != 0;
  }
  if (side->sent == side->to_send.size() && !side->said && side->peer.goodbye_once()) {
    side->said = moved = true;
    side->peer.shutdown_write();
  }
  Outcome outcome = side->ended ? Outcome::kEnd : Outcome::kBytes;
  while (!side->ended && outcome == Outcome::kBytes) {
    const size_t before = side->got.size();
    outcome = side->peer.read_some(&side->got, slow ? kSlowBytes : SIZE_MAX);
    const size_t size = side->got.size() - before;
    if (size != 0) moved = true;
    if (other.to_send.compare(before, size, side->got, before, size) != 0) {
      failed(__FILE__, __LINE__, "bytes differ: " + told());
    }
    if (side->sent + side->got.size() >= side->resets_at) break;
    if (slow) break;
  }
  if (side->sent + side->got.size() >= side->resets_at) {
    leave(side, true);
    return true;
  }
  if (!side->ended && outcome != Outcome::kBytes && outcome != Outcome::kWait) {
    side->ended = moved = true;
    if (outcome != Outcome::kEnd) broken = true;
  }
  if (broken || (side->ended && side->said)) {
    leave(side, false);
    return true;
  }
  return moved;
}

bool Mitm::step_client() {
  if (!client_.open) return false;
  if (client_.shaking) return shake(&client_);
  if (client_.talking) return talk(&client_, origin_);
  std::string piece;
  Outcome outcome = client_.peer.read_some(&piece, sizeof(kAnswer) - 1 - std::min(answer_.size(), sizeof(kAnswer) - 2));
  if (outcome == Outcome::kWait) return false;
  answer_ += piece;
  if (outcome != Outcome::kBytes || answered_) {
    leave(&client_, false);
    return true;
  }
  if (answer_ != kAnswer) return true;
  answered_ = true;
  if (manner_ == Manner::kGarbage || manner_ == Manner::kHelloCut) {
    client_.peer.write(manner_ == Manner::kGarbage ? "these bytes are no TLS" : std::string("\x16\x03\x01\x02\x00\x01", 6));
    client_.peer.shutdown_write();
    return true;
  }
  client_.peer.be_client(
      manner_ == Manner::kNoProtocol ? contexts().odd_client.get() : contexts().client.get(), "origin.test");
  client_.shaking = true;
  return true;
}

bool Mitm::step_origin() {
  if (!origin_.open) {
    if (listening_.fd() < 0) return false;
    if (!listening_.has_one()) {
      // Nobody will come any more.
      if (!client_.open && tags_.empty()) listening_.close();
      return false;
    }
    origin_.peer = listening_.accept();
    listening_.close();
    origin_.peer.be_server(manner_ == Manner::kBadOrigin ? contexts().bad_origin.get() : contexts().origin.get());
    return origin_.open = origin_.shaking = true;
  }
  return origin_.shaking ? shake(&origin_) : talk(&origin_, client_);
}

bool Mitm::step() {
  bool moved = react();
  moved = step_client() || moved;
  return step_origin() || moved;
}

Mitm *MitmRunner::begin(Manner manner, uint64_t seed, size_t most_bytes) {
  // The port of a client that has left may be the next one's. Whoever has left is accepted by now, or never will be.
  for (const auto &[key, tunnel] : tunnels_) {
    if (tunnel->left_early()) {
      go_round();
      break;
    }
  }
  auto made = std::make_unique<Mitm>(engine_, port_, manner, seed, most_bytes);
  Mitm *tunnel = made.get();
  std::unique_ptr<Mitm> &place = tunnels_[made->client_port()];
  std::swap(place, made);
  if (made) tunnels_[kBeyondPorts + past_++] = std::move(made);
  return tunnel;
}

void MitmRunner::go_round() {
  for (uint64_t loop = 0; loop < ptl_engine_num_loops(engine_->get()); loop++) {
    engine_->turn(loop << ptl::kIndexBits);
  }
  take_accepts();
}

void MitmRunner::take_accepts() {
  while (engine_->has(kAcceptTag)) {
    Done accept = engine_->next_accept();
    const char *colon = strrchr(accept->peer, ':');
    auto found = tunnels_.find(static_cast<uint16_t>(colon == nullptr ? 0 : atoi(colon + 1)));
    if (found == tunnels_.end()) throw GaveUp("a client that nobody is");
    found->second->taken(accept);
  }
}

std::vector<std::unique_ptr<Mitm>> MitmRunner::turn() {
  take_accepts();
  std::vector<std::unique_ptr<Mitm>> done;
  bool moved = false;
  for (auto it = tunnels_.begin(); it != tunnels_.end();) {
    moved = it->second->step() || moved;
    if (it->second->over() && !it->second->accepted()) {
      // Was its client lost, or has its accept not been told yet? Once the loops have gone round, that is certain.
      go_round();
    }
    if (it->second->over()) {
      done.push_back(std::move(it->second));
      it = tunnels_.erase(it);
    } else {
      ++it;
    }
  }
  if (moved || !done.empty() || tunnels_.empty()) return done;
  std::vector<pollfd> events = {{ptl_engine_eventfd(engine_->get()), POLLIN, 0}};
  for (const auto &[key, tunnel] : tunnels_) tunnel->add_polls(&events);
  if (poll(events.data(), events.size(), kPatienceMs) == 0) {
    throw GaveUp("a tunnel hangs: " + tunnels_.begin()->second->told());
  }
  return done;
}

std::vector<std::unique_ptr<Mitm>> MitmRunner::finish() {
  std::vector<std::unique_ptr<Mitm>> done;
  const uint64_t give_up_ns = ptl::now_ns() + 3 * kPatienceMs * uint64_t{1000000};
  while (!tunnels_.empty()) {
    for (auto &one : turn()) done.push_back(std::move(one));
    if (ptl::now_ns() > give_up_ns) throw GaveUp("tunnels hang: " + tunnels_.begin()->second->told());
  }
  return done;
}

size_t open_descriptors() {
  size_t count = 0;
  DIR *directory = opendir("/proc/self/fd");
  if (directory == nullptr) throw GaveUp("/proc/self/fd cannot be read");
  while (readdir(directory) != nullptr) count++;
  closedir(directory);
  return count;
}

}  // namespace test
