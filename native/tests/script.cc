#include "script.h"

#include "check.h"
#include "engine/slab.h"
#include "exchange.h"

namespace test {

Script::Script(EngineDriver *engine, uint16_t port, uint64_t seed)
    : engine_(engine),
      up_(noise(1 + seed * 7919 % 60000, seed)),
      down_(noise(1 + seed * 104729 % 90000, seed + 1)),
      client_(Peer::connect_to(port)) {}

bool Script::step() {
  advance();
  if (stage_ == Stage::kOver) return false;
  for (uint64_t loop = 0; loop < ptl_engine_num_loops(engine_->get()); loop++) {
    engine_->turn(loop << ptl::kIndexBits);
  }
  return true;
}

void Script::take_accept() {
  if (!engine_->has(kAcceptTag)) return;
  stream_ = engine_->next_accept()->stream;
  accepted_ = true;
}

void Script::take_connect() {
  if (connect_tag_ == 0 || !engine_->has(connect_tag_)) return;
  other_ = engine_->await(connect_tag_)->stream;
  connect_tag_ = 0;
}

void Script::advance() {
  switch (stage_) {
    case Stage::kHead:
      client_.write(up_.size() % 2 == 0 ? "CONN" : "C");
      stage_ = Stage::kAccept;
      break;
    case Stage::kAccept:
      if (tag_ == 0) client_.write("ECT a.test:443 HTTP/1.1\r\n\r\n");
      tag_ = 1;
      take_accept();
      if (!accepted_) break;
      tag_ = engine_->submit(peek_op(stream_));
      client_.be_client(lab().client_ctx.get(), "origin.test");
      stage_ = Stage::kPeek;
      break;
    case Stage::kPeek:
      client_.shake_once();
      if (!engine_->has(tag_)) break;
      connect_tag_ = engine_->submit(
          connect_op(stream_, {loopback(refusing_port()), loopback(listening_.port())}));
      stage_ = Stage::kConnect;
      break;
    case Stage::kConnect:
      take_connect();
      if (other_ == 0) break;
      origin_ = listening_.accept();
      origin_.be_server(lab().origin_ctx.get());
      tag_ = engine_->submit(connect_tls_op(other_, lab().client.get(), "origin.test"));
      stage_ = Stage::kConnectTls;
      break;
    case Stage::kConnectTls:
      origin_.shake_once();
      if (!engine_->has(tag_)) break;
      tag_ = engine_->submit(accept_tls_op(stream_, lab().server.get(), lab().credential.get()));
      stage_ = Stage::kAcceptTls;
      break;
    case Stage::kAcceptTls:
      client_.shake_once();
      if (!engine_->has(tag_)) break;
      tag_ = engine_->submit(relay_op(stream_, other_));
      stage_ = Stage::kRelay;
      break;
    case Stage::kRelay:
      stage_ = Stage::kBytes;
      break;
    case Stage::kBytes:
      exchange_some();
      break;
    case Stage::kGoodbye: {
      if (!engine_->has(tag_)) break;
      relayed_ = engine_->await(tag_);
      stage_ = Stage::kOver;
      break;
    }
    case Stage::kOver:
      break;
  }
}

// A piece each way; whoever has sent everything says goodbye.
void Script::exchange_some() {
  struct Side {
    Peer *from, *to;
    const std::string *bytes;
    size_t *sent;
    std::string *got;
  };
  for (const Side &side : {Side{&client_, &origin_, &up_, &up_sent_, &up_got_},
                           Side{&origin_, &client_, &down_, &down_sent_, &down_got_}}) {
    bool broken;
    size_t left = side.bytes->size() - *side.sent;
    if (left != 0) {
      const char *next = side.bytes->data() + *side.sent;
      *side.sent += side.from->write_some(next, left < 8000 ? left : 8000, &broken);
      if (*side.sent == side.bytes->size()) {
        side.from->say_goodbye();
        side.from->shutdown_write();
      }
    }
    while (side.to->read_some(side.got, SIZE_MAX) == Outcome::kBytes) {
    }
  }
  if (up_got_.size() < up_.size() || down_got_.size() < down_.size()) return;
  CHECK(up_got_ == up_ && down_got_ == down_);
  stage_ = Stage::kGoodbye;
}

void Script::leave() {
  client_.close();
  origin_.close();
  listening_.close();
}

void Script::meet(Fate fate) {
  std::vector<ptl_op> closes;
  for (ptl_stream stream : {stream_, other_}) {
    if (stream != 0) closes.push_back(close_op(stream, fate == Fate::kReset ? PTL_FLAG_RESET : 0));
  }
  switch (fate) {
    case Fate::kCloseTwice: {
      std::vector<ptl_op> twice = closes;
      twice.insert(twice.end(), closes.begin(), closes.end());
      for (uint64_t tag : std::set<uint64_t>(engine_->outstanding())) engine_->cancel(stream_, tag);
      engine_->submit_all(twice);
      break;
    }
    case Fate::kCancel:
      for (uint64_t tag : std::set<uint64_t>(engine_->outstanding())) engine_->cancel(stream_, tag);
      break;
    case Fate::kClose:
    case Fate::kReset:
      engine_->submit_all(closes);
      break;
    case Fate::kPeersReset:
      client_.reset();
      if (origin_.fd() >= 0) origin_.reset();
      break;
    case Fate::kPeersClose:
      leave();
      break;
    case Fate::kStop:
      engine_->stop();
      return;
    case Fate::kFree:
      engine_->free_undrained();
      return;
  }
  clean_up();
}

// Every operation has its completion, every stream its close, and then nothing is left.
void Script::clean_up() {
  const bool accepted_before = accepted_;
  // A connect ends by itself: one of its addresses refuses, the other accepts or refuses as well.
  leave();
  engine_->await_all();
  if (!accepted_before) {
    stream_ = engine_->next_accept()->stream;
    accepted_ = true;
  }
  take_connect();
  std::vector<ptl_op> closes;
  for (ptl_stream stream : {stream_, other_}) {
    if (stream != 0) closes.push_back(close_op(stream));
  }
  for (uint64_t tag : engine_->submit_all(closes)) {
    Done done = engine_->await(tag);
    CHECK(done->status == PTL_OK || done->status == PTL_E_STALE);
  }
  engine_->await_no_streams();
}

}  // namespace test
