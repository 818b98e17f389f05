// The quantum of the relay: how much one direction moves before others have their turn, alone and beside others.
//
// Real sockets cannot show it, because a kernel's buffers bound most turns before the quantum does. So this program
// defines recv and send itself: one descriptor gives bytes without end, another takes all there are, at once. How
// much moves between two calls of epoll_wait is then up to the relay alone. Before each of them a byte may be written
// somewhere, so that there is an event in every turn.
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>

#include "check.h"
#include "engine/loop.h"
#include "exchange.h"
#include "tunnel.h"

using namespace test;

namespace {

constexpr size_t kFlood = 24 << 20;  // many quanta, and still an end if there were none
constexpr size_t kLarge = ptl::Loop::kChunkBytes, kSmall = ptl::Loop::kSmallChunkBytes;

std::atomic<int> flood_fd{-1}, sink_fd{-1}, whisper_fd{-1};
std::atomic<const std::string *> flood{nullptr};
std::atomic<size_t> given{0}, this_turn{0}, most_a_turn{0}, turns{0};

template <typename F>
F real(const char *name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

// The engine's descriptor whose other end is |port|.
int descriptor_to(uint16_t port) {
  for (int fd = 3; fd < 1024; fd++) {
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    if (getpeername(fd, reinterpret_cast<sockaddr *>(&address), &size) == 0 && ntohs(address.sin_port) == port) return fd;
  }
  throw GaveUp("the engine has no such descriptor");
}

}  // namespace

extern "C" ssize_t recv(int fd, void *into, size_t size, int flags) {
  static const auto next = real<ssize_t (*)(int, void *, size_t, int)>("recv");
  if (fd != flood_fd) return next(fd, into, size, flags);
  const std::string &bytes = *flood.load();
  const size_t n = std::min(size, bytes.size() - given);
  if (n == 0) {
    errno = EAGAIN;
    return -1;
  }
  memcpy(into, bytes.data() + given, n);
  given += n;
  this_turn += n;
  return static_cast<ssize_t>(n);
}

extern "C" ssize_t send(int fd, const void *bytes, size_t size, int flags) {
  static const auto next = real<ssize_t (*)(int, const void *, size_t, int)>("send");
  return fd == sink_fd ? static_cast<ssize_t>(size) : next(fd, bytes, size, flags);
}

extern "C" int epoll_wait(int epoll, epoll_event *events, int most, int timeout) {
  static const auto next = real<int (*)(int, epoll_event *, int, int)>("epoll_wait");
  most_a_turn = std::max(most_a_turn.load(), this_turn.exchange(0));
  turns++;
  if (whisper_fd >= 0) {
    static const auto whisper = real<ssize_t (*)(int, const void *, size_t, int)>("send");
    whisper(whisper_fd, "w", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  return next(epoll, events, most, timeout);
}

namespace {

// flood_through sends |bytes| from the origin, while |whisperer| gets a byte before each turn of the loop. No turn may
// move more than |most|, and some must move that much.
void flood_through(EngineDriver *engine, Tunnel *tunnel, const std::string &bytes, size_t most, int whisperer = -1) {
  const uint64_t relays = engine->stats().relays + 1;
  uint64_t relaying = engine->submit(relay_op(tunnel->stream, tunnel->other));
  engine->await_stats([relays](const ptl_stats &stats) { return stats.relays == relays; });
  const uint64_t before = engine->stats().relayed_bytes;
  flood = &bytes;
  given = this_turn = most_a_turn = turns = 0;
  sink_fd = descriptor_to(tunnel->client.port());
  flood_fd = descriptor_to(tunnel->origin.port());
  // An edge, to begin with. The flood stands before the socket: this byte is never read.
  const int at_once = 1;  // nor does Nagle hold a whisper back
  if (whisperer >= 0) REQUIRE(setsockopt(whisperer, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof(at_once)) == 0);
  whisper_fd = whisperer;
  REQUIRE(::send(tunnel->origin.fd(), "x", 1, MSG_NOSIGNAL) == 1);
  while (given < bytes.size()) std::this_thread::yield();  // a word with the engine would be company for the flood
  engine->turn();
  whisper_fd = flood_fd = sink_fd = -1;
  CHECK_EQ(most_a_turn.load(), most);
  CHECK(turns >= bytes.size() / most);
  CHECK(engine->stats().relayed_bytes - before >= kFlood);
  engine->cancel(tunnel->stream, relaying);
  engine->await(relaying);
}

}  // namespace

TEST(a_plain_flood_gives_way) {
  EngineDriver engine;
  Tunnel tunnel = open_tunnel(&engine, engine.listen());
  flood_through(&engine, &tunnel, std::string(kFlood, 'f'), kLarge);
}

// Its own submission is company for a flood's first turns, and then each byte that goes through another tunnel.
TEST(a_flood_moves_less_a_turn_while_others_talk) {
  EngineDriver engine;
  const uint16_t port = engine.listen();
  Tunnel other = open_tunnel(&engine, port);
  Tunnel tunnel = open_tunnel(&engine, port);
  const uint64_t relaying = engine.submit(relay_op(other.stream, other.other));
  engine.await_stats([](const ptl_stats &stats) { return stats.relays == 1; });
  flood_through(&engine, &tunnel, std::string(kFlood, 'f'), kSmall, other.client.fd());
  engine.cancel(other.stream, relaying);
  engine.await(relaying);
}

// What the other direction has to say wakes the same two streams, and is no turn of the flood's: that one has its own.
TEST(a_flood_has_one_turn_while_its_own_reader_talks) {
  EngineDriver engine;
  Tunnel tunnel = open_tunnel(&engine, engine.listen());
  flood_through(&engine, &tunnel, std::string(kFlood, 'f'), kLarge, tunnel.client.fd());
}

TEST(a_tls_flood_gives_way) {
  EngineDriver engine;
  TunnelSpec spec;
  spec.tls = true;
  Tunnel tunnel = open_tunnel(&engine, engine.listen(), spec);
  // What the origin's TLS makes of the bytes goes to memory, and from there to the engine.
  BIO *memory = BIO_new(BIO_s_mem());
  SSL_set0_wbio(tunnel.origin.ssl(), memory);
  const std::string piece(1 << 20, 't');
  for (size_t done = 0; done < kFlood; done += piece.size()) {
    REQUIRE(SSL_write(tunnel.origin.ssl(), piece.data(), static_cast<int>(piece.size())) == static_cast<int>(piece.size()));
  }
  const uint8_t *records;
  size_t size;
  REQUIRE(BIO_mem_contents(memory, &records, &size));
  std::string bytes(reinterpret_cast<const char *>(records), size);
  flood_through(&engine, &tunnel, bytes, kLarge);
}
