// Sockets: reading into scratch memory, writing from it, closing in order.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <new>

#include "engine/engine.h"
#include "engine/loop.h"

namespace ptl {

namespace {

// How long a closing stream waits for its last bytes to be taken, and then for the other end's FIN. A socket closed
// with bytes unread is reset by the kernel, and the reset can overtake an answer that is still on its way.
constexpr uint64_t kFlushMs = 30000;
constexpr uint64_t kLingerMs = 2000;
constexpr size_t kPlainRecordBytes = 7;

}  // namespace

bool Stream::emit(const uint8_t *bytes, size_t size) {
  if (loop->on_stage_ != this) return out.append(bytes, size);
  try {
    loop->staged_.insert(loop->staged_.end(), bytes, bytes + size);
  } catch (const std::bad_alloc &) {
    return false;
  }
  return true;
}

Stream *Loop::new_stream(Fd fd) {
  if (engine_->take_room()) return place_stream(std::move(fd));
  errno = EAGAIN;
  return nullptr;
}

Stream *Loop::place_stream(Fd fd) {
  int one = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  Stream *stream = nullptr;
  int error = EAGAIN;
  try {
    ready_.reserve(ready_.size() + slab_.count() + 1);  // what is queued, and everybody who may be yet
    reserve_close();
    stream = slab_.add(std::make_unique<Stream>(this, std::move(fd)));
  } catch (const std::bad_alloc &) {
    error = ENOMEM;
  }
  if (stream == nullptr) {
    engine_->give_room();
    errno = error;
    return nullptr;
  }
  stream->timer.callback = linger_over;
  stream->timer.argument = stream;
  counters_.streams.store(slab_.count(), std::memory_order_relaxed);
  return stream;
}

// reserve_close sees to it that the next stream can be closed whatever else there is no memory for.
void Loop::reserve_close() {
  if (slab_.places() < closes_.room()) return;
  std::lock_guard<std::mutex> lock(inbox_mutex_);
  closes_.reserve(slab_.places() + 1);
}

// Writability is only watched where somebody waits for it: a socket that was just made is writable, and each edge
// that says so again is a wake-up for nothing.
bool Loop::watch(Stream *stream, bool writability) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET | (writability ? EPOLLOUT : 0u);
  event.data.u64 = stream->handle;
  const int how = stream->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  if (epoll_ctl(epoll_.get(), how, stream->fd.get(), &event) != 0) return false;
  stream->watched = true;
  stream->watched_out = writability;
  return true;
}

// The socket takes no more for now. If it does again by the time it is watched for that, epoll says so at once.
void Loop::await_writable(Stream *stream) {
  stream->writable = false;
  if (!stream->watched_out && !watch(stream, true)) mark_broken(stream, errno);
}

void Loop::mark_broken(Stream *stream, int error) {
  stream->broken = true;
  stream->sys_errno = error;
  stream->readable = stream->writable = false;
  stream->out.clear();
}

// A send that failed says nothing of what is there to read: an origin that refuses an upload answers first and
// closes then, and its answer must not be lost to the bytes it did not want.
void Loop::mark_deaf(Stream *stream, int error) {
  if (error != EPIPE && error != ECONNRESET) {
    mark_broken(stream, error);
    return;
  }
  stream->deaf = true;
  stream->sys_errno = error;
  stream->writable = false;
  stream->readable = true;
  stream->out.clear();
}

size_t Loop::receive(Stream *stream, uint8_t *scratch, size_t size) {
  if (stream->broken || stream->fin || !stream->readable) return 0;
  for (;;) {
    ssize_t n = recv(stream->fd.get(), scratch, size, 0);
    if (n > 0) {
      // A short read has emptied the socket (epoll(7)): what comes later makes a new edge. After a hang-up there
      // will be none, and urgent data makes reads end early; then one has to read on until EAGAIN.
      bool emptied = static_cast<size_t>(n) < size && !stream->hung_up && !stream->urgent;
      if (emptied) stream->readable = false;
      return static_cast<size_t>(n);
    }
    if (n == 0) {
      stream->fin = true;
      stream->readable = false;
      return 0;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      stream->readable = false;
      return 0;
    }
    mark_broken(stream, errno);
    return 0;
  }
}

