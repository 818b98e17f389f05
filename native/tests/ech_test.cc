// Encrypted ClientHello: under templates of every kind and under knobs, against BoringSSL's own server.
#include <openssl/ssl.h>
#include <openssl/hpke.h>

#include <string>
#include <vector>

#include "check.h"
#include "tunnel.h"

using namespace test;

namespace {

std::string u16(unsigned value) { return {static_cast<char>(value >> 8), static_cast<char>(value)}; }
std::string vec8(const std::string &bytes) { return static_cast<char>(bytes.size()) + bytes; }
std::string vec16(const std::string &bytes) { return u16(static_cast<unsigned>(bytes.size())) + bytes; }

constexpr char kRaw = 0, kBuiltin = 1, kGrease = 2;
constexpr char kFixed = 1, kFullOnly = 2;
constexpr unsigned kGreaseVersionSlot = 4, kGreaseExtension1Slot = 2, kGreaseExtension2Slot = 3;

std::string entry(unsigned type, char kind, const std::string &body = "", char flags = 0, unsigned slot = 0,
                  const std::string &patches = "") {
  return u16(type) + std::string{kind, static_cast<char>(slot), flags} + vec16(body) + vec8(patches);
}

// How a client's template treats ECH.
enum class Way { kKnobs, kBoringssl, kNss, kWithout, kWithoutName };

// A template with entries of every kind: GREASE, permuted, left out when resuming, of TLS 1.2 alone.
std::string template_of(Way way) {
  std::string entries;
  if (way == Way::kBoringssl) entries += entry(0x0a0a, kGrease, "", kFixed, kGreaseExtension1Slot);
  if (way != Way::kWithoutName) entries += entry(0, kBuiltin);
  entries += entry(23, kRaw) + entry(0xff01, kBuiltin) + entry(10, kRaw, vec16(u16(0x001d) + u16(0x0017) + u16(0x0018))) +
             entry(11, kRaw, vec8(std::string(1, '\0'))) + entry(35, kBuiltin, "", kFullOnly) +
             entry(16, kBuiltin) + entry(5, kRaw, std::string("\1\0\0\0\0", 5)) + entry(51, kBuiltin) +
             entry(43, kRaw, vec8(u16(0x0a0a) + u16(0x0304) + u16(0x0303)), 0, 0,
                   u16(1) + std::string(1, kGreaseVersionSlot)) +
             entry(13, kRaw, vec16(u16(0x0403) + u16(0x0804))) + entry(45, kRaw, vec8("\1")) +
             entry(44, kBuiltin) + entry(0x1234, kRaw, "unknown");
  const bool place = way == Way::kBoringssl || way == Way::kNss;
  if (place) entries += entry(0xfe0d, kBuiltin);
  if (way == Way::kBoringssl) entries += entry(0x0a0a, kGrease, std::string(1, '\0'), kFixed, kGreaseExtension2Slot);
  const char flags = way == Way::kBoringssl ? 1 : 0;  // permuted
  return std::string("\x01") + u16(0x0301) + std::string(1, flags) +
         vec16(u16(0x1301) + u16(0x1302) + u16(0xc02b)) + vec8(std::string(1, '\0')) + vec16(u16(0x001d)) +
         vec16(place ? u16(1) : "") + vec16(place ? u16(239) : "") + std::string(1, way == Way::kNss ? 32 : 0) +
         vec16(entries);
}

ClientContext context_of(Way way) {
  ptl_hello hello = default_hello();
  hello.resumption = 1;
  std::string bytes = way == Way::kKnobs ? "" : template_of(way);
  hello.template_bytes = reinterpret_cast<const uint8_t *>(bytes.data());
  hello.template_len = bytes.size();
  return new_client_context(hello, lab().trust.get());
}

// A key, and the list that clients are given.
struct EchKey {
  explicit EchKey(uint8_t id) {
    REQUIRE(EVP_HPKE_KEY_generate(key.get(), EVP_hpke_x25519_hkdf_sha256()));
    uint8_t *bytes;
    size_t size;
    REQUIRE(SSL_marshal_ech_config(&bytes, &size, id, key.get(), "public.test", 32));
    config.assign(reinterpret_cast<char *>(bytes), size);
    OPENSSL_free(bytes);
    list = vec16(config);
  }
  bssl::ScopedEVP_HPKE_KEY key;
  std::string config, list;
};

// A server that has |key|, if any; its certificate is for |name|.
bssl::UniquePtr<SSL_CTX> server_with(const EchKey *key, const std::string &name = "origin.test") {
  LeafSpec spec;
  spec.dns = name;
  bssl::UniquePtr<SSL_CTX> ctx = peer_server(lab().root.issue(spec));
  if (key == nullptr) return ctx;
  bssl::UniquePtr<SSL_ECH_KEYS> keys(SSL_ECH_KEYS_new());
  const auto *bytes = reinterpret_cast<const uint8_t *>(key->config.data());
  REQUIRE(SSL_ECH_KEYS_add(keys.get(), 1, bytes, key->config.size(), key->key.get()) &&
          SSL_CTX_set1_ech_keys(ctx.get(), keys.get()));
  return ctx;
}

struct Seen {
  Done done;
  std::string name;    // that the server was asked for
  bool accepted;       // as the server sees it
  size_t sent = 0;     // bytes the server was sent, where there was no handshake
};

Seen visit(ptl_client_context *context, SSL_CTX *server, const std::string &configs) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Origin listening;
  Done connected = engine.run(connect_op(client.stream, {loopback(listening.port())}));
  REQUIRE_STATUS(connected, PTL_OK);
  Peer origin = listening.accept();
  const std::string alpn = "\x08http/1.1";
  ptl_op op = connect_tls_op(connected->stream, context, "origin.test", alpn);
  op.ech_configs = reinterpret_cast<const uint8_t *>(configs.data());
  op.ech_configs_len = configs.size();
  uint64_t tag = engine.submit(op);
  if (server == nullptr) {
    Done done = engine.await(tag);
    engine.run(close_op(connected->stream));
    Outcome end;
    std::string sent = origin.read_to_end(&end);
    return {std::move(done), "", false, sent.size()};
  }
  origin.be_server(server);
  bool good = origin.handshake();
  Done done = engine.await(tag);
  const char *name = SSL_get_servername(origin.ssl(), TLSEXT_NAMETYPE_host_name);
  Seen seen{std::move(done), name == nullptr ? "" : name, SSL_ech_accepted(origin.ssl()) == 1};
  if (good && seen.done->status == PTL_OK) {
    origin.write("x");
    CHECK_EQ(engine.run(read_op(connected->stream, 1)).data, std::string("x"));
  }
  engine.run(close_op(connected->stream));
  return seen;
}

