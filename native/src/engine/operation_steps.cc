// The steps of operations: how each kind starts, and goes on when its socket lets it.
//
// An operation is started when it is submitted, or when the one that it is linked behind has succeeded; |start| refuses
// what no open stream is free for. From then on its stream knows it, and |advance|, which every event of the socket
// leads to, tries its kind's step. A step does what can be done now, and either completes the operation or leaves it as
// it is until there is more: none waits, and none keeps anything between two tries but what is in the stream and the
// operation. How they end: operation_ends.cc. The steps of a connect, of handshakes and of relays have files of their
// own.
#include <errno.h>
#include <string.h>

#include <new>

#include "engine/completion.h"
#include "engine/engine.h"
#include "engine/loop.h"
#include "engine/operation.h"

namespace ptl {

namespace {

constexpr uint64_t kOwnKey = uint64_t{1} << 63;  // keys of untagged operations; tags stay below

enum class Scan { kFound, kMore, kMalformed };

// scan_head looks for the first empty line from |*scanned| on. A head is text: a byte that can be in none ends the
// wait at once, so that a client which speaks something else gets its answer now and not at the deadline.
Scan scan_head(const uint8_t *bytes, size_t size, size_t *scanned, size_t *out_end) {
  for (size_t i = *scanned; i < size; i++) {
    uint8_t c = bytes[i];
    if (c == '\n') {
      size_t line = i;  // what ends before |i|: nothing but a CR since the last LF makes an empty line
      if (line > 0 && bytes[line - 1] == '\r') line--;
      if (line > 0 && bytes[line - 1] == '\n') {
        *out_end = i + 1;
        return Scan::kFound;
      }
    } else if ((c < 0x20 && c != '\r' && c != '\t') || c == 0x7f) {
      return Scan::kMalformed;
    }
  }
  *scanned = size;
  return Scan::kMore;
}

// reserve returns false where |bytes| cannot hold |size|.
bool reserve(std::vector<uint8_t> *bytes, size_t size) {
  try {
    bytes->reserve(size);
  } catch (const std::bad_alloc &) {
    return false;
  }
  return true;
}

// expected returns whether a PEEK_HELLO has found what it was told to find.
bool expected(const Op &op, const HelloInfo &info) {
  if (op.expect == 0) return true;
  auto same = [](bool has, const uint8_t *bytes, size_t size, const auto &wanted) {
    return has == !wanted.empty() && size == wanted.size() && (!has || memcmp(bytes, wanted.data(), size) == 0);
  };
  return same(info.has_sni, info.sni, info.sni_len, op.given->name) &&
         same(info.has_alpn, info.alpn, info.alpn_len, op.given->data) &&
         info.ecdsa_ok == ((op.expect & PTL_EXPECT_ECDSA) != 0);
}

}  // namespace

Stream *Loop::find_open(ptl_stream handle) {
  Stream *stream = slab_.find(handle);
  return stream != nullptr && !stream->closing && !stream->connecting ? stream : nullptr;
}

// What may be short of memory comes first, while |owned| can still be refused.
Op *Loop::enlist(std::unique_ptr<Op> owned) {
  Op *op = owned.get();
  op->loop = this;
  op->started_ns = now_ns_;
  // All accepts of a listener share its tag; they are not cancelled by it.
  bool named = op->tag != 0 && op->kind != PTL_OP_ACCEPT && under_way_.count(op->tag) == 0;
  op->key = named ? op->tag : kOwnKey | ++last_key_;
  try {
    std::unique_ptr<Op> &place = under_way_[op->key];
    place = std::move(owned);
  } catch (const std::bad_alloc &) {
    refuse(std::move(owned), PTL_E_NOMEM, kNoMemory);
    return nullptr;
  }
  op->deadline.callback = deadline_passed;
  op->deadline.argument = op;
  if (op->deadline_ms != 0) wheel_.arm(&op->deadline, now_ms(), op->deadline_ms);
  return op;
}

void Loop::start(std::unique_ptr<Op> op) {
  Stream *stream = find_open(op->stream);
  if (stream == nullptr) {
    counters_.stale_handles.fetch_add(1, std::memory_order_relaxed);
    refuse(std::move(op), PTL_E_STALE, "the stream is closed");
    return;
  }
  if (op->kind == PTL_OP_CLOSE) {
    op->started_ns = now_ns_;  // never enlisted
    close_as_asked(stream, op->alert, (op->flags & PTL_FLAG_RESET) != 0);
    const bool told = tell(op.get(), completion_of(op.get(), PTL_OK), (op->flags & PTL_FLAG_QUIET) != 0);
    if (op->linked) starts_.push_back(std::move(op->linked));
    be_done_with(std::move(op), told);
    return;
  }
  if (op->kind == PTL_OP_CONNECT) {
    if (Op *connect = enlist(std::move(op))) start_connect(connect);
    return;
  }
  Stream *other = op->kind == PTL_OP_RELAY ? find_open(op->other) : nullptr;
  if (op->kind == PTL_OP_RELAY && other == nullptr) {
    counters_.stale_handles.fetch_add(1, std::memory_order_relaxed);
    refuse(std::move(op), PTL_E_STALE, "the other stream is closed");
    return;
  }
  if (stream->op != nullptr || (other != nullptr && (other->op != nullptr || other == stream))) {
    refuse(std::move(op), PTL_E_BUSY, "the stream has an operation under way");
    return;
  }
  if (Op *under_way = enlist(std::move(op))) start_on_stream(under_way, stream);
}

// close_as_asked is what a CLOSE does. Who is short of memory closes above all, and this takes none.
void Loop::close_as_asked(Stream *stream, uint8_t alert, bool reset) {
  Op *under_way = stream->op;
  const bool relaying = under_way != nullptr && under_way->kind == PTL_OP_RELAY;
  if (under_way != nullptr && !relaying) end_early(under_way, PTL_E_CANCELLED);
  close_stream(stream, alert, reset, true);
  // A relay closes both its streams as it ends: this one as it was asked for, so that came first.
  if (relaying) end_early(under_way, PTL_E_CANCELLED);
}

void Loop::start_on_stream(Op *op, Stream *stream) try {
  stream->op = op;
  switch (op->kind) {
    case PTL_OP_WRITE:
      if (stream->tls) {
        stage(stream);
        bool encrypted = stream->tls->write(op->given->data.data(), op->given->data.size());
        bool sent = unstage();
        if (!encrypted && sent) mark_broken(stream, stream->tls->short_of_memory() ? ENOMEM : EPROTO);
      } else {
        send_now(stream, op->given->data.data(), op->given->data.size());
      }
      op->given->data.clear();
      op->given->data.shrink_to_fit();
      break;
    case PTL_OP_CONNECT_TLS:
    case PTL_OP_ACCEPT_TLS:
      start_tls(op, stream);
      return;
    case PTL_OP_RELAY:
      start_relay(op, stream);
      return;
    default:
      break;
  }
  advance(stream);
} catch (const std::bad_alloc &) {
  out_of_memory(stream, op);
}

// advance does what |stream| can do now. It is called whenever that may have changed.
void Loop::advance(Stream *stream) try {
  if (stream->dead) return;
  if (stream->closing) {
    advance_close(stream);
    return;
  }
  if (!stream->out.empty()) flush(stream);
  if (stream->op == nullptr) return;
  switch (stream->op->kind) {
    case PTL_OP_ACCEPT:
    case PTL_OP_READ_HEAD:
      return try_head(stream);
    case PTL_OP_PEEK_HELLO:
      return try_peek(stream);
    case PTL_OP_READ:
      return try_read(stream);
    case PTL_OP_WRITE:
      return try_write(stream);
    case PTL_OP_CONNECT_TLS:
    case PTL_OP_ACCEPT_TLS:
      return try_handshake(stream);
    case PTL_OP_RELAY:
      return turn(stream);
    default:
      counters_.impossible.fetch_add(1, std::memory_order_relaxed);
  }
} catch (const std::bad_alloc &) {
  out_of_memory(stream, stream->op);
}

// top_up brings more bytes of the uppermost layer into |stream->in|. It returns whether any came.
bool Loop::top_up(Stream *stream) {
  size_t before = stream->in.size();
  if (!stream->tls) {
    size_t n = receive(stream, chunk_.get(), kChunkBytes);
    if (n != 0 && !stream->in.append(chunk_.get(), n)) mark_broken(stream, ENOMEM);
    return stream->in.size() > before;
  }
  while (!stream->ended && !stream->broken) {
    TlsFailure failure;
    int n = stream->tls->read(plain_.get(), SSL3_RT_MAX_PLAIN_LENGTH, &failure);
    if (n > 0) {
      if (!stream->in.append(plain_.get(), static_cast<size_t>(n))) mark_broken(stream, ENOMEM);
    } else if (n < 0) {
      stream->ended = true;
    } else if (stream->in.size() > before) {
      break;
    } else {
      size_t got = receive(stream, chunk_.get(), kChunkBytes);
      if (got == 0) break;
      stream->tls->supply(chunk_.get(), got);
    }
  }
  if (!stream->tls->keep_rest()) mark_broken(stream, ENOMEM);
  flush(stream);
  return stream->in.size() > before;
}

void Loop::try_head(Stream *stream) {
  Op *op = stream->op;
  do {
    size_t size = stream->in.size() < op->limit ? stream->in.size() : op->limit;
    size_t end = 0;
    switch (scan_head(stream->in.data(), size, &op->scanned, &end)) {
      case Scan::kFound: {
        ptl_completion completion = completion_of(op, PTL_OK);
        if (!attach_data(&completion, stream->in.data(), end)) {
          fail_with_input(op, stream, PTL_E_NOMEM, ENOMEM);
          return;
        }
        stream->in.consume(end);
        complete(op, completion);
        return;
      }
      case Scan::kMalformed:
        fail_with_input(op, stream, PTL_E_MALFORMED);
        return;
      case Scan::kMore:
        break;
    }
    if (stream->in.size() >= op->limit) {
      fail_with_input(op, stream, PTL_E_TOO_LARGE);
      return;
    }
  } while (top_up(stream));
  if (stream->broken) {
    fail_with_input(op, stream, status_of_errno(stream->sys_errno), stream->sys_errno);
  } else if (stream->fin || stream->ended) {
    fail_with_input(op, stream, PTL_E_CLOSED);
  }
}

void Loop::try_peek(Stream *stream) {
  Op *op = stream->op;
  do {
    if (stream->in.empty()) continue;
    HelloInfo info;
    if (!reserve(&hello_scratch_, stream->in.size())) {
      fail(op, PTL_E_NOMEM, kNoMemory, ENOMEM);
      return;
    }
    switch (parse_hello(stream->in.data(), stream->in.size(), &hello_scratch_, &info)) {
      case HelloStatus::kComplete: {
        if (info.records_len > op->limit) {
          fail(op, PTL_E_TOO_LARGE, "the ClientHello is longer than its limit");
          return;
        }
        ptl_completion completion = completion_of(op, expected(*op, info) ? PTL_OK : PTL_E_UNEXPECTED);
        completion.has_sni = info.has_sni;
        completion.has_alpn = info.has_alpn;
        completion.ecdsa_ok = info.ecdsa_ok;
        completion.version = info.max_version;
        completion.bytes_out = info.records_len;
        completion.sni_len = static_cast<uint32_t>(info.sni_len);
        completion.alpn_len = static_cast<uint32_t>(info.alpn_len);
        Buffer facts;
        const bool raw = (op->flags & PTL_FLAG_RAW) != 0;
        if ((info.has_sni && !facts.append(info.sni, info.sni_len)) ||
            (info.has_alpn && !facts.append(info.alpn, info.alpn_len)) ||
            (raw && !facts.append(stream->in.data(), info.records_len)) ||
            !attach_data(&completion, facts.data(), facts.size())) {
          fail(op, PTL_E_NOMEM, kNoMemory, ENOMEM);
          return;
        }
        complete(op, completion);
        return;
      }
      case HelloStatus::kNotTls:
        fail(op, PTL_E_NOT_TLS, "the client does not begin with a TLS handshake");
        return;
      case HelloStatus::kMalformed:
        fail(op, PTL_E_MALFORMED, "the client's first handshake message is no well-formed ClientHello");
        return;
      case HelloStatus::kTooLarge:
        fail(op, PTL_E_TOO_LARGE, "the ClientHello is longer than any that could be answered");
        return;
      case HelloStatus::kMore:
        break;
    }
    if (stream->in.size() >= op->limit) {
      fail(op, PTL_E_TOO_LARGE, "the ClientHello is longer than its limit");
      return;
    }
  } while (top_up(stream));
  if (stream->broken || stream->fin || stream->ended) fail_gone(op, stream);
}

void Loop::try_read(Stream *stream) {
  Op *op = stream->op;
  if (stream->in.empty()) top_up(stream);
  if (stream->in.empty()) {
    if (stream->broken || stream->fin || stream->ended) fail_gone(op, stream);
    return;
  }
  size_t size = stream->in.size() < op->limit ? stream->in.size() : op->limit;
  ptl_completion completion = completion_of(op, PTL_OK);
  if (!attach_data(&completion, stream->in.data(), size)) {
    fail(op, PTL_E_NOMEM, kNoMemory, ENOMEM);
    return;
  }
  stream->in.consume(size);
  complete(op, completion);
}

void Loop::try_write(Stream *stream) {
  if (stream->broken || stream->deaf) {
    fail_gone(stream->op, stream);
  } else if (stream->out.empty()) {
    complete(stream->op, completion_of(stream->op, PTL_OK));
  }
}

}  // namespace ptl
