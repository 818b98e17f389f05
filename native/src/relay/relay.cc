#include "relay/relay.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <algorithm>

#include "base/clock.h"
#include "engine/completion.h"
#include "engine/engine.h"
#include "engine/loop.h"

namespace ptl {

namespace {

// Why |to| could not be written to: where there is no TLS, only memory can have been short.
int status_of_unwritten(const Stream *to) {
  return !to->tls || to->tls->short_of_memory() ? PTL_E_NOMEM : PTL_E_TLS;
}

// How long |relay| may be quiet, in milliseconds; 0: for ever.
uint32_t idle_limit_ms(const Relay &relay) {
  const bool half = relay.up.done != relay.down.done;
  return half ? relay.op->half_idle_ms : relay.op->idle_ms;
}

}  // namespace

bool Relay::may_rest() const { return !resting && (up.from->tls || up.to->tls); }

void Loop::start_relay(Op *op, Stream *stream) {
  Stream *other = slab_.find(op->other);
  op->relay = std::make_unique<Relay>();
  Relay *relay = op->relay.get();
  relay->op = op;
  relay->up.from = relay->down.to = stream;
  relay->up.to = relay->down.from = other;
  relay->moved_ns = now_ns_;
  relay->idle.callback = idle_over;
  relay->idle.argument = relay;
  stream->op = other->op = op;
  counters_.relays.fetch_add(1, std::memory_order_relaxed);
  arm_idle(relay);
  turn(stream);
  if (!relay->over) turn(other);
}

// turn does what |stream| made possible: what it has to say goes on, and what waited for it to listen.
void Loop::turn(Stream *stream) {
  Relay *relay = stream->op->relay.get();
  // Once it has said all it had to say, and was told all there was, how a socket goes away matters to nobody.
  if (stream->broken && !(relay->leaving(stream).ended && relay->reaching(stream).told)) {
    relay_broken(relay, stream);
    return;
  }
  pump(relay, &relay->reaching(stream));
  if (!relay->over) pump(relay, &relay->leaving(stream));
}

// note_error looks at an error that no read will find, because nothing more is read from |stream|.
void Loop::note_error(Stream *stream) {
  if (stream->op == nullptr || stream->op->kind != PTL_OP_RELAY) return;
  if (!stream->op->relay->leaving(stream).ended) return;
  int error = 0;
  socklen_t length = sizeof(error);
  getsockopt(stream->fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) mark_broken(stream, error);
}

void Loop::pump(Relay *relay, Direction *direction) {
  if (direction->from->queued) return;  // it gave way; its turn will come
  if (!direction->ended && direction->to->deaf) {  // found out while sending what waited
    lose(relay, direction);
    return;
  }
  const uint64_t before = direction->bytes;
  move(relay, direction);
  if (relay->over) return;
  if (direction->bytes != before) direction->bulk = direction->bytes - before >= kBulkBytes;
  if (direction->ended && !direction->done) finish(relay, direction);
}

// move takes one chunk on, or what there is.
void Loop::move(Relay *relay, Direction *direction) {
  size_t budget = chunk_bytes();
  while (!direction->ended) {
    if (!direction->to->out.empty()) return;  // back-pressure: its socket will tell when it is writable
    if (budget == 0) {
      make_ready(direction->from);
      return;
    }
    bool more = direction->from->tls ? pump_tls(relay, direction, &budget)
                                     : pump_plain(relay, direction, &budget);
    if (relay->over || !more) return;
  }
}

// pump_plain moves one chunk. It returns whether there may be more at once.
bool Loop::pump_plain(Relay *relay, Direction *direction, size_t *budget) {
  Stream *from = direction->from;
  if (!from->in.empty()) {  // what had been read before the relay began
    Buffer held;
    held.swap(from->in);
    return forward(relay, direction, held.data(), held.size());
  }
  size_t n = receive(from, chunk_.get(), chunk_bytes());
  if (n == 0) {
    if (from->broken) {
      relay_broken(relay, from);
    } else if (from->fin) {
      direction->ended = true;
    }
    return false;
  }
  *budget -= std::min(*budget, n);
  return forward(relay, direction, chunk_.get(), n);
}

// pump_tls decrypts one chunk of ciphertext, all of it, and sends what became of it. Records are gathered: many small
// ones come out as few full ones, within one turn and therefore without delay.
bool Loop::pump_tls(Relay *relay, Direction *direction, size_t *budget) {
  Stream *from = direction->from;
  Stream *to = direction->to;
  if (!from->in.empty()) {
    Buffer held;
    held.swap(from->in);
    return forward(relay, direction, held.data(), held.size());
  }
  // The layer may hold records of its own before the first chunk; so it is asked before the socket is.
  size_t supplied = 0;
  bool asked = false;
  TlsFailure failure;
  int last = 0;
  size_t plain_len = 0;
  bool written = true;
  stage(to);
  for (;;) {
    last = from->ended ? -1
                       : from->tls->read(plain_.get() + plain_len, SSL3_RT_MAX_PLAIN_LENGTH - plain_len,
                                         &failure);
    if (last > 0) {
      plain_len += static_cast<size_t>(last);
      note_moved(relay, direction, static_cast<size_t>(last));
      if (plain_len < SSL3_RT_MAX_PLAIN_LENGTH) continue;
    }
    if (plain_len != 0) {
      written = to->tls ? to->tls->write(plain_.get(), plain_len) : to->emit(plain_.get(), plain_len);
      plain_len = 0;
    }
    if (last > 0 && written) continue;
    if (last < 0 || !written || asked) break;
    asked = true;
    supplied = receive(from, chunk_.get(), chunk_bytes());
    if (supplied == 0) break;
    from->tls->supply(chunk_.get(), supplied);
  }
  bool sent = unstage();
  bool kept = from->tls->keep_rest();
  flush(from);  // answers of the layer itself, such as to a KeyUpdate
  if (!sent) {
    lose(relay, direction);
  } else if (!written || !kept) {
    const int status = written ? PTL_E_NOMEM : status_of_unwritten(to);
    relay_over(relay, status, written ? from : to, "a record could not be written", 0);
  } else if (last == -1) {
    from->ended = true;
    direction->ended = true;
  } else if (last == -2) {
    // Who was told of a truncation may complain of it (OpenSSL 3 sends decode_error). What happened is the truncation;
    // the complaint ends nothing that had not ended.
    const Direction &back = relay->reaching(from);
    const bool complaint = failure.status == PTL_E_ALERT && back.told && back.truncated;
    if (failure.status == PTL_E_CLOSED || complaint) {
      cut_off(relay, direction);
    } else {
      relay_tls_failed(relay, from, failure);
    }
  } else if (from->broken) {
    relay_broken(relay, from);
  } else if (from->fin && supplied == 0) {
    cut_off(relay, direction);
  }
  *budget -= std::min(*budget, supplied);
  return supplied != 0 && !relay->over;
}

// cut_off ends |direction| without close_notify. That is reported where it may have cost the client something: many
// clients leave this way, and many servers answer a client's goodbye with a bare FIN, when nobody is waiting any more.
void Loop::cut_off(Relay *relay, Direction *direction) {
  if (direction == &relay->down && !relay->up.ended) relay->truncated = true;
  direction->ended = direction->truncated = true;
}

// forward sends |bytes| of |direction| on, encrypted where the other side wants that.
bool Loop::forward(Relay *relay, Direction *direction, const uint8_t *bytes, size_t size) {
  Stream *to = direction->to;
  note_moved(relay, direction, size);
  bool sent;
  bool encrypted = true;
  if (to->tls) {
    stage(to);
    encrypted = to->tls->write(bytes, size);
    sent = unstage();
  } else {
    sent = send_now(to, bytes, size);
  }
  if (!sent) {
    lose(relay, direction);
    return false;
  }
  if (!encrypted) {
    relay_over(relay, status_of_unwritten(to), to, "a record could not be written", 0);
    return false;
  }
  return true;
}

void Loop::note_moved(Relay *relay, Direction *direction, size_t size) {
  if (direction == &relay->down && relay->first_byte_ns == 0) relay->first_byte_ns = now_ns();
  direction->bytes += size;
  relay->moved_ns = now_ns_;
  if (relay->resting) {
    relay->resting = false;
    arm_idle(relay);
  }
  counters_.relayed_bytes.fetch_add(size, std::memory_order_relaxed);
}

// lose gives |direction| up, because who it leads to takes no more. What that one still has to say goes on.
void Loop::lose(Relay *relay, Direction *direction) {
  if (direction->to->broken) {
    relay_broken(relay, direction->to);
    return;
  }
  if (!relay->leaving(direction->to).ended) relay->lost = direction->to;
  direction->ended = direction->told = direction->done = true;
  Direction *back = direction == &relay->up ? &relay->down : &relay->up;
  if (back->done) {
    both_done(relay);
  } else {
    make_ready(back->from);
  }
}

// finish hands the end of |direction| on, once everything before it is sent.
void Loop::finish(Relay *relay, Direction *direction) {
  Stream *to = direction->to;
  if (!direction->told) {
    if (!flush(to)) {
      lose(relay, direction);
      return;
    }
    if (!to->out.empty()) return;
    direction->told = true;
    if (to->tls && !direction->truncated) to->tls->close_notify();
  }
  // From here on everything that |from| said has been taken; a goodbye that cannot be delivered is no failure.
  flush(to, true);
  if (!to->out.empty()) return;
  if (!to->broken && !to->deaf) shutdown(to->fd.get(), SHUT_WR);
  to->shut = true;
  direction->done = true;
  if (relay->up.done && relay->down.done) {
    both_done(relay);
  } else {
    arm_idle(relay);
  }
}

void Loop::both_done(Relay *relay) {
  if (relay->lost != nullptr) {
    relay_broken(relay, relay->lost);
  } else {
    relay_over(relay, PTL_OK, nullptr, "", 0);
  }
}

void Loop::relay_broken(Relay *relay, Stream *whose) {
  int error = whose->sys_errno;
  bool reset = error == ECONNRESET || error == EPIPE;
  // Most who say that they have no more to say mean that they are going: that what still came for them, often the
  // other side's goodbye, met a closed socket is how such a tunnel ends, and no failure.
  if (reset && relay->leaving(whose).ended && relay->lost != whose) {
    relay_over(relay, PTL_OK, nullptr, "", 0);
    return;
  }
  const int status = reset ? PTL_E_RESET : error == ENOMEM ? PTL_E_NOMEM : PTL_E_IO;
  relay_over(relay, status, whose, strerror(error), error);
}

void Loop::relay_tls_failed(Relay *relay, Stream *whose, const TlsFailure &failure) {
  // Past its handshake a connection fails in one way, whatever the library calls what came (a record of another
  // version is one); what it was is in the detail.
  const bool told = failure.status == PTL_E_ALERT || failure.status == PTL_E_NOMEM;
  const int status = told ? failure.status : PTL_E_TLS;
  relay_over(relay, status, whose, failure.detail, 0);
}

void Loop::relay_over(Relay *relay, int status, Stream *whose, std::string_view detail,
                      int sys_errno) {
  if (relay->over) return;
  relay->over = true;
  wheel_.disarm(&relay->idle);
  counters_.relays.fetch_sub(1, std::memory_order_relaxed);
  Stream *stream = relay->up.from;
  Stream *other = relay->up.to;
  ptl_completion completion = completion_of(relay->op, status);
  completion.side = whose == other ? PTL_SIDE_OTHER : PTL_SIDE_STREAM;
  completion.sys_errno = sys_errno;
  completion.bytes_out = relay->up.bytes;
  completion.bytes_in = relay->down.bytes;
  completion.first_byte_ns = relay->first_byte_ns;
  completion.truncated = relay->truncated;
  attach_text(&completion, detail);
  complete(relay->op, completion);
  if (status == PTL_OK && relay->up.done && relay->down.done) {
    destroy(stream);
    destroy(other);
    return;
  }
  // Who is still there is told that the end is not the end of the data, unless it was we who ended it.
  const bool ours = status == PTL_E_IDLE || status == PTL_E_LIFETIME || status == PTL_E_CANCELLED ||
                    status == PTL_E_SHUTDOWN;
  close_stream(stream, 0, false, ours);
  close_stream(other, 0, false, ours);
}

// The relay's limit and its rest have one timer, for what is due first.
void Loop::arm_idle(Relay *relay) {
  const uint64_t quiet_ms = (now_ns_ - std::min(relay->moved_ns, now_ns_)) / 1000000u;
  const uint64_t limit = idle_limit_ms(*relay);
  uint64_t due = limit == 0 ? UINT64_MAX : limit;
  if (relay->may_rest()) due = std::min<uint64_t>(due, kRestAfterMs);
  if (due == UINT64_MAX) {
    wheel_.disarm(&relay->idle);
  } else {
    wheel_.arm(&relay->idle, now_ms(), quiet_ms < due ? due - quiet_ms : 1);
  }
}

// The timer is not moved with every byte: when it fires, it looks how long it really has been.
void Loop::idle_over(void *argument) {
  auto *relay = static_cast<Relay *>(argument);
  Loop *loop = relay->op->loop;
  const uint64_t quiet_ns = loop->now_ns_ - std::min(relay->moved_ns, loop->now_ns_);
  const uint64_t limit_ns = uint64_t{idle_limit_ms(*relay)} * 1000000u;
  if (limit_ns != 0 && quiet_ns >= limit_ns) {
    loop->relay_over(relay, PTL_E_IDLE, nullptr, "no byte moved for the idle time", 0);
    return;
  }
  if (relay->may_rest() && quiet_ns >= uint64_t{kRestAfterMs} * 1000000u) {
    relay->resting = true;
    loop->counters_.rests.fetch_add(1, std::memory_order_relaxed);
    for (Stream *stream : {relay->up.from, relay->up.to}) {
      if (stream->tls) stream->tls->rest();
    }
  }
  loop->arm_idle(relay);
}

}  // namespace ptl
