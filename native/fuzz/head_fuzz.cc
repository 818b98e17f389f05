// A client's first bytes, over a real socket, as the engine reads a CONNECT head out of them.
//
// The input's first byte chooses the limit and in how many pieces the bytes arrive. Held: the verdict is that of a
// plain reading of the whole, however the bytes came; the head is handed out to the byte; and what came behind it is
// still there to be read.
#include <string>

#include "check.h"
#include "fuzz.h"
#include "host.h"
#include "operations.h"
#include "peer.h"

using test::Done;

namespace {

constexpr size_t kMaxBytes = 6000;

struct Verdict {
  int status;
  std::string head;
};

// The rule, read off the prose of native.h: up to and with the first empty line; a byte that no head can have ends it.
Verdict reading_of(const std::string &bytes, size_t limit) {
  std::string line;
  for (size_t i = 0; i < bytes.size() && i < limit; i++) {
    char c = bytes[i];
    const bool control = static_cast<uint8_t>(c) < 0x20 || c == 0x7f;
    if (c == '\n') {
      if (i != 0 && (line.empty() || line == "\r") && line.size() < i) return {PTL_OK, bytes.substr(0, i + 1)};
      line.clear();
      continue;
    }
    if (control && c != '\r' && c != '\t') return {PTL_E_MALFORMED, ""};
    line += c;
  }
  return {bytes.size() >= limit ? PTL_E_TOO_LARGE : PTL_E_CLOSED, ""};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz::Input input(data, size);
  const uint8_t options = input.u8();
  const uint32_t limits[] = {16, 64, 1024, 4096};
  const uint32_t limit = limits[options & 3];
  std::string bytes = input.bytes(kMaxBytes);
  Verdict wanted = reading_of(bytes, limit);

  test::EngineDriver &engine = fuzz::engine();
  test::Peer client = test::Peer::connect_to(fuzz::listening_port(limit));
  size_t pieces = 1 + (options >> 2) % 8;
  size_t piece = bytes.size() / pieces + 1;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    bool broken;
    client.write_some(bytes.data() + at, std::min(piece, bytes.size() - at), &broken);
    if (pieces > 1) engine.turn();
  }
  client.shutdown_write();
  Done done = engine.next_accept();
  FUZZ_CHECK(done->status == wanted.status);
  if (done->status == PTL_OK) {
    FUZZ_CHECK(done.data == wanted.head);
    std::string behind = bytes.substr(wanted.head.size());
    while (!behind.empty()) {
      Done more = engine.run(test::read_op(done->stream, 1000));
      FUZZ_CHECK(more->status == PTL_OK && behind.compare(0, more.data.size(), more.data) == 0);
      behind.erase(0, more.data.size());
    }
  } else {
    FUZZ_CHECK(done.data.size() <= limit && bytes.compare(0, done.data.size(), done.data) == 0);
  }
  uint64_t close = engine.submit(test::close_op(done->stream, PTL_FLAG_RESET));
  client.reset();
  engine.await(close);
  fuzz::settle();
  return 0;
}
