// Operations in any order, on streams that are open, closed, never were or are somebody else's.
//
// The input is a program: each byte an act, followed by its arguments. Held, besides what the driver holds (one
// completion for each operation, none that nobody waits for): at the end, when everything is cancelled and closed,
// nothing is left in the engine, and the impossible has not happened. Which of two things comes first on another
// thread is not in the input's hand; what is held must hold either way.
#include <string>
#include <vector>

#include "check.h"
#include "exchange.h"
#include "fuzz.h"
#include "host.h"
#include "lab.h"
#include "operations.h"
#include "peer.h"

using test::Done;

namespace {

constexpr size_t kMaxActs = 64;
constexpr size_t kMaxClients = 4;
constexpr size_t kMaxChain = 6;
constexpr uint32_t kMaxWrite = 1 << 18;

class Program {
 public:
  explicit Program(fuzz::Input input) : input_(input) {}

  void run() {
    open();
    for (size_t acts = 0; acts < kMaxActs && !input_.empty(); acts++) act();
    submit();
    end();
  }

 private:
  static fuzz::Backlog &backlog() {
    static fuzz::Backlog one;
    return one;
  }
  static test::EngineDriver &engine() { return fuzz::engine(); }

  ptl_stream stream() {
    uint8_t which = input_.u8();
    if (which == 0xfe) return PTL_STREAM_CONNECTED;
    if (which == 0xff) return input_.u16() | static_cast<uint64_t>(input_.u16()) << 32;  // never was one
    return streams_[which % streams_.size()];
  }
  test::Peer *peer() {
    uint8_t which = input_.u8();
    return &peers_[which % peers_.size()];
  }

  void open() {
    if (num_clients_++ >= kMaxClients) return;
    test::Peer client = test::Peer::connect_to(fuzz::listening_port(test::kHeadMax));
    client.write("A\r\n\r\n");
    Done accepted = engine().next_accept();
    FUZZ_CHECK(accepted->status == PTL_OK);
    streams_.push_back(accepted->stream);
    peers_.push_back(std::move(client));
  }

  void act() {
    const uint8_t code = input_.u8();
    switch (code % 20) {
      case 0:
        return open();
      case 1:
        return peer_act();
      case 2:
        return peer_bytes();
      case 3:
        return peer_hello();
      case 4:
        return engine().turn(stream());
      case 5:
        return cancel();
      case 6:
        take_connects();
        return;
      case 7:
        return submit();
      case 8:
        return close();
      default:
        return add(code % 20);
    }
  }

  void peer_act() {
    test::Peer *end = peer();
    if (end->fd() < 0) return;
    std::string got;
    bool leave = input_.u8() % 4 == 0;
    if (leave) {
      end->reset();
    } else if (!end->ssl()) {
      end->shutdown_write();
    } else {
      end->shake_once();
    }
    if (end->fd() >= 0) end->read_some(&got, 4096);
  }

  void peer_bytes() {
    test::Peer *end = peer();
    std::string bytes = input_.bytes(input_.u8());
    bool broken;
    if (end->fd() >= 0 && !end->ssl()) end->write_some(bytes.data(), bytes.size(), &broken);
  }

  // From here on the end speaks TLS, whatever the stream to it thinks.
  void peer_hello() {
    test::Peer *end = peer();
    if (end->fd() < 0) return;
    if (!end->ssl() && input_.u8() % 2 == 0) {
      end->be_client(test::lab().client_ctx.get(), "origin.test");
    } else if (!end->ssl()) {
      end->be_server(test::lab().origin_ctx.get());
    }
    end->shake_once();
  }

  void cancel() {
    uint8_t which = input_.u8();
    const auto &tags = engine().outstanding();
    if (tags.empty()) return engine().cancel(stream(), which);
    auto it = tags.begin();
    std::advance(it, which % tags.size());
    engine().cancel(stream(), *it);
  }

