#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "check.h"
#include "engine_driver.h"

namespace test {

namespace {

sockaddr_in address_of(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void must(bool good, const char *what) {
  if (!good) throw GaveUp(std::string(what) + ": " + strerror(errno));
}

void be_small(int fd, int receive_bytes) {
  if (receive_bytes == 0) return;
  must(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes)) == 0, "SO_RCVBUF");
}

uint16_t bound_port(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  must(getsockname(fd, reinterpret_cast<sockaddr *>(&address), &length) == 0, "getsockname");
  return ntohs(reinterpret_cast<sockaddr_in *>(&address)->sin_port);  // where sockaddr_in6 has it, too
}

ptl::Fd listening_socket(int backlog, int receive_bytes) {
  ptl::Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = address_of(0);
  be_small(fd.get(), receive_bytes);
  must(bind(fd.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)) == 0, "bind");
  must(listen(fd.get(), backlog) == 0, "listen");
  return fd;
}

ptl::Fd listening_socket6(int backlog) {
  ptl::Fd fd(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_loopback;
  must(bind(fd.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)) == 0, "bind to ::1");
  must(listen(fd.get(), backlog) == 0, "listen");
  return fd;
}

}  // namespace

Peer::Peer(ptl::Fd fd) : fd_(std::move(fd)) {
  must(fd_.ok(), "a peer's socket");
  fcntl(fd_.get(), F_SETFL, fcntl(fd_.get(), F_GETFL) | O_NONBLOCK);
  int one = 1;
  setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

Peer Peer::connect_to(uint16_t port, int receive_bytes) {
  ptl::Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  be_small(fd.get(), receive_bytes);
  sockaddr_in address = address_of(port);
  must(connect(fd.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)) == 0, "connect");
  return Peer(std::move(fd));
}

uint16_t Peer::port() const { return bound_port(fd_.get()); }

void Peer::be_client(SSL_CTX *ctx, const char *sni) {
  ssl_.reset(SSL_new(ctx));
  SSL_set_fd(ssl_.get(), fd_.get());
  if (sni != nullptr) SSL_set_tlsext_host_name(ssl_.get(), sni);
  SSL_set_connect_state(ssl_.get());
}

void Peer::be_server(SSL_CTX *ctx) {
  ssl_.reset(SSL_new(ctx));
  SSL_set_fd(ssl_.get(), fd_.get());
  SSL_set_accept_state(ssl_.get());
}

Peer::Shake Peer::shake_once() {
  ERR_clear_error();
  int result = SSL_do_handshake(ssl_.get());
  if (result == 1) return Shake::kDone;
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return Shake::kWantRead;
    case SSL_ERROR_WANT_WRITE:
      return Shake::kWantWrite;
    default:
      error_ = ERR_GET_REASON(ERR_peek_error());
      ERR_clear_error();
      return Shake::kFailed;
  }
}

bool Peer::handshake() {
  for (;;) {
    Shake shake = shake_once();
    if (shake == Shake::kDone || shake == Shake::kFailed) return shake == Shake::kDone;
    wait(shake == Shake::kWantRead ? POLLIN : POLLOUT);
  }
}

Outcome Peer::read_some(std::string *out, size_t limit) {
  char chunk[32768];
  size_t size = limit < sizeof(chunk) ? limit : sizeof(chunk);
  if (!ssl_) {
    ssize_t n = recv(fd_.get(), chunk, size, 0);
    if (n > 0) out->append(chunk, static_cast<size_t>(n));
    if (n > 0) return Outcome::kBytes;
    if (n == 0) return Outcome::kEnd;
    if (errno == EAGAIN) return Outcome::kWait;
    return errno == ECONNRESET || errno == EPIPE ? Outcome::kReset : Outcome::kFailed;
  }
  ERR_clear_error();
  errno = 0;
  int n = SSL_read(ssl_.get(), chunk, static_cast<int>(size));
  if (n > 0) {
    out->append(chunk, static_cast<size_t>(n));
    return Outcome::kBytes;
  }
  switch (SSL_get_error(ssl_.get(), n)) {
    case SSL_ERROR_WANT_READ:
      return Outcome::kWait;
    case SSL_ERROR_ZERO_RETURN:
      return Outcome::kEnd;
    case SSL_ERROR_SYSCALL:
      return n == 0 || errno == 0 ? Outcome::kTruncated : Outcome::kReset;
    default:
      error_ = ERR_GET_REASON(ERR_peek_error());
      ERR_clear_error();
      return Outcome::kFailed;
  }
}

