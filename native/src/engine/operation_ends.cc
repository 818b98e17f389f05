// How operations end: each in exactly one completion, whatever ends it and however little memory there is.
//
// |complete| is the one door for what is under way. It takes the operation from its streams, has its completion told,
// and lets what is linked behind it start, or fail for the same reason. |fail| and its kin say what went wrong on the
// way there; |end_early| is for what comes from outside: a deadline, a cancellation, the engine's stop. What never
// began is refused, which is told the same way. (A CLOSE is over as it starts, and never under way.)
//
// Telling takes memory, of which there may be none. A loop has room set aside for some completions; what finds none
// of that either stays in |untold_|, itself the node of the queue, until there is some. A success that cannot be told is
// none: what came of it is undone.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <new>

#include "base/clock.h"
#include "base/text.h"
#include "engine/completion.h"
#include "engine/engine.h"
#include "engine/loop.h"
#include "engine/operation.h"

namespace ptl {

// out_of_memory ends |op| of |stream|, in the middle of which memory was short. What had been handed to TLS, or
// gathered for a socket, is lost, and with it the stream. Each |op| is still there, if only to be swept.
void Loop::out_of_memory(Stream *stream, Op *op) {
  const Stream *staged = on_stage_;
  on_stage_ = nullptr;
  staged_.clear();
  Stream *near = op == nullptr ? nullptr : slab_.find(op->stream);
  Stream *far = op == nullptr ? nullptr : slab_.find(op->other);
  for (Stream *one : {stream, near, far}) {
    if (one == nullptr || one->dead) continue;
    const bool lost = (one->tls && one->tls->drop_rest()) || one == staged;
    if (lost && !one->broken) mark_broken(one, ENOMEM);
  }
  if (op == nullptr) return;
  auto found = under_way_.find(op->key);
  if (found != under_way_.end() && found->second.get() == op) end_early(op, PTL_E_NOMEM);
}

ptl_completion Loop::completion_of(const Op *op, int status) const {
  ptl_completion completion;
  memset(&completion, 0, sizeof(completion));
  completion.tag = op->tag;
  completion.kind = op->kind;
  completion.status = status;
  const bool none = op->kind == PTL_OP_CONNECT || op->stream == PTL_STREAM_CONNECTED;  // a connect's is the new one
  completion.stream = none ? 0 : op->stream;
  completion.started_ns = op->started_ns;
  completion.ended_ns = now_ns();
  if (op->kind == PTL_OP_ACCEPT) put_text(completion.peer, sizeof(completion.peer), op->given->name);
  return completion;
}

// keep puts |completion| of |op| into |in|. Nobody hears of an untagged one.
bool Loop::keep(Op *op, ptl_completion completion, Completions *in) {
  if (op->tag != 0) {
    try {
      in->push_back(completion);
      return true;
    } catch (const std::bad_alloc &) {
    }
    if (!spare_.empty()) {
      spare_.front() = completion;
      in->splice(in->end(), spare_, spare_.begin());
      return true;
    }
  }
  ptl_release(&completion, 1);
  op->untold = completion.status;
  return op->tag == 0;
}

bool Loop::tell(Op *op, ptl_completion completion, bool quiet) {
  if (!quiet && op->tag != 0) urgent_ = true;
  return keep(op, completion, &completions_);
}

void Loop::be_done_with(std::unique_ptr<Op> op, bool told) { (told ? ended_ : untold_).push_back(std::move(op)); }

// tell_untold tells what can be told by now, and sees to it that the rest is tried again.
void Loop::tell_untold() {
  while (Op *op = untold_.front()) {
    ptl_completion completion = completion_of(op, op->untold);
    if (op->relay) {
      completion.bytes_out = op->relay->up.bytes;
      completion.bytes_in = op->relay->down.bytes;
      completion.first_byte_ns = op->relay->first_byte_ns;
    }
    if (!tell(op, completion)) break;
    ended_.push_back(untold_.pop_front());
  }
  if (!untold_.empty() && !quiet_.armed()) wheel_.arm(&quiet_, now_ms(), kQuietMs);
  try {
    while (untold_.empty() && spare_.size() < kSpareCompletions) spare_.emplace_back();
  } catch (const std::bad_alloc &) {
  }
}

void Loop::complete(Op *op, ptl_completion completion) {
  auto found = under_way_.find(op->key);
  if (found == under_way_.end()) {  // it has ended before: two completions would be a lie
    counters_.impossible.fetch_add(1, std::memory_order_relaxed);
    ptl_release(&completion, 1);
    return;
  }
  wheel_.disarm(&op->deadline);
  if (op->kind == PTL_OP_CONNECT_TLS && (op->flags & PTL_FLAG_RAW) != 0) attach_hello(op, &completion);
  for (ptl_stream handle : {op->stream, op->other}) {
    Stream *stream = slab_.find(handle);
    if (stream != nullptr && stream->op == op) stream->op = nullptr;
  }
  std::unique_ptr<Op> linked = std::move(op->linked);
  const bool quiet = (op->flags & PTL_FLAG_QUIET) != 0 && completion.status == PTL_OK;
  std::unique_ptr<Op> owned = std::move(found->second);
  under_way_.erase(found);
  if (completion.status != PTL_OK) {
    tell_with_rest(std::move(owned), std::move(linked), completion);
    return;
  }
  if (tell(op, completion, quiet)) {
    if (linked) starts_.push_back(std::move(linked));
    ended_.push_back(std::move(owned));
    return;
  }
  // What came of it cannot be told, and so it has not succeeded; but a relay is over, whoever hears of it.
  Stream *made = op->kind == PTL_OP_CONNECT ? slab_.find(completion.stream) : nullptr;
  if (made != nullptr) destroy(made);
  if (op->kind != PTL_OP_RELAY) op->untold = PTL_E_NOMEM;
  untold_.push_back(std::move(owned));
  if (linked) refuse(std::move(linked), PTL_E_NOMEM, kNoMemory);
}

// The records of the ClientHello that was sent, after whatever else the completion says.
void Loop::attach_hello(const Op *op, ptl_completion *completion) {
  Stream *stream = slab_.find(op->stream);
  if (stream == nullptr || !stream->tls) return;
  const std::string hello = stream->tls->take_first_flight();
  if (hello.empty()) return;
  const uint32_t said = completion->data_len;
  auto *both = static_cast<uint8_t *>(malloc(said + hello.size()));
  if (both == nullptr) return;  // everything else is told all the same
  if (said != 0) memcpy(both, completion->data, said);
  memcpy(both + said, hello.data(), hello.size());
  ptl_release(completion, 1);
  completion->data = both;
  completion->data_len = said + static_cast<uint32_t>(hello.size());
  completion->bytes_out = hello.size();
}

void Loop::fail(Op *op, int status, std::string_view detail, int sys_errno) {
  ptl_completion completion = completion_of(op, status);
  completion.sys_errno = sys_errno;
  attach_text(&completion, detail);
  complete(op, completion);
}

// A head that failed hands out what came of it: the answer may depend on it.
void Loop::fail_with_input(Op *op, Stream *stream, int status, int sys_errno) {
  ptl_completion completion = completion_of(op, status);
  completion.sys_errno = sys_errno;
  size_t size = stream->in.size() < op->limit ? stream->in.size() : op->limit;
  attach_data(&completion, stream->in.data(), size);
  complete(op, completion);
}

void Loop::fail_gone(Op *op, Stream *stream) {
  if (!stream->broken && !stream->deaf) {
    fail(op, PTL_E_CLOSED, "the connection was closed");
    return;
  }
  int error = stream->sys_errno;
  fail(op, status_of_errno(error), strerror(error), error);
}

void Loop::refuse(std::unique_ptr<Op> op, int status, const char *detail) {
  op->started_ns = now_ns_;
  ptl_completion completion = completion_of(op.get(), status);
  attach_text(&completion, detail);
  std::unique_ptr<Op> rest = std::move(op->linked);
  tell_with_rest(std::move(op), std::move(rest), completion);
}

// What failed is told first, then what was linked behind it, for the same reason.
void Loop::tell_with_rest(std::unique_ptr<Op> op, std::unique_ptr<Op> rest, const ptl_completion &because) {
  Completions told;
  while (rest) {
    rest->started_ns = now_ns_;
    ptl_completion completion = completion_of(rest.get(), because.status);
    completion.sys_errno = because.sys_errno;
    completion.alert = because.alert;
    attach_data(&completion, because.data, because.data_len);
    std::unique_ptr<Op> following = std::move(rest->linked);
    const bool kept = keep(rest.get(), completion, &told);
    be_done_with(std::move(rest), kept);
    rest = std::move(following);
  }
  const bool heard = tell(op.get(), because);
  be_done_with(std::move(op), heard);
  urgent_ = urgent_ || !told.empty();
  completions_.splice(completions_.end(), told);
}

// end_early ends |op| for a reason from outside: its deadline, a cancellation, the engine's stop.
void Loop::end_early(Op *op, int status) {
  switch (op->kind) {
    case PTL_OP_RELAY:
      if (!op->relay) break;  // it could not begin
      relay_over(op->relay.get(), status, nullptr, ptl_status_name(status), 0);
      return;
    case PTL_OP_CONNECT:
      if (!op->attempts) break;
      connect_over(op, nullptr, status);
      return;
    case PTL_OP_ACCEPT:
    case PTL_OP_READ_HEAD:
      if (Stream *stream = slab_.find(op->stream)) {
        fail_with_input(op, stream, status);
        return;
      }
      break;
    case PTL_OP_PEEK_HELLO: {
      const Stream *stream = slab_.find(op->stream);
      ptl_completion completion = completion_of(op, status);
      completion.truncated = stream != nullptr && !stream->in.empty();
      attach_text(&completion, ptl_status_name(status));
      complete(op, completion);
      return;
    }
    case PTL_OP_CONNECT_TLS:
    case PTL_OP_ACCEPT_TLS: {
      Stream *stream = slab_.find(op->stream);
      ptl_completion completion = completion_of(op, status);
      completion.flight_sent = stream != nullptr && stream->tls && stream->tls->flight_sent();
      attach_text(&completion, ptl_status_name(status));
      complete(op, completion);
      return;
    }
    default:
      break;
  }
  fail(op, status, ptl_status_name(status));
}

void Loop::deadline_passed(void *argument) {
  auto *op = static_cast<Op *>(argument);
  op->loop->end_early(op, op->kind == PTL_OP_RELAY ? PTL_E_LIFETIME : PTL_E_TIMEOUT);
}

}  // namespace ptl
