// One connection and what is known of it. A stream belongs to one loop and is touched by its thread alone.
#ifndef POLYTLS_SRC_ENGINE_STREAM_H
#define POLYTLS_SRC_ENGINE_STREAM_H

#include <stdint.h>

#include <memory>
#include <vector>

#include "base/buffer.h"
#include "base/fd.h"
#include "base/timer_wheel.h"
#include "polytls/native.h"
#include "tls/layer.h"

namespace ptl {

class Loop;
struct Op;

struct Stream final : public Sink {
  Stream(Loop *owner, Fd socket) : loop(owner), fd(std::move(socket)) {}

  // emit takes what the TLS layers write: into the loop's stage while this stream is on it, else into |out|.
  bool emit(const uint8_t *bytes, size_t size) override;

  Loop *const loop;
  ptl_stream handle = 0;
  Fd fd;
  std::unique_ptr<TlsLayer> tls;  // the uppermost layer; null: plain TCP
  Buffer in;   // bytes of the uppermost layer that nobody has taken yet
  Buffer out;  // bytes for the socket that it would not take yet
  Op *op = nullptr;
  Timer timer;  // how long a closing stream lingers
  int sys_errno = 0;

  // What epoll told: edge-triggered, so that each is true until the socket says EAGAIN.
  bool readable = false;
  bool writable = false;
  bool hung_up = false;  // EPOLLRDHUP or EPOLLHUP was seen: read until the end
  bool urgent = false;   // TCP urgent data was seen: a short read does not mean an empty socket
  bool fin = false;      // recv returned 0
  bool broken = false;   // a socket error: |sys_errno|
  bool deaf = false;     // the other end takes no more bytes, though some of its own may still be there to read
  bool gone = false;     // EPOLLHUP or EPOLLERR was seen: both ways are closed, by a reset above all
  bool ended = false;    // close_notify came, or TLS failed: the uppermost layer gives no more

  bool watched = false;      // epoll has it
  bool watched_out = false;  // and tells when it takes bytes again
  bool connecting = false;
  bool closing = false;   // its handle is stale already
  bool lingering = false; // closing, and everything is sent
  bool shut = false;      // our FIN was sent
  bool dead = false;      // on the way to be freed
  bool queued = false;    // waits for its next turn
  uint32_t attempt = 0;   // connecting: which of the addresses
  uint32_t connects = 0;  // connects under way beside it
  std::unique_ptr<Stream> next;  // dead: in the loop's queue of those
};

}  // namespace ptl

#endif
