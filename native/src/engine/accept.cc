// Accepting: every loop watches every listening socket, and whoever wakes takes a few connections.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <new>

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

Accepted accept_one(Engine *engine, int listener, Fd *out_fd, std::string *out_peer) {
  if (!engine->take_room()) return Accepted::kNoRoom;
  sockaddr_storage address;
  socklen_t length = sizeof(address);
  Fd fd(accept4(listener, reinterpret_cast<sockaddr *>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd.ok()) {
    try {
      *out_peer = peer_text(address);
    } catch (const std::bad_alloc &) {
      engine->give_room();
      return Accepted::kShort;
    }
    *out_fd = std::move(fd);
    return Accepted::kOne;
  }
  const int error = errno;
  engine->give_room();
  switch (error) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return Accepted::kShort;
    case EAGAIN:
    case EINVAL:  // it was shut down
      return Accepted::kNone;
    default:
      return Accepted::kGone;  // accept(2) lists what that can look like
  }
}

Listeners::iterator Loop::find_listener(uint32_t id) {
  return std::find_if(listeners_.begin(), listeners_.end(), [id](const auto &one) { return one.first == id; });
}

void Loop::on_acceptable(uint32_t id) {
  auto found = find_listener(id);
  if (found == listeners_.end()) return;
  std::shared_ptr<Listener> listener = found->second;
  for (int i = 0; i < kAcceptBatch; i++) {
    Fd fd;
    std::string peer;
    switch (accept_one(engine_, listener->fd.get(), &fd, &peer)) {
      case Accepted::kOne:
        counters_.accepted.fetch_add(1, std::memory_order_relaxed);
        begin_head(*listener, std::move(fd), std::move(peer));
        break;
      case Accepted::kGone:
        break;
      case Accepted::kNone:
        return;
      case Accepted::kShort:
        accept_failed();
        return;
      case Accepted::kNoRoom:  // the backlog holds who comes now
        pause_accepting();
        return;
    }
  }
}

// begin_head makes a stream of an accepted connection, and reads its request head.
void Loop::begin_head(const Listener &listener, Fd fd, std::string peer) {
  Stream *stream = place_stream(std::move(fd));
  if (stream == nullptr || !watch(stream, false)) {
    if (stream != nullptr) destroy(stream);  // the client sees its connection closed; there was no tunnel yet
    counters_.accept_errors.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  std::unique_ptr<Op> op;
  try {
    op = std::make_unique<Op>();
    op->given = std::make_unique<Given>();
  } catch (const std::bad_alloc &) {  // nobody could be told of this client
    destroy(stream);
    counters_.accept_errors.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  op->kind = PTL_OP_ACCEPT;
  op->tag = listener.tag;
  op->stream = stream->handle;
  op->limit = listener.head_max;
  op->deadline_ms = listener.head_ms;
  op->given->name = std::move(peer);
  // Most clients have sent their head by the time they are accepted.
  stream->readable = stream->writable = true;
  if (Op *accept = enlist(std::move(op))) start_on_stream(accept, stream);
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
