// Connecting to the first address that answers (happy eyeballs, RFC 8305 §5).
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <new>

#include "base/text.h"
#include "engine/completion.h"
#include "engine/engine.h"
#include "engine/loop.h"

namespace ptl {

namespace {

constexpr char kNearEndGone[] = "the connection that it was asked for was reset meanwhile";

socklen_t fill_sockaddr(const ptl_address &address, sockaddr_storage *out) {
  memset(out, 0, sizeof(*out));
  if (address.ip_len == 4) {
    auto *in = reinterpret_cast<sockaddr_in *>(out);
    in->sin_family = AF_INET;
    in->sin_port = htons(address.port);
    memcpy(&in->sin_addr, address.ip, 4);
    return sizeof(*in);
  }
  auto *in6 = reinterpret_cast<sockaddr_in6 *>(out);
  in6->sin6_family = AF_INET6;
  in6->sin6_port = htons(address.port);
  in6->sin6_scope_id = address.scope;
  memcpy(&in6->sin6_addr, address.ip, 16);
  return sizeof(*in6);
}

// An address and its port as people write them.
struct AddressText {
  explicit AddressText(const ptl_address &address) {
    char ip[INET6_ADDRSTRLEN] = "?";
    const bool v4 = address.ip_len == 4;
    inet_ntop(v4 ? AF_INET : AF_INET6, address.ip, ip, sizeof(ip));
    snprintf(text, sizeof(text), v4 ? "%s:%u" : "[%s]:%u", ip, unsigned{address.port});
  }

