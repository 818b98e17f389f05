// Templates of ClientHellos: whatever the native parser takes must be written, and be a ClientHello.
#include <string.h>

#include <memory>
#include <string>
#include <vector>

#include "client.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string error;
  test::ClientContext context = fuzz::context_of(std::string(reinterpret_cast<const char *>(data), size), &error);
  if (!context) {
    FUZZ_CHECK(!error.empty());
    return 0;
  }
  for (const char *name : {"origin.test", "127.0.0.1"}) {
    for (const char *alpn : {"\x02h2\x08http/1.1", ""}) {
      fuzz::Client client(context.get(), name, alpn);
      fuzz::check_hello(client.say_hello());
    }
  }
  return 0;
}