  // One more operation of the chain or batch that submit hands over.
  void add(uint8_t code) {
    if (ops_.size() >= kMaxChain) submit();
    ptl_op op;
    switch (code) {
      case 9:
        op = test::head_op(stream(), 1 + input_.u8());
        break;
      case 10:
        op = test::peek_op(stream(), 1 + input_.u16());
        break;
      case 11:
      case 12:
        op = test::read_op(stream(), 1 + input_.u16());
        break;
      case 13:
      case 14: {
        static const std::string bytes = test::noise(kMaxWrite, 1);
        op = test::write_op(stream(), bytes);
        op.data_len = code == 13 ? input_.u8() : kMaxWrite;
        break;
      }
      case 15: {
        static const std::vector<ptl_address> targets = {test::loopback(test::refusing_port()),
                                                         test::loopback(backlog().port())};
        op = test::connect_op(stream(), targets, 1);
        uint8_t which = input_.u8() % 3;  // refused, answered, one after the other
        op.addresses = targets.data() + (which == 1 ? 1 : 0);
        op.num_addresses = which == 2 ? 2 : 1;
        break;
      }
      case 16:
        op = test::connect_tls_op(stream(), test::lab().client.get(), "origin.test", "");
        break;
      case 17:
        op = test::accept_tls_op(stream(), test::lab().server.get(), test::lab().credential.get());
        break;
      case 18:
        op = test::relay_op(stream(), 0);
        op.other = stream();
        op.idle_ms = input_.u8() % 2;
        op.half_idle_ms = input_.u8() % 2;
        break;
      default:
        op = test::close_op(stream(), input_.u8() % 2 != 0 ? PTL_FLAG_RESET : 0, input_.u8() % 120);
        break;
    }
    const uint8_t more = input_.u8();
    if ((more & 1) != 0) op.flags |= PTL_FLAG_LINK;
    if ((more & 6) == 6) op.deadline_ms = 1;
    if ((more & 24) == 24) op.flags |= PTL_FLAG_RAW;
    if ((more & 96) == 96) op.tag = test::EngineDriver::kUntagged;
    if ((more & 128) != 0) expect(&op);
    ops_.push_back(op);
    if ((op.flags & PTL_FLAG_LINK) == 0) submit();
  }

  // What a chain is decided for beforehand: a hello, and what another stream will have agreed on.
  void expect(ptl_op *op) {
    if (op->kind == PTL_OP_PEEK_HELLO) {
      op->expect = PTL_EXPECT_HELLO | (input_.u8() % 2 != 0 ? PTL_EXPECT_ECDSA : 0);
      op->name = "origin.test";
    } else if (op->kind == PTL_OP_ACCEPT_TLS) {
      static const uint8_t pairs[2] = {0, 0};
      op->other = stream();
      op->data = pairs;
      op->data_len = op->other == 0 ? 0 : sizeof(pairs);
    }
  }

  void submit() {
    if (ops_.empty()) return;
    ops_.back().flags &= ~static_cast<uint32_t>(PTL_FLAG_LINK);
    const ptl_op *first = &ops_[0];
    for (size_t i = 0; i + 1 < ops_.size(); i++) {  // a chain stays on one loop
      const ptl_op &next = ops_[i + 1];
      if (next.stream != PTL_STREAM_CONNECTED && (first->stream & kLoopMask) != (next.stream & kLoopMask)) {
        ops_[i].flags &= ~static_cast<uint32_t>(PTL_FLAG_LINK);
      }
      if ((ops_[i].flags & PTL_FLAG_LINK) == 0) first = &next;
    }
    for (ptl_op &op : ops_) {  // an untagged connect would give a stream that nobody knows
      if (op.kind == PTL_OP_CONNECT) op.tag = 0;
    }
    std::vector<uint64_t> tags = engine().submit_all(ops_);
    for (size_t i = 0; i < ops_.size(); i++) {
      if (ops_[i].kind == PTL_OP_CONNECT) connects_.push_back(tags[i]);
    }
    ops_.clear();
  }

  void close() { engine().submit(test::close_op(stream())); }

  // The streams of connects that are done join the others, and so do their other ends.
  bool take_connects() {
    std::vector<uint64_t> left;
    for (uint64_t tag : connects_) {
      if (!engine().has(tag)) {
        left.push_back(tag);
        continue;
      }
      Done done = engine().await(tag);
      FUZZ_CHECK((done->status == PTL_OK) == (done->stream != 0));
      if (done->status != PTL_OK) continue;
      streams_.push_back(done->stream);
      ptl::Fd fd = backlog().accept();
      if (fd.ok()) peers_.push_back(test::Peer(std::move(fd)));
    }
    connects_ = left;
    return connects_.empty();
  }

  void end() {
    for (ptl_stream open : std::vector<ptl_stream>(streams_)) {
      for (uint64_t tag : std::set<uint64_t>(engine().outstanding())) engine().cancel(open, tag);
    }
    for (test::Peer &end : peers_) {
      if (end.fd() >= 0) end.reset();
    }
    engine().await_all();
    FUZZ_CHECK(take_connects());
    backlog().drop_all();
    for (test::Peer &end : peers_) {
      if (end.fd() >= 0) end.reset();
    }
    std::vector<ptl_op> closes;
    for (ptl_stream open : streams_) closes.push_back(test::close_op(open, PTL_FLAG_RESET));
    engine().submit_all(closes);
    engine().await_all();
    engine().forget();
    fuzz::settle();
  }

  static constexpr ptl_stream kLoopMask = 0xff000000;

  fuzz::Input input_;
  size_t num_clients_ = 0;
  std::vector<ptl_stream> streams_;
  std::vector<test::Peer> peers_;
  std::vector<ptl_op> ops_;
  std::vector<uint64_t> connects_;  // tags
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Program(fuzz::Input(data, size)).run();
  return 0;
}