  char text[INET6_ADDRSTRLEN + sizeof("[]:65535")];
};

// lack_of returns the status for what was wanting on our side of the connection, or PTL_OK where it was not that.
int lack_of(int error) {
  switch (error) {
    case ENOMEM:
      return PTL_E_NOMEM;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOSPC:  // of epoll_ctl: a user's watches
    case EAGAIN:  // max_streams
      return PTL_E_NO_SOCKET;
    default:
      return PTL_OK;
  }
}

const char *sentence_of(int error) {
  if (error == 0) return "no answer";
  return error == EAGAIN ? "as many connections are open as may be" : strerror(error);
}

// explained says of each attempt what became of it; an empty text where memory is short.
std::string explained(const Op &op) {
  std::string detail;
  try {
    for (size_t i = 0; i < op.attempts->next; i++) {
      const int error = op.attempts->errors[i];
      if (!detail.empty()) detail += ", ";
      detail += AddressText(op.given->addresses[i]).text;
      detail += ": ";
      detail += sentence_of(error);
    }
  } catch (const std::bad_alloc &) {
    detail.clear();
  }
  return detail;
}

}  // namespace

void Loop::start_connect(Op *op) {
  if (op->given->addresses.empty()) {
    fail(op, PTL_E_INVALID, "there is no address to connect to");
    return;
  }
  Stream *near = slab_.find(op->stream);
  if (near->gone) {
    fail(op, PTL_E_RESET, kNearEndGone);
    return;
  }
  try {
    auto attempts = std::make_unique<ConnectAttempts>();
    attempts->errors.assign(op->given->addresses.size(), 0);
    attempts->pending.reserve(op->given->addresses.size());
    op->attempts = std::move(attempts);
  } catch (const std::bad_alloc &) {
    fail(op, PTL_E_NOMEM, "out of memory", ENOMEM);
    return;
  }
  near->connects++;
  op->attempts->stagger.callback = stagger_over;
  op->attempts->stagger.argument = op;
  next_attempt(op);
}

void Loop::next_attempt(Op *op) {
  ConnectAttempts *attempts = op->attempts.get();
  wheel_.disarm(&attempts->stagger);
  size_t which = attempts->next++;
  const ptl_address &address = op->given->addresses[which];
  sockaddr_storage storage;
  socklen_t length = fill_sockaddr(address, &storage);
  Fd fd(socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.ok()) {
    attempt_failed(op, which, errno);
    return;
  }
  Stream *stream = new_stream(std::move(fd));
  if (stream == nullptr) {
    attempt_failed(op, which, errno);
    return;
  }
  stream->connecting = true;
  stream->op = op;
  stream->attempt = static_cast<uint32_t>(which);
  int connected = connect(stream->fd.get(), reinterpret_cast<sockaddr *>(&storage), length);
  int error = connected == 0 ? 0 : errno;
  if ((error != 0 && error != EINPROGRESS) || !watch(stream, true)) {
    error = error != 0 ? error : errno;
    destroy(stream);
    attempt_failed(op, which, error);
    return;
  }
  attempts->pending.push_back(stream);
  // A connection made at once is told by epoll like any other.
  if (attempts->next < op->given->addresses.size()) {
    wheel_.arm(&attempts->stagger, now_ms(), std::max<uint32_t>(op->stagger_ms, 1));
  }
}

void Loop::stagger_over(void *argument) {
  auto *op = static_cast<Op *>(argument);
  op->loop->next_attempt(op);
}

void Loop::attempt_failed(Op *op, size_t address, int error) {
  op->attempts->errors[address] = error;
  if (op->attempts->next < op->given->addresses.size()) {
    next_attempt(op);  // at once: who waits for a failed one waits in vain
  } else if (op->attempts->pending.empty()) {
    connect_over(op, nullptr, PTL_E_UNREACHABLE);
  }
}

void Loop::attempt_ready(Stream *stream, uint32_t events) {
  if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) return;
  Op *op = stream->op;
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(stream->fd.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  auto &pending = op->attempts->pending;
  pending.erase(std::find(pending.begin(), pending.end(), stream));
  if (error != 0) {
    size_t which = stream->attempt;
    destroy(stream);
    attempt_failed(op, which, error);
    return;
  }
  stream->connecting = false;
  stream->op = nullptr;
  if (!watch(stream, false)) mark_broken(stream, errno);
  connect_over(op, stream, PTL_OK);
}

// near_end_gone ends the connects beside |near|, whose other end went away for good. One that merely said FIN may
// still be waiting for what upstream has to say.
void Loop::near_end_gone(Stream *near) {
  // One at a time: each that ends is gone from |under_way_|.
  for (;;) {
    auto found = std::find_if(under_way_.begin(), under_way_.end(), [near](const auto &entry) {
      const Op *op = entry.second.get();
      return op->kind == PTL_OP_CONNECT && op->stream == near->handle;
    });
    if (found == under_way_.end()) return;
    connect_over(found->second.get(), nullptr, PTL_E_RESET);
  }
}

void Loop::connect_over(Op *op, Stream *winner, int status) {
  ConnectAttempts *attempts = op->attempts.get();
  if (Stream *near = slab_.find(op->stream)) near->connects--;
  wheel_.disarm(&attempts->stagger);
  for (Stream *loser : attempts->pending) {
    loser->op = nullptr;
    destroy(loser);
  }
  attempts->pending.clear();
  ptl_completion completion = completion_of(op, status);
  if (winner != nullptr) {
    counters_.connected.fetch_add(1, std::memory_order_relaxed);
    completion.stream = winner->handle;
    completion.address_index = winner->attempt;
    put_text(completion.peer, sizeof(completion.peer), AddressText(op->given->addresses[winner->attempt]).text);
    for (Op *later = op->linked.get(); later != nullptr; later = later->linked.get()) {
      if (later->stream == PTL_STREAM_CONNECTED) later->stream = winner->handle;
      if (later->other == PTL_STREAM_CONNECTED) later->other = winner->handle;
    }
    complete(op, completion);
    return;
  }
  completion.stream = 0;
  if (status == PTL_E_RESET) {
    attach_text(&completion, kNearEndGone);
    complete(op, completion);
    return;
  }
  bool refused = true;
  int lack = 0;
  for (size_t i = 0; i < attempts->next; i++) {
    int error = attempts->errors[i];
    refused = refused && error == ECONNREFUSED;
    if (lack_of(error) != PTL_OK) lack = error;
    if (error != 0) completion.sys_errno = error;
  }
  if (status == PTL_E_UNREACHABLE && refused) completion.status = PTL_E_REFUSED;
  // An address that was not tried for want of ours might have answered.
  if (status == PTL_E_UNREACHABLE && lack != 0) {
    completion.status = lack_of(lack);
    completion.sys_errno = lack;
  }
  attach_text(&completion, explained(*op));
  complete(op, completion);
}

}  // namespace ptl
