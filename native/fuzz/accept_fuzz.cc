// A hostile client before our TLS server: a hello, and whatever it sends after it.
//
// The input's first byte says in which pieces the bytes come and which protocol the proxy has agreed on upstream; the
// rest are the client's bytes. What the server answers must be whole records, and a client that does not know the keys
// must never get through.
#include "client.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz::Input input(data, size);
  const uint8_t options = input.u8();
  const size_t pieces[] = {1 << 17, 1, 100, 1500};
  fuzz::Server server(options & 4 ? "h2" : "");
  server.feed(input.rest(), pieces[options & 3]);
  FUZZ_CHECK(!server.done());
  if ((options & 8) != 0) server.get()->fatal_alert(112);
  if (!server.over()) server.get()->close_notify();
  fuzz::check_records(server.take());
  return 0;
}
