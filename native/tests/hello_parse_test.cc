// The ClientHello parser: real hellos in every cut, and bytes that are none.
#include "hello/parse.h"

#include <openssl/ssl.h>
#include <string.h>

#include <random>
#include <string>
#include <vector>

#include "check.h"

using ptl::HelloInfo;
using ptl::HelloStatus;

namespace {

constexpr size_t kRecordHeader = 5;
constexpr size_t kMaxRecords = 64;      // that a hello may be cut into
constexpr size_t kMaxMessage = 16384;   // bytes of its message, header and all

struct Parsed {
  HelloStatus status;
  HelloInfo info;
  std::string sni, alpn;
};

// Parses a copy of exactly |bytes|, so that a sanitizer sees a read past their end.
Parsed parse(const std::string &bytes) {
  std::vector<uint8_t> copy(bytes.begin(), bytes.end());
  copy.shrink_to_fit();
  std::vector<uint8_t> scratch;
  Parsed parsed;
  parsed.status = ptl::parse_hello(copy.data(), copy.size(), &scratch, &parsed.info);
  const HelloInfo &info = parsed.info;
  parsed.sni.assign(reinterpret_cast<const char *>(info.sni), info.sni_len);
  parsed.alpn.assign(reinterpret_cast<const char *>(info.alpn), info.alpn_len);
  return parsed;
}

std::string u8(size_t value) { return std::string(1, static_cast<char>(value)); }
std::string u16(size_t value) { return u8(value >> 8) + u8(value & 0xff); }
std::string with_u8(const std::string &body) { return u8(body.size()) + body; }
std::string with_u16(const std::string &body) { return u16(body.size()) + body; }
std::string record(const std::string &body) { return std::string("\x16\x03\x01", 3) + with_u16(body); }
std::string message(const std::string &body) {
  return u8(1) + u8(body.size() >> 16) + u16(body.size() & 0xffff) + body;
}
std::string extension(uint16_t type, const std::string &body) { return u16(type) + with_u16(body); }
std::string list_of(const std::vector<uint16_t> &values) {
  std::string list;
  for (uint16_t value : values) list += u16(value);
  return with_u16(list);
}

// A hello by hand, for what the library would not say. Returns its message.
struct Hand {
  uint16_t version = 0x0303;
  std::vector<uint16_t> suites = {0x1301, 0xc02b, 0xc02f};
  std::string extensions = "";
  bool has_extensions = true;

  std::string message_bytes() const {
    std::string body = u16(version) + std::string(32, 'r') + with_u8("") + list_of(suites) + with_u8(u8(0));
    if (has_extensions) body += with_u16(extensions);
    return message(body);
  }
  Parsed parsed() const { return parse(record(message_bytes())); }
};

// What BoringSSL would send.
std::string library_hello(const char *sni, const std::string &alpn) {
  bssl::UniquePtr<SSL_CTX> ctx(SSL_CTX_new(TLS_method()));
  SSL_CTX_set_grease_enabled(ctx.get(), 1);
  bssl::UniquePtr<SSL> ssl(SSL_new(ctx.get()));
  SSL_set_tlsext_host_name(ssl.get(), sni);
  SSL_set_alpn_protos(ssl.get(), reinterpret_cast<const uint8_t *>(alpn.data()), alpn.size());
  BIO *out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), out);
  SSL_set_connect_state(ssl.get());
  SSL_do_handshake(ssl.get());
  const uint8_t *bytes;
  size_t size;
  REQUIRE(BIO_mem_contents(out, &bytes, &size));
  return std::string(reinterpret_cast<const char *>(bytes), size);
}

const std::string &real_hello() {
  static const std::string hello = library_hello("origin.test", "\x02h2\x08http/1.1");
  return hello;
}