bool Loop::send_now(Stream *stream, const uint8_t *bytes, size_t size) {
  if (stream->broken || stream->deaf) return false;
  while (size != 0 && stream->writable && stream->out.empty()) {
    ssize_t n = send(stream->fd.get(), bytes, size, MSG_NOSIGNAL);
    if (n >= 0) {
      bytes += n;
      size -= static_cast<size_t>(n);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      await_writable(stream);
    } else if (errno != EINTR) {
      mark_deaf(stream, errno);
      return false;
    }
  }
  if (size != 0 && !stream->out.append(bytes, size)) {
    mark_broken(stream, ENOMEM);
    return false;
  }
  return true;
}

bool Loop::flush(Stream *stream, bool more) {
  if (stream->broken || stream->deaf) return false;
  while (!stream->out.empty() && stream->writable) {
    ssize_t n = send(stream->fd.get(), stream->out.data(), stream->out.size(),
                     MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    if (n >= 0) {
      stream->out.consume(static_cast<size_t>(n));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      await_writable(stream);
    } else if (errno != EINTR) {
      mark_deaf(stream, errno);
      return false;
    }
  }
  return true;
}

// Between stage and unstage what |stream| writes is collected, to leave in one send.
void Loop::stage(Stream *stream) {
  if (on_stage_ != nullptr) counters_.impossible.fetch_add(1, std::memory_order_relaxed);
  on_stage_ = stream;
  staged_.clear();
}

bool Loop::unstage() {
  Stream *stream = on_stage_;
  on_stage_ = nullptr;
  bool sent = send_now(stream, staged_.data(), staged_.size());
  staged_.clear();
  return sent;
}

void Loop::close_stream(Stream *stream, uint8_t alert, bool reset, bool say_goodbye) {
  if (stream->dead || stream->closing) return;
  stream->closing = true;
  stream->in.clear();
  if (reset) {
    linger hard{1, 0};
    setsockopt(stream->fd.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    destroy(stream);
    return;
  }
  if (stream->broken || stream->deaf || stream->connecting) {
    destroy(stream);
    return;
  }
  if (stream->tls && alert != 0) {
    stream->tls->fatal_alert(alert);
  } else if (stream->tls && say_goodbye) {
    stream->tls->close_notify();
  } else if (alert != 0) {
    // No handshake has begun: the alert goes out in the clear (RFC 8446 §6: fatal is level 2).
    const uint8_t record[kPlainRecordBytes] = {21, 3, 3, 0, 2, 2, alert};
    stream->emit(record, sizeof(record));
  }
  wheel_.arm(&stream->timer, now_ms(), kFlushMs);
  advance_close(stream);
}

void Loop::advance_close(Stream *stream) {
  if (!flush(stream, !stream->shut)) {
    destroy(stream);
    return;
  }
  if (!stream->out.empty()) return;
  if (!stream->lingering) {
    stream->lingering = true;
    stream->tls.reset();  // nobody will read what still comes
    wheel_.arm(&stream->timer, now_ms(), kLingerMs);
    if (!stream->shut && shutdown(stream->fd.get(), SHUT_WR) != 0) {
      destroy(stream);
      return;
    }
    stream->shut = true;
  }
  // What still comes is thrown away, a bounded amount a turn; the timer ends a flood.
  for (int i = 0; i < 2; i++) {
    if (receive(stream, chunk_.get(), kChunkBytes) == 0) break;
  }
  if (stream->fin || stream->broken) {
    destroy(stream);
  } else if (stream->readable) {
    make_ready(stream);
  }
}

void Loop::linger_over(void *argument) {
  auto *stream = static_cast<Stream *>(argument);
  stream->loop->destroy(stream);
}

void Loop::destroy(Stream *stream) {
  if (stream->dead) return;
  stream->dead = true;
  wheel_.disarm(&stream->timer);
  stream->fd.reset();
  graves_.push_back(slab_.remove(stream));
  engine_->give_room();
  counters_.streams.store(slab_.count(), std::memory_order_relaxed);
}

void Loop::make_ready(Stream *stream) {
  if (stream->queued) return;
  stream->queued = true;
  ready_.push_back(stream->handle);
}

}  // namespace ptl
