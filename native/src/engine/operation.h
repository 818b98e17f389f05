// One operation under way, from submission to its one completion.
#ifndef POLYTLS_SRC_ENGINE_OPERATION_H
#define POLYTLS_SRC_ENGINE_OPERATION_H

#include <errno.h>
#include <stdint.h>

#include <memory>
#include <string>
#include <vector>

#include "base/ref.h"
#include "base/timer_wheel.h"
#include "polytls/native.h"
#include "tls/contexts.h"
#include "tls/credential.h"

namespace ptl {

class Loop;
struct Stream;
struct Relay;

// A connect that tries its addresses one after the other, each a little later than the one before, until one
// answers (RFC 8305 §5).
struct ConnectAttempts {
  size_t next = 0;                // the address to try next
  std::vector<Stream *> pending;  // attempts under way
  std::vector<int> errors;        // of those that failed, by address; 0: not (yet)
  Timer stagger;
};

// What an operation was given beyond numbers. A relay, which may last for hours, has none.
struct Given {
  std::vector<uint8_t> data;
  std::vector<uint8_t> ech_configs;
  std::vector<ptl_address> addresses;
  std::string name;
  Ref<ptl_client_context> client_context;
  Ref<ptl_server_context> server_context;
  Ref<ptl_credential> credential;
};

constexpr char kNoMemory[] = "out of memory";

// status_of_errno returns what a socket that failed with |error| ends an operation in.
inline int status_of_errno(int error) {
  if (error == ECONNRESET || error == EPIPE) return PTL_E_RESET;
  return error == ENOMEM ? PTL_E_NOMEM : PTL_E_IO;
}

struct Op {
  uint32_t kind = 0;
  uint32_t flags = 0;
  uint64_t tag = 0;
  ptl_stream stream = 0;
  ptl_stream other = 0;
  uint32_t deadline_ms = 0;
  uint32_t limit = 0;
  uint32_t stagger_ms = 0;
  uint32_t idle_ms = 0;
  uint32_t half_idle_ms = 0;
  uint16_t port = 0;
  uint8_t alert = 0;
  uint8_t expect = 0;
  std::unique_ptr<Given> given;  // null where a kind needs nothing of it
  std::unique_ptr<Op> linked;  // what starts when this one succeeded

  // From here on: only on the loop thread, while under way.
  Loop *loop = nullptr;
  uint64_t key = 0;  // under which the loop keeps it: the tag, or a number of the loop's own
  uint64_t started_ns = 0;
  size_t scanned = 0;  // READ_HEAD: bytes known to hold no end. WRITE: bytes handed over
  Timer deadline;
  std::unique_ptr<Op> next;  // in one of the loop's queues
  int untold = PTL_OK;       // what it ended in, until there is memory to tell it
  std::unique_ptr<ConnectAttempts> attempts;
  std::unique_ptr<Relay> relay;
};

}  // namespace ptl

#endif
