// The engine of a fuzzer that needs sockets: one for the whole process, made when it is first asked for, which must be
// as it was before each input. Its last word is checked when the process ends.
#ifndef POLYTLS_FUZZ_HOST_H
#define POLYTLS_FUZZ_HOST_H

#include <stdint.h>

#include "base/fd.h"
#include "engine_driver.h"

namespace fuzz {

test::EngineDriver &engine();

// listening_port returns the engine's, whose heads may have so many bytes; a listener for each limit.
uint16_t listening_port(uint32_t head_max);

// settle ends the process unless the engine comes to hold nothing: no stream, operation, relay, byte or
// completion, and never did the impossible. All its streams must be on their way to be closed.
void settle();

// Where an engine connects to. Connections are taken out of the backlog without waiting.
class Backlog {
 public:
  Backlog();
  uint16_t port() const { return port_; }
  ptl::Fd accept();  // nothing, where nobody waits
  void drop_all();   // with RST

 private:
  ptl::Fd fd_;
  uint16_t port_ = 0;
};

}  // namespace fuzz

#endif
