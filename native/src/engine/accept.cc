// Accepting: every loop watches every listening socket, and whoever wakes takes a few connections.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "engine/engine.h"
#include "engine/loop.h"

namespace ptl {

namespace {

constexpr int kAcceptBatch = 16;  // then the other loops get a chance
constexpr uint64_t kAcceptPauseMs = 50;

std::string peer_text(const sockaddr_storage &address) {
  char ip[INET6_ADDRSTRLEN] = "?";
  if (address.ss_family == AF_INET) {
    const auto *in = reinterpret_cast<const sockaddr_in *>(&address);
    inet_ntop(AF_INET, &in->sin_addr, ip, sizeof(ip));
    return std::string(ip) + ":" + std::to_string(ntohs(in->sin_port));
  }
  const auto *in6 = reinterpret_cast<const sockaddr_in6 *>(&address);
  inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof(ip));
  return "[" + std::string(ip) + "]:" + std::to_string(ntohs(in6->sin6_port));
}

}  // namespace

bool Loop::watch_listener(uint32_t id, int fd) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLEXCLUSIVE;  // one of the loops wakes, not all
  event.data.u64 = kListenerMark | id;
  return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

void Loop::on_acceptable(uint32_t id) {
  auto found = listeners_.find(id);
  if (found == listeners_.end()) return;
  std::shared_ptr<Listener> listener = found->second;
  for (int i = 0; i < kAcceptBatch; i++) {
    sockaddr_storage address;
    socklen_t length = sizeof(address);
    if (!engine_->take_room()) {  // the backlog holds who comes now
      pause_accepting();
      return;
    }
    Fd fd(accept4(listener->fd.get(), reinterpret_cast<sockaddr *>(&address), &length,
                  SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.ok()) {
      engine_->give_room();
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        accept_failed();
        return;
      }
      if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINVAL) return;  // EINVAL: it was shut down
      continue;  // the client went away before it was accepted (accept(2) lists what that can look like)
    }
    counters_.accepted.fetch_add(1, std::memory_order_relaxed);
    Stream *stream = place_stream(std::move(fd));
    if (stream == nullptr || !watch(stream, false)) {
      if (stream != nullptr) destroy(stream);  // the client sees its connection closed; there was no tunnel yet
      counters_.accept_errors.fetch_add(1, std::memory_order_relaxed);
      continue;
    }
    auto op = std::make_unique<Op>();
    op->kind = PTL_OP_ACCEPT;
    op->tag = listener->tag;
    op->stream = stream->handle;
    op->limit = listener->head_max;
    op->deadline_ms = listener->head_ms;
    op->name = peer_text(address);
    // Most clients have sent their head by the time they are accepted.
    stream->readable = stream->writable = true;
    start_on_stream(enlist(std::move(op)), stream);
  }
}

// accept_failed: for now there are not the descriptors or the memory for one more.
void Loop::accept_failed() {
  counters_.accept_errors.fetch_add(1, std::memory_order_relaxed);
  pause_accepting();
}

void Loop::pause_accepting() {
  for (auto &entry : listeners_) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, entry.second->fd.get(), nullptr);
  }
  accept_pause_.callback = resume_accepting;
  accept_pause_.argument = this;
  wheel_.arm(&accept_pause_, now_ms(), kAcceptPauseMs);
}

void Loop::resume_accepting(void *argument) {
  auto *loop = static_cast<Loop *>(argument);
  bool watched = true;
  for (auto &entry : loop->listeners_) {
    watched = loop->watch_listener(entry.first, entry.second->fd.get()) && watched;
  }
  if (!watched) loop->pause_accepting();
}

}  // namespace ptl