size_t Peer::write_some(const char *bytes, size_t size, bool *out_broken) {
  *out_broken = false;
  if (!ssl_) {
    ssize_t n = send(fd_.get(), bytes, size, MSG_NOSIGNAL);
    if (n >= 0) return static_cast<size_t>(n);
    *out_broken = errno != EAGAIN;
    return 0;
  }
  ERR_clear_error();
  SSL_set_mode(ssl_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  int n = SSL_write(ssl_.get(), bytes, static_cast<int>(size < 65536 ? size : 65536));
  if (n > 0) return static_cast<size_t>(n);
  int error = SSL_get_error(ssl_.get(), n);
  *out_broken = error != SSL_ERROR_WANT_WRITE && error != SSL_ERROR_WANT_READ;
  ERR_clear_error();
  return 0;
}

void Peer::write(const std::string &bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    bool broken;
    size_t n = write_some(bytes.data() + done, bytes.size() - done, &broken);
    if (broken) throw GaveUp("a peer could not write");
    done += n;
    if (n == 0) wait(POLLOUT);
  }
}

std::string Peer::read(size_t size) {
  std::string got;
  while (got.size() < size) {
    Outcome outcome = read_some(&got, size - got.size());
    if (outcome == Outcome::kWait) {
      wait(POLLIN);
    } else if (outcome != Outcome::kBytes) {
      throw GaveUp("a peer's stream ended after " + shown(got) + ", outcome " + shown(outcome));
    }
  }
  return got;
}

std::string Peer::read_to_end(Outcome *out_end) {
  std::string got;
  for (;;) {
    *out_end = read_some(&got, SIZE_MAX);
    if (*out_end == Outcome::kWait) {
      wait(POLLIN);
    } else if (*out_end != Outcome::kBytes) {
      return got;
    }
  }
}

Outcome Peer::await_end() {
  Outcome end;
  std::string before = read_to_end(&end);
  CHECK_EQ(before, std::string());
  return end;
}

void Peer::wait(short events) {
  pollfd event{fd_.get(), events, 0};
  if (poll(&event, 1, kPatienceMs) == 0) throw GaveUp("a peer waited in vain");
}

void Peer::say_goodbye() {
  int result;
  // Not SSL_want_write: that stays true when the socket takes nothing any more.
  while ((result = SSL_shutdown(ssl_.get())) < 0 && SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_WRITE) {
    wait(POLLOUT);
  }
  ERR_clear_error();
}

bool Peer::goodbye_once() {
  const int result = SSL_shutdown(ssl_.get());
  const bool waits = result < 0 && SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_WRITE;
  ERR_clear_error();
  return !waits;
}

void Peer::shutdown_write() { shutdown(fd_.get(), SHUT_WR); }

void Peer::reset() {
  linger hard{1, 0};
  setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  fd_.reset();
}

void Peer::close() { fd_.reset(); }

Origin::Origin(int backlog, int receive_bytes, bool ipv6)
    : fd_(ipv6 ? listening_socket6(backlog) : listening_socket(backlog, receive_bytes)),
      port_(bound_port(fd_.get())) {}

Peer Origin::accept() {
  pollfd event{fd_.get(), POLLIN, 0};
  if (poll(&event, 1, kPatienceMs) == 0) throw GaveUp("nobody connected to the origin");
  return Peer(ptl::Fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
}

bool Origin::has_one() {
  pollfd event{fd_.get(), POLLIN, 0};
  return poll(&event, 1, 0) == 1;
}

Blackhole::Blackhole() : fd_(listening_socket(0, 0)), port_(bound_port(fd_.get())) {
  sockaddr_in address = address_of(port_);
  for (ptl::Fd &filler : fillers_) {
    filler = ptl::Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    (void)!connect(filler.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address));
  }
}

uint16_t refusing_port() {
  // Bound and never listening: nobody else can take the port while this process lives.
  static const ptl::Fd bound = [] {
    ptl::Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = address_of(0);
    must(bind(fd.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)) == 0, "bind");
    return fd;
  }();
  return bound_port(bound.get());
}

}  // namespace test
