// bench-counts: the pure native paths, each a function whose instructions callgrind counts.
//
//   hello   a ClientHello is written from a template, to memory
//   parse   a ClientHello is parsed
//   relay   records are taken off one TLS side and put on the other, through memory
//
// `bench-counts PATH TIMES TEMPLATE` does PATH so often; what lies around it is not inside the measured function, so
// that `valgrind --tool=callgrind --toggle-collect=measured_PATH` counts nothing else. There are no sockets, clocks
// or threads in it: the number is the same from run to run, but for what a random hello varies.
#include <openssl/bytestring.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "common/certificates.h"
#include "common/net.h"
#include "common/pattern.h"
#include "hello/parse.h"
#include "polytls/native.h"
#include "tls/layer.h"

namespace {

constexpr size_t kRecordBytes = 16384;
constexpr size_t kRoundBytes = 256 * 1024;  // of plaintext; about what one receive brings

// Keeps what a layer writes.
struct Memory : ptl::Sink {
  bool emit(const uint8_t *bytes, size_t size) override {
    held.insert(held.end(), bytes, bytes + size);
    return true;
  }
  std::vector<uint8_t> held;
};

using Layer = std::unique_ptr<ptl::TlsLayer>;

ptl_client_context *make_client(const std::string &template_bytes) {
  ptl_hello hello{};
  hello.min_version = 0x0303;
  hello.max_version = 0x0304;
  hello.template_bytes = reinterpret_cast<const uint8_t *>(template_bytes.data());
  hello.template_len = template_bytes.size();
  if (template_bytes.empty()) hello.template_bytes = nullptr;
  char why[256] = "";
  ptl_client_context *made = ptl_client_context_new(&hello, nullptr, 0, why, sizeof why);
  if (made == nullptr) bench::die(why);
  return made;
}

ptl_credential *make_credential() {
  bench::Authority root = bench::make_authority("counts root");
  bssl::UniquePtr<EVP_PKEY> key = bench::make_key();
  auto leaf = bench::to_buffer(bench::make_leaf({"origin.test"}, key.get(), root).get(), nullptr);
  bssl::ScopedCBB cbb;
  uint8_t *der = nullptr;
  size_t der_len = 0;
  if (!CBB_init(cbb.get(), 256) || !EVP_marshal_private_key(cbb.get(), key.get()) ||
      !CBB_finish(cbb.get(), &der, &der_len)) {
    bench::die("cannot encode a key");
  }
  const uint8_t *chain = CRYPTO_BUFFER_data(leaf.get());
  size_t chain_len = CRYPTO_BUFFER_len(leaf.get());
  char why[256] = "";
  ptl_credential *made = ptl_credential_new(&chain, &chain_len, 1, der, der_len, why, sizeof why);
  OPENSSL_free(der);
  if (made == nullptr) bench::die(why);
  return made;
}

Layer make_layer(ptl_client_context *context, Memory *memory) {
  Layer none;
  const std::vector<uint8_t> alpn = {2, 'h', '2', 8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  Layer made = ptl::TlsLayer::client(ptl::Ref<ptl_client_context>::share(context), "origin.test", 443, alpn, {},
                                     memory, &none);
  if (!made) bench::die("no client layer");
  return made;
}

// Two TLS ends that have shaken hands.
struct Pair {
  Pair(ptl_client_context *client_context, ptl_server_context *server_context, ptl_credential *credential) {
    Layer none;
    client = make_layer(client_context, &from_client);
    server = ptl::TlsLayer::server(ptl::Ref<ptl_server_context>::share(server_context),
                                   ptl::Ref<ptl_credential>::share(credential), "http/1.1", &from_server, &none);
    if (!server) bench::die("no server layer");
    for (int turns = 0; !(client->handshaken() && server->handshaken()); turns++) {
      step(client.get(), &from_server);
      step(server.get(), &from_client);
      if (turns > 20) bench::die("the handshake does not end");
    }
    step(client.get(), &from_server);
  }

  static void step(ptl::TlsLayer *layer, Memory *from) {
    std::vector<uint8_t> bytes;
    bytes.swap(from->held);
    layer->supply(bytes.data(), bytes.size());
    ptl::TlsFailure failure;
    if (!layer->handshaken() && layer->handshake(&failure) == ptl::TlsLayer::Step::kFailed)
      bench::die("handshake: " + failure.detail);
    layer->keep_rest();
  }

  Memory from_client, from_server;
  Layer client, server;
};

}  // namespace

extern "C" {

__attribute__((noinline, visibility("default"))) void measured_hello(ptl::TlsLayer *layer) {
  ptl::TlsFailure failure;
  layer->handshake(&failure);
}

__attribute__((noinline, visibility("default"))) int measured_parse(const uint8_t *bytes, size_t size) {
  std::vector<uint8_t> scratch;
  ptl::HelloInfo info;
  return static_cast<int>(ptl::parse_hello(bytes, size, &scratch, &info));
}

// What the relay does with a chunk that it received: every record of it.
__attribute__((noinline, visibility("default"))) size_t measured_relay(ptl::TlsLayer *from, ptl::TlsLayer *to,
                                                                       const uint8_t *bytes, size_t size,
                                                                       uint8_t *plain) {
  ptl::TlsFailure failure;
  from->supply(bytes, size);
  size_t moved = 0;
  for (int got; (got = from->read(plain, kRecordBytes, &failure)) > 0; moved += static_cast<size_t>(got)) {
    to->write(plain, static_cast<size_t>(got));
  }
  from->keep_rest();
  return moved;
}
}

namespace {

void count_hello(int times, const std::string &bytes) {
  ptl_client_context *context = make_client(bytes);
  for (int i = 0; i < times; i++) {
    Memory memory;
    Layer layer = make_layer(context, &memory);
    measured_hello(layer.get());
    if (memory.held.size() < 100 || memory.held[0] != 0x16) bench::die("no ClientHello was written");
  }
  ptl_client_context_free(context);
}

void count_parse(int times, const std::string &bytes) {
  ptl_client_context *context = make_client(bytes);
  Memory memory;
  Layer layer = make_layer(context, &memory);
  measured_hello(layer.get());
  for (int i = 0; i < times; i++) {
    if (measured_parse(memory.held.data(), memory.held.size()) != static_cast<int>(ptl::HelloStatus::kComplete))
      bench::die("a hello was not parsed");
  }
  layer.reset();
  ptl_client_context_free(context);
}

void count_relay(int times, const std::string &bytes) {
  char why[256] = "";
  ptl_client_context *client = make_client(bytes);
  ptl_server_context *server = ptl_server_context_new(why, sizeof why);
  ptl_credential *credential = make_credential();
  {
    Pair outside(client, server, credential), inside(client, server, credential);
    std::vector<uint8_t> plain(kRecordBytes);
    for (int i = 0; i < times; i++) {
      for (size_t at = 0; at < kRoundBytes; at += kRecordBytes)
        outside.server->write(bench::pattern_at(1, at), kRecordBytes);
      inside.from_server.held.clear();
      inside.from_server.held.reserve(2 * kRoundBytes);
      const std::vector<uint8_t> &wire = outside.from_server.held;
      if (measured_relay(outside.client.get(), inside.server.get(), wire.data(), wire.size(), plain.data()) !=
          kRoundBytes)
        bench::die("bytes were lost");
      outside.from_server.held.clear();
    }
  }
  ptl_credential_free(credential);
  ptl_server_context_free(server);
  ptl_client_context_free(client);
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 4) bench::die("usage: bench-counts hello|parse|relay TIMES TEMPLATE");
  std::ifstream file(argv[3], std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.good() && bytes.empty()) bench::die(std::string("cannot read ") + argv[3]);
  int times = atoi(argv[2]);
  if (strcmp(argv[1], "hello") == 0) count_hello(times, bytes);
  else if (strcmp(argv[1], "parse") == 0) count_parse(times, bytes);
  else if (strcmp(argv[1], "relay") == 0) count_relay(times, bytes);
  else bench::die(std::string("there is no path ") + argv[1]);
  return 0;
}
