#include "common/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

namespace bench {
namespace {

constexpr int kBacklog = 16384;  // the kernel lowers it to net.core.somaxconn

uint64_t read_clock(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(time.tv_nsec);
}

void set_no_delay(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

}  // namespace

void die(const std::string &why) {
  fprintf(stderr, "bench: error: %s\n", why.c_str());
  exit(2);
}

uint64_t now_ns() { return read_clock(CLOCK_MONOTONIC); }
double process_cpu_s() { return static_cast<double>(read_clock(CLOCK_PROCESS_CPUTIME_ID)) / 1e9; }

void raise_descriptors() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

sockaddr_in parse_address(const std::string &option, const std::string &text) {
  size_t colon = text.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  char *end = nullptr;
  long port = colon == std::string::npos ? -1 : strtol(text.c_str() + colon + 1, &end, 10);
  if (port < 0 || port > 65535 || end == text.c_str() + colon + 1 || *end != '\0' ||
      inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.sin_addr) != 1) {
    die("--" + option + " takes IPV4:PORT, not " + text);
  }
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

int connect_socket(const sockaddr_in &to, int receive_bytes) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  set_no_delay(fd);
  if (receive_bytes > 0) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
  if (connect(fd, reinterpret_cast<const sockaddr *>(&to), sizeof to) < 0 && errno != EINPROGRESS) {
    int why = errno;
    close(fd);
    errno = why;
    return -1;
  }
  return fd;
}

int connect_error(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

int listen_socket(const sockaddr_in &at) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr *>(&at), sizeof at) < 0 || listen(fd, kBacklog) < 0) {
    die(std::string("cannot listen: ") + strerror(errno));
  }
  return fd;
}

int accept_socket(int listener) {
  int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) set_no_delay(fd);
  return fd;
}

uint16_t port_of(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr *>(&address), &size);
  return ntohs(address.sin_port);
}

void reset_on_close(int fd) {
  linger now{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

}  // namespace bench
