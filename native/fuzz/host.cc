#include "host.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include <map>

#include "fuzz.h"

namespace fuzz {

test::EngineDriver &engine() {
  // The TLS library's own sockets, which the peers use, do not know MSG_NOSIGNAL. The engine does.
  static const bool ignored = signal(SIGPIPE, SIG_IGN) != SIG_ERR;
  FUZZ_CHECK(ignored);
  static test::EngineDriver driver;
  return driver;
}

uint16_t listening_port(uint32_t head_max) {
  static std::map<uint32_t, uint16_t> ports;
  auto found = ports.find(head_max);
  if (found == ports.end()) found = ports.emplace(head_max, engine().listen(head_max)).first;
  return found->second;
}

void settle() {
  engine().await_no_streams();
  engine().await_stats([](const ptl_stats &stats) {
    return stats.operations == 0 && stats.relays == 0 && stats.buffered_bytes == 0 && stats.completions == 0;
  });
  FUZZ_CHECK(engine().stats().impossible == 0);
  FUZZ_CHECK(engine().outstanding().empty());
}

Backlog::Backlog() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
  sockaddr_in address{};
  socklen_t length = sizeof(address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  FUZZ_CHECK(bind(fd_.get(), reinterpret_cast<sockaddr *>(&address), length) == 0 && listen(fd_.get(), 512) == 0 &&
             getsockname(fd_.get(), reinterpret_cast<sockaddr *>(&address), &length) == 0);
  port_ = ntohs(address.sin_port);
}

ptl::Fd Backlog::accept() { return ptl::Fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

void Backlog::drop_all() {
  for (ptl::Fd fd = accept(); fd.ok(); fd = accept()) {
    linger hard{1, 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  }
}

}  // namespace fuzz