constexpr Way kAll[] = {Way::kKnobs, Way::kBoringssl, Way::kNss, Way::kWithout, Way::kWithoutName};

void check_accepted(const Seen &seen, Way way) {
  CHECK_STATUS(seen.done, PTL_OK);
  CHECK_EQ(seen.done->ech_accepted, 1);
  CHECK(seen.accepted);
  CHECK_EQ(seen.name, std::string(way == Way::kWithoutName ? "" : "origin.test"));
  CHECK_EQ(seen.done.data, std::string(""));  // the server chose no protocol
}

}  // namespace

TEST(accepted_then_resumed) {
  EchKey key(1);
  bssl::UniquePtr<SSL_CTX> server = server_with(&key);
  for (Way way : kAll) {
    ClientContext context = context_of(way);
    Seen first = visit(context.get(), server.get(), key.list);
    check_accepted(first, way);
    Seen second = visit(context.get(), server.get(), key.list);
    check_accepted(second, way);
    CHECK_EQ(first.done->resumed, 0);
    CHECK_EQ(second.done->resumed, 1);
  }
}

TEST(accepted_after_a_retry_then_resumed) {
  EchKey key(1);
  bssl::UniquePtr<SSL_CTX> server = server_with(&key);
  const uint16_t groups[] = {SSL_GROUP_SECP384R1};
  REQUIRE(SSL_CTX_set1_group_ids(server.get(), groups, 1));
  for (Way way : kAll) {
    ClientContext context = context_of(way);
    for (int resumed : {0, 1}) {
      Seen seen = visit(context.get(), server.get(), key.list);
      check_accepted(seen, way);
      CHECK_EQ(seen.done->resumed, resumed);
      if (way != Way::kKnobs) CHECK_EQ(seen.done->retried, 1);
    }
  }
}