void check_real(const Parsed &parsed) {
  REQUIRE(parsed.status == HelloStatus::kComplete);
  CHECK(parsed.info.has_sni && parsed.info.has_alpn);
  CHECK_EQ(parsed.sni, std::string("origin.test"));
  CHECK_EQ(parsed.alpn, std::string("\x02h2\x08http/1.1"));
  CHECK_EQ(parsed.info.max_version, 0x0304);
  CHECK(parsed.info.ecdsa_ok);
}

// |hello|'s message cut into records of |piece| bytes.
std::string in_records(const std::string &hello, size_t piece) {
  std::string body = hello.substr(kRecordHeader), out;
  for (size_t at = 0; at < body.size(); at += piece) out += record(body.substr(at, piece));
  return out;
}

}  // namespace

TEST(whole) {
  // parse's copies of the pointers are made while the input lives; |info| alone is looked at afterwards.
  Parsed parsed = parse(real_hello());
  check_real(parsed);
  CHECK_EQ(parsed.info.records_len, real_hello().size());
}

TEST(byte_by_byte) {
  const std::string &hello = real_hello();
  for (size_t size = 0; size < hello.size(); size++) {
    CHECK(parse(hello.substr(0, size)).status == HelloStatus::kMore);
  }
}

TEST(what_follows_is_left_alone) {
  std::string more = real_hello() + "\x14\x03\x03 and early data";
  Parsed parsed = parse(more);
  check_real(parsed);
  CHECK_EQ(parsed.info.records_len, real_hello().size());
}

TEST(over_many_records) {
  size_t size_of_message = real_hello().size() - kRecordHeader;
  size_t smallest = (size_of_message + kMaxRecords - 1) / kMaxRecords;
  std::string too_many = in_records(real_hello(), size_of_message / (kMaxRecords + 1));
  CHECK(parse(too_many).status == HelloStatus::kMalformed);
  for (size_t piece : {smallest, smallest + 1, size_t{100}, size_t{511}, size_of_message - 1}) {
    std::string cut = in_records(real_hello(), piece);
    Parsed parsed = parse(cut);
    check_real(parsed);
    CHECK_EQ(parsed.info.records_len, cut.size());
    for (size_t size = 0; size < cut.size(); size += 1 + size / 64) {
      CHECK(parse(cut.substr(0, size)).status == HelloStatus::kMore);
    }
  }
}

TEST(records_that_cannot_carry_a_hello) {
  std::string body = real_hello().substr(kRecordHeader);
  std::string first = record(body.substr(0, 100));
  CHECK(parse(first + record("")).status == HelloStatus::kMalformed);
  CHECK(parse(first + std::string("\x15\x03\x01\x00\x02\x01\x00", 7)).status == HelloStatus::kMalformed);
  CHECK(parse(first + "GET /").status == HelloStatus::kMalformed);
  CHECK(parse(record("")).status == HelloStatus::kMalformed);
  CHECK(parse(std::string("\x16\x03\x01\x40\x00", 5)).status == HelloStatus::kMore);       // 2^14
  CHECK(parse(std::string("\x16\x03\x01\x40\x01", 5)).status == HelloStatus::kMalformed);  // and one more
  CHECK(parse(record(u8(2))).status == HelloStatus::kMalformed);                           // a ServerHello
}

TEST(a_tiny_first_record) {
  std::string body = real_hello().substr(kRecordHeader);
  for (size_t first : {1, 2, 3, 4, 5}) {
    check_real(parse(record(body.substr(0, first)) + record(body.substr(first))));
  }
}

TEST(longer_than_anybody_would_answer) {
  auto announced = [](size_t size) {
    size_t body = size - 4;
    return parse(record(u8(1) + u8(body >> 16) + u16(body & 0xffff))).status;
  };
  CHECK(announced(kMaxMessage) == HelloStatus::kMore);
  CHECK(announced(kMaxMessage + 1) == HelloStatus::kTooLarge);
  CHECK(announced(0xffffff) == HelloStatus::kTooLarge);
}

