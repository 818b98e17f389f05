#include "client.h"

#include <string.h>

#include <algorithm>
#include <vector>

#include "fuzz.h"
#include "hello/parse.h"

namespace fuzz {

namespace {

constexpr size_t kRecordHeader = 5;
constexpr size_t kMessageHeader = 4;
constexpr size_t kMaxMessage = 16384;  // as in hello/parse.cc
constexpr size_t kMaxCiphertext = 16384 + 256;  // RFC 8446 §5.2

int copy_instead(int, const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len) {
  if (in_len != out_len) return 0;
  memcpy(out, in, in_len);
  return 1;
}

}  // namespace

test::ClientContext context_of(const std::string &template_bytes, std::string *out_error, ptl_trust *trust) {
  static const bool set = [] { return ptl_set_decompressor(copy_instead), true; }();
  (void)set;
  static const uint16_t algorithms[] = {1, 2, 3};
  static const uint8_t alps[] = {2, 'h', '2'};
  ptl_hello hello = test::default_hello();
  hello.resumption = 1;
  hello.alps_new_codepoint = 1;
  hello.alps = alps;
  hello.alps_len = sizeof(alps);
  hello.cert_compression = algorithms;
  hello.num_cert_compression = 3;
  hello.template_bytes = reinterpret_cast<const uint8_t *>(template_bytes.data());
  hello.template_len = template_bytes.size();
  char error[200] = "";
  test::ClientContext context(ptl_client_context_new(&hello, trust, trust != nullptr ? test::kVerifyAll : 0,
                                                     error, sizeof(error)));
  *out_error = error;
  return context;
}

bool taken_by_boringssl(const std::string &message) {
  static const bssl::UniquePtr<SSL_CTX> ctx(SSL_CTX_new(TLS_method()));
  static const bssl::UniquePtr<SSL> ssl(SSL_new(ctx.get()));
  SSL_CLIENT_HELLO hello;
  return SSL_parse_client_hello(ssl.get(), &hello,
                                reinterpret_cast<const uint8_t *>(message.data()) + kMessageHeader,
                                message.size() - kMessageHeader) == 1;
}

std::string check_hello(const std::string &records) {
  check_records(records);
  std::string message;
  for (size_t at = 0; at < records.size();) {
    FUZZ_CHECK(records[at] == 22);
    size_t length = static_cast<size_t>(static_cast<uint8_t>(records[at + 3])) << 8 |
                    static_cast<uint8_t>(records[at + 4]);
    message += records.substr(at + kRecordHeader, length);
    at += kRecordHeader + length;
  }
  FUZZ_CHECK(message.size() > kMessageHeader && taken_by_boringssl(message));
  std::vector<uint8_t> scratch;
  ptl::HelloInfo info;
  ptl::HelloStatus status = ptl::parse_hello(reinterpret_cast<const uint8_t *>(records.data()), records.size(),
                                             &scratch, &info);
  if (message.size() > kMaxMessage) {
    FUZZ_CHECK(status == ptl::HelloStatus::kTooLarge);
  } else {
    FUZZ_CHECK(status == ptl::HelloStatus::kComplete && info.records_len == records.size());
  }
  return message;
}

void check_records(const std::string &bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    FUZZ_CHECK(bytes.size() - at >= kRecordHeader);
    const auto *header = reinterpret_cast<const uint8_t *>(bytes.data()) + at;
    size_t length = static_cast<size_t>(header[3]) << 8 | header[4];
    FUZZ_CHECK(header[0] >= 20 && header[0] <= 23 && header[1] == 3 && length != 0 && length <= kMaxCiphertext);
    at += kRecordHeader + length;
  }
  FUZZ_CHECK(at == bytes.size());
}

Layer::Step Layer::step() {
  if (!done()) {
    Step step = layer_->handshake(&failure_);
    if (step == Step::kFailed) {
      over_ = true;
      FUZZ_CHECK(failure_.status != PTL_OK && !failure_.detail.empty());
    }
    if (step != Step::kDone) return step;
  }
  uint8_t plain[SSL3_RT_MAX_PLAIN_LENGTH];
  int n = 0;
  while ((n = layer_->read(plain, sizeof(plain), &failure_)) > 0) {
  }
  if (n < 0) over_ = true;
  FUZZ_CHECK(n != -2 || (failure_.status != PTL_OK && !failure_.detail.empty()));
  return n == -2 ? Step::kFailed : Step::kDone;
}

bool Layer::feed(const std::string &bytes, size_t piece) {
  for (size_t at = 0; at < bytes.size() && !over_; at += piece) {
    std::string chunk = bytes.substr(at, piece);
    layer_->supply(reinterpret_cast<const uint8_t *>(chunk.data()), chunk.size());
    step();
    FUZZ_CHECK(layer_->keep_rest());
  }
  return !over_;
}

std::string Layer::take() {
  std::string taken;
  taken.swap(wire_.written);
  return taken;
}

Client::Client(ptl_client_context *context, const char *name, const std::string &alpn) {
  std::unique_ptr<ptl::TlsLayer> below;
  std::vector<uint8_t> wire(alpn.begin(), alpn.end());
  layer_ = ptl::TlsLayer::client(ptl::Ref<ptl_client_context>::share(context), name, 443, wire, {}, &wire_, &below);
  FUZZ_CHECK(layer_ != nullptr);
}

std::string Client::say_hello() {
  if (step() != Step::kWant) broken(__FILE__, __LINE__, "there is no hello: " + failure().detail);
  return take();
}

Server::Server(const std::string &protocol) {
  std::unique_ptr<ptl::TlsLayer> below;
  layer_ = ptl::TlsLayer::server(ptl::Ref<ptl_server_context>::share(test::lab().server.get()),
                                 ptl::Ref<ptl_credential>::share(test::lab().credential.get()), protocol, &wire_,
                                 &below);
  FUZZ_CHECK(layer_ != nullptr);
}

}  // namespace fuzz