TEST(rejected_by_whom_it_may_be) {
  EchKey asked(1), own(2);
  const uint16_t groups[] = {SSL_GROUP_SECP384R1};
  for (bool retried : {false, true}) {
    bssl::UniquePtr<SSL_CTX> server = server_with(&own, "public.test");
    if (retried) REQUIRE(SSL_CTX_set1_group_ids(server.get(), groups, 1));
    for (Way way : kAll) {
      Seen seen = visit(context_of(way).get(), server.get(), asked.list);
      CHECK_STATUS(seen.done, PTL_E_ECH_REJECTED);
      CHECK_EQ(seen.done.data, own.list);
      CHECK(!seen.accepted);
      CHECK_EQ(seen.name, std::string("public.test"));
    }
  }
}

TEST(rejected_with_a_session_at_hand) {
  EchKey asked(1), own(2);
  const uint16_t groups[] = {SSL_GROUP_SECP384R1};
  for (bool retried : {false, true}) {
    bssl::UniquePtr<SSL_CTX> server = server_with(&own, "public.test");
    if (retried) REQUIRE(SSL_CTX_set1_group_ids(server.get(), groups, 1));
    for (Way way : kAll) {
      ClientContext context = context_of(way);
      check_accepted(visit(context.get(), server_with(&asked).get(), asked.list), way);
      Seen seen = visit(context.get(), server.get(), asked.list);
      CHECK_STATUS(seen.done, PTL_E_ECH_REJECTED);
      CHECK_EQ(seen.done.data, own.list);
    }
  }
}

TEST(rejected_by_a_server_without_it) {
  EchKey asked(1);
  for (uint16_t version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    bssl::UniquePtr<SSL_CTX> server = server_with(nullptr, "public.test");
    REQUIRE(SSL_CTX_set_max_proto_version(server.get(), version));
    for (Way way : kAll) {
      Seen seen = visit(context_of(way).get(), server.get(), asked.list);
      CHECK_STATUS(seen.done, PTL_E_ECH_REJECTED);
      CHECK_EQ(seen.done.data, std::string(""));
    }
  }
}

TEST(rejected_by_whom_it_may_not_be) {
  EchKey asked(1), own(2);
  bssl::UniquePtr<SSL_CTX> server = server_with(&own, "origin.test");
  for (Way way : kAll) {
    Seen seen = visit(context_of(way).get(), server.get(), asked.list);
    CHECK_STATUS(seen.done, PTL_E_VERIFY);
    CHECK(seen.done.data.find("public.test") != std::string::npos);
  }
}

TEST(nothing_is_sent_in_the_clear) {
  ptl_hello hello = default_hello();
  hello.max_version = TLS1_2_VERSION;
  ClientContext old = new_client_context(hello, lab().trust.get());
  EchKey key(1);
  Seen seen = visit(old.get(), nullptr, key.list);
  CHECK_STATUS(seen.done, PTL_E_ECH_UNUSABLE);
  CHECK_EQ(seen.sent, 0u);
  // A config of a version that nobody knows.
  std::string unknown = vec16(u16(0xfe99) + vec16("what is it"));
  for (Way way : kAll) {
    seen = visit(context_of(way).get(), nullptr, unknown);
    CHECK_STATUS(seen.done, PTL_E_ECH_UNUSABLE);
    CHECK_EQ(seen.sent, 0u);
    seen = visit(context_of(way).get(), nullptr, "no list");
    CHECK_STATUS(seen.done, PTL_E_INVALID);
    CHECK_EQ(seen.sent, 0u);
  }
}

TEST(without_configs_nothing_changes) {
  EchKey key(1);
  bssl::UniquePtr<SSL_CTX> server = server_with(&key);
  for (Way way : kAll) {
    Seen seen = visit(context_of(way).get(), server.get(), "");
    CHECK_STATUS(seen.done, PTL_OK);
    CHECK_EQ(seen.done->ech_accepted, 0);
    CHECK(!seen.accepted);
  }
}