TEST(nothing_may_follow_in_its_record) {
  std::string body = real_hello().substr(kRecordHeader);
  CHECK(parse(record(body + "x")).status == HelloStatus::kMalformed);
  CHECK(parse(record(body.substr(0, 50)) + record(body.substr(50) + "x")).status == HelloStatus::kMalformed);
}

TEST(what_is_not_tls_is_told_by_its_first_bytes) {
  for (const char *first : {"G", "GET / HTTP/1.1\r\n", "SSH-2.0-x", "\x80\x2e\x01", "\x15\x03\x01", "\x17"}) {
    CHECK(parse(first).status == HelloStatus::kNotTls);
  }
  CHECK(parse("\x16\x02").status == HelloStatus::kNotTls);
  CHECK(parse("").status == HelloStatus::kMore);
  CHECK(parse("\x16").status == HelloStatus::kMore);
}

TEST(every_shortened_message_is_malformed) {
  // A message whose lengths no longer fit: the header is made true again, the inside is cut.
  std::string body = real_hello().substr(kRecordHeader + 4);
  for (size_t size = 0; size < body.size(); size++) {
    HelloStatus status = parse(record(message(body.substr(0, size)))).status;
    // Extensions may be left out as a whole, and nowhere else is an end allowed.
    bool without_extensions = status == HelloStatus::kComplete;
    CHECK(status == HelloStatus::kMalformed || without_extensions);
  }
}

TEST(without_extensions) {
  Hand hand;
  hand.has_extensions = false;
  Parsed parsed = hand.parsed();
  REQUIRE(parsed.status == HelloStatus::kComplete);
  CHECK(!parsed.info.has_sni && !parsed.info.has_alpn && !parsed.info.ecdsa_ok);
  CHECK_EQ(parsed.info.max_version, 0x0303);
}

TEST(versions) {
  auto highest = [](const std::vector<uint16_t> &offered) {
    Hand hand;
    std::string list;
    for (uint16_t version : offered) list += u16(version);
    hand.extensions = extension(43, with_u8(list));
    Parsed parsed = hand.parsed();
    CHECK(parsed.status == HelloStatus::kComplete);
    return parsed.info.max_version;
  };
  CHECK_EQ(highest({0x0304, 0x0303}), 0x0304);
  CHECK_EQ(highest({0x0303, 0x0304}), 0x0304);
  CHECK_EQ(highest({0xfafa, 0x0304, 0x0303}), 0x0304);  // GREASE is no version
  CHECK_EQ(highest({0x0302}), 0x0302);
  CHECK_EQ(highest({0x7f1c, 0x0303}), 0x0303);          // nor are drafts
  CHECK_EQ(highest({}), 0x0303);                        // then legacy_version speaks
}

TEST(ecdsa_truth_table) {
  for (int bits = 0; bits < 32; bits++) {
    bool tls13 = (bits & 1) != 0, sigalg = (bits & 2) != 0, suite = (bits & 4) != 0;
    bool groups = (bits & 8) != 0, p256 = (bits & 16) != 0;
    using Values = std::vector<uint16_t>;
    Hand hand;
    hand.suites = suite ? Values{0x1301, 0xc02f, 0xc02b} : Values{0x1301, 0xc02f};
    if (tls13) hand.extensions += extension(43, with_u8(u16(0x0304)));
    hand.extensions += extension(13, list_of(sigalg ? Values{0x0804, 0x0403} : Values{0x0804, 0x0503}));
    if (groups) hand.extensions += extension(10, list_of(p256 ? Values{29, 23} : Values{29}));
    Parsed parsed = hand.parsed();
    REQUIRE(parsed.status == HelloStatus::kComplete);
    // TLS 1.3: the signature algorithm alone. TLS 1.2: the suite, and the curve where curves are listed.
    bool expected = sigalg && (tls13 || (suite && (!groups || p256)));
    CHECK_EQ(parsed.info.ecdsa_ok, expected);
  }
}

TEST(server_names) {
  auto name = [](const std::string &body) {
    Hand hand;
    hand.extensions = extension(0, body);
    return hand.parsed();
  };
  std::string good = u8(0) + with_u16("a.test");
  CHECK_EQ(name(with_u16(good)).sni, std::string("a.test"));
  CHECK(name(with_u16(u8(9) + with_u16("other kind") + good)).info.has_sni);
  CHECK(name(with_u16(good + good)).status == HelloStatus::kMalformed);             // two of one kind
  CHECK(name(with_u16(u8(0) + with_u16(""))).status == HelloStatus::kMalformed);    // an empty name
  CHECK(name(with_u16(good) + "x").status == HelloStatus::kMalformed);              // bytes behind
  CHECK(name(with_u16(good.substr(0, 5))).status == HelloStatus::kMalformed);       // cut off
  CHECK(name("").status == HelloStatus::kMalformed);
  CHECK(name(u8(0)).status == HelloStatus::kMalformed);
  Hand twice;
  twice.extensions = extension(0, with_u16(good)) + extension(0, with_u16(good));
  CHECK(twice.parsed().status == HelloStatus::kMalformed);
}

TEST(protocols) {
  auto protocols = [](const std::string &body) {
    Hand hand;
    hand.extensions = extension(16, body);
    return hand.parsed();
  };
  CHECK_EQ(protocols(with_u16(with_u8("h2"))).alpn, std::string("\x02h2"));
  CHECK(protocols(with_u16("")).status == HelloStatus::kMalformed);
  CHECK(protocols(with_u16(with_u8(""))).status == HelloStatus::kMalformed);
  CHECK(protocols(with_u16(u8(3) + "h2")).status == HelloStatus::kMalformed);
  CHECK(protocols(with_u16(with_u8("h2")) + "x").status == HelloStatus::kMalformed);
  CHECK(protocols("").status == HelloStatus::kMalformed);
  Hand twice;
  twice.extensions = extension(16, with_u16(with_u8("h2"))) + extension(16, with_u16(with_u8("h2")));
  CHECK(twice.parsed().status == HelloStatus::kMalformed);
}

TEST(no_extension_comes_twice) {
  Hand hand;
  for (uint16_t type : {0x0000, 0x000a, 0x0015, 0x1234, 0xffff}) {
    std::string once = extension(type, type == 0 ? with_u16(u8(0) + with_u16("a")) : list_of({0x001d}));
    hand.extensions = once + extension(0x0017, "");
    CHECK_EQ(hand.parsed().status, HelloStatus::kComplete);
    hand.extensions += once;
    CHECK_EQ(hand.parsed().status, HelloStatus::kMalformed);
  }
}

TEST(mutations_never_crash) {
  std::mt19937 random(2024);
  std::string cut = in_records(real_hello(), 64);
  size_t counts[5] = {};
  for (int round = 0; round < 60000; round++) {
    std::string bytes = round % 2 == 0 ? real_hello() : cut;
    for (unsigned i = 0; i <= random() % 4; i++) {
      size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0: bytes[at] = static_cast<char>(random()); break;
        case 1: bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8)); break;
        case 2: bytes.erase(at, 1 + random() % 8); break;
        default: bytes.insert(at, 1 + random() % 8, static_cast<char>(random())); break;
      }
      if (bytes.empty()) bytes = "\x16";
    }
    Parsed parsed = parse(bytes);
    counts[static_cast<int>(parsed.status)]++;
    if (parsed.status == HelloStatus::kComplete) CHECK(parsed.info.records_len <= bytes.size());
  }
  for (size_t count : counts) CHECK(count != 0);  // the mutations reached every verdict
}

TEST(noise_never_crashes) {
  std::mt19937 random(99);
  for (int round = 0; round < 20000; round++) {
    std::string bytes(random() % 200, '\0');
    for (char &c : bytes) c = static_cast<char>(random());
    if (round % 2 == 0) bytes = record(message(bytes));
    CHECK(parse(bytes).status != HelloStatus::kComplete);
  }
}
