// A hostile server before our TLS client, which wrote its hello from a template.
//
// An input is: options, a template with its length in two bytes (none: the hello is by knobs), then steps of the
// server, each an operation, a length in two bytes and bytes. So both the offer and the answers are mutated. The
// server encrypts with the right keys, so that mutations reach what is behind the encryption: EncryptedExtensions,
// Certificate (with a delegated credential in it), CompressedCertificate, tickets, key updates, alerts.
//
// Held: every hello, the second after a HelloRetryRequest and that of a resumption too, is a ClientHello; what the
// client writes are whole records; a failure has a status and a sentence.
#include <openssl/sha.h>
#include <openssl/ssl.h>

#include <string>

#include "certificate.h"
#include "client.h"
#include "fuzz.h"
#include "schedule.h"

namespace {

enum Operation : uint8_t {
  kClear,        // handshake messages in a record of their own, in the clear
  kServerHello,  // the same; the session id becomes the client's, and keys are derived
  kRetry,        // the same, for a HelloRetryRequest
  kSealed,       // handshake messages under the handshake keys
  kVerify,       // CertificateVerify with this algorithm, rightly signed
  kFinished,     // the right one
  kBehind,       // a record under the application keys: its inner type, then its content
  kRaw,          // bytes on the wire
  kOdd,          // as kBehind, under the handshake keys
  kExchange,     // TLS 1.2: ServerKeyExchange with these parameters, rightly signed
  kOperations
};

constexpr uint8_t kHandshake = 22;
constexpr uint8_t kKeyUpdate = 24;
constexpr size_t kMessageHeader = 4;
constexpr size_t kSessionIdAt = kMessageHeader + 2 + 32;
constexpr size_t kMaxSteps = 24;
constexpr int kVerifies = 1;
constexpr int kBytewise = 2;
constexpr int kShortPieces = 4;
constexpr int kNoAlpn = 8;

struct Offered {
  std::string random = "", session_id = "", x25519 = "";
};

Offered offered_in(const std::string &message) {
  static const bssl::UniquePtr<SSL_CTX> ctx(SSL_CTX_new(TLS_method()));
  static const bssl::UniquePtr<SSL> ssl(SSL_new(ctx.get()));
  SSL_CLIENT_HELLO hello;
  const auto *bytes = reinterpret_cast<const uint8_t *>(message.data());
  FUZZ_CHECK(SSL_parse_client_hello(ssl.get(), &hello, bytes + kMessageHeader, message.size() - kMessageHeader));
  Offered offered;
  offered.random.assign(reinterpret_cast<const char *>(hello.random), hello.random_len);
  offered.session_id.assign(reinterpret_cast<const char *>(hello.session_id), hello.session_id_len);
  const uint8_t *shares;
  size_t size;
  if (!SSL_early_callback_ctx_extension_get(&hello, TLSEXT_TYPE_key_share, &shares, &size)) return offered;
  fuzz::Input list(shares, size);
  for (list.u16(); !list.empty();) {
    uint16_t group = list.u16();
    std::string key = list.bytes(list.u16());
    if (group == SSL_GROUP_X25519) offered.x25519 = key;
  }
  return offered;
}

class Server {
 public:
  Server(fuzz::Client *client, size_t piece) : client_(client), piece_(piece) {
    std::string hello = fuzz::check_hello(client->say_hello());
    offered_ = offered_in(hello);
    schedule_.hear(hello);
  }

  // play does one step. It returns false when the client would hear no more.
  bool play(uint8_t operation, std::string bytes) {
    switch (operation) {
      case kClear:
        return say_clear(bytes);
      case kServerHello:
      case kRetry:
        return answer(std::move(bytes), operation == kRetry);
      case kSealed:
        return say_sealed(bytes);
      case kVerify: {
        std::string signature = fuzz::sign(schedule_.verify_input());
        std::string body = (bytes.size() < 2 ? std::string("\4\3") : bytes.substr(0, 2)) + vec16(signature);
        return say_sealed(message(15, body));
      }
      case kFinished: {
        if (!schedule_.handshake_keys.ready()) return true;
        bool heard = say_sealed(schedule_.finished());
        schedule_.application();
        return heard;
      }
      case kBehind:
        return say_odd(&schedule_.application_keys, bytes);
      case kOdd:
        return say_odd(&schedule_.handshake_keys, bytes);
      case kExchange: {
        std::string signature = fuzz::sign(offered_.random + server_random_ + bytes);
        return say_clear(message(12, bytes + "\4\3" + vec16(signature)));
      }
      default:
        return say(bytes);
    }
  }

 private:
  static std::string vec16(const std::string &bytes) {
    return std::string({static_cast<char>(bytes.size() >> 8), static_cast<char>(bytes.size())}) + bytes;
  }
  static std::string message(char type, const std::string &body) {
    return std::string({type, 0}) + vec16(body);
  }

  bool say(const std::string &bytes) { return client_->feed(bytes, piece_); }

  bool say_clear(const std::string &bytes) {
    schedule_.hear(bytes);
    return say(std::string({kHandshake, 3, 3}) + vec16(bytes));
  }

  bool say_sealed(const std::string &bytes) {
    if (!schedule_.handshake_keys.ready()) return say_clear(bytes);
    schedule_.hear(bytes);
    return say(schedule_.handshake_keys.seal(kHandshake, bytes));
  }

  bool say_odd(fuzz::Sealer *keys, const std::string &bytes) {
    if (!keys->ready() || bytes.empty()) return true;
    std::string record = keys->seal(static_cast<uint8_t>(bytes[0]), bytes.substr(1));
    if (bytes.size() > 1 && bytes[0] == kHandshake && bytes[1] == kKeyUpdate) keys->update();
    return say(record);
  }

  bool answer(std::string hello, bool retry) {
    const size_t size = offered_.session_id.size();
    if (hello.size() > kSessionIdAt + size && static_cast<uint8_t>(hello[kSessionIdAt]) == size) {
      hello.replace(kSessionIdAt + 1, size, offered_.session_id);
    }
    if (hello.size() >= kSessionIdAt) server_random_ = hello.substr(kMessageHeader + 2, 32);
    if (retry) schedule_.retried();
    schedule_.hear(hello);
    if (!retry) schedule_.share(offered_.x25519);
    if (!say(std::string({kHandshake, 3, 3}) + vec16(hello))) return false;
    std::string written = client_->take();
    fuzz::check_records(written);
    // A second hello comes behind a ChangeCipherSpec (RFC 8446 appendix D.4), or alone.
    const std::string change("\x14\3\3\0\1\1", 6);
    if (written.compare(0, change.size(), change) == 0) written.erase(0, change.size());
    if (retry && !written.empty() && written[0] == kHandshake) {
      std::string second = fuzz::check_hello(written);
      offered_ = offered_in(second);
      schedule_.hear(second);
    }
    return true;
  }

  fuzz::Client *const client_;
  const size_t piece_;
  fuzz::Schedule schedule_;
  Offered offered_;
  std::string server_random_ = std::string(32, '\0');
};

// A HelloRetryRequest that only wants its cookie back. Its random is what makes it one (RFC 8446 §4.1.3).
std::string retry_for_cookie() {
  std::string random(32, '\0');
  SHA256(reinterpret_cast<const uint8_t *>("HelloRetryRequest"), 17, reinterpret_cast<uint8_t *>(&random[0]));
  const std::string extensions("\0\x2b\0\2\3\4\0\x2c\0\4\0\2ab", 14);
  std::string body = "\3\3" + random + '\x20' + std::string(32, '\0') + '\x13' + '\1' + '\0' + '\0' +
                     static_cast<char>(extensions.size()) + extensions;
  return std::string({2, 0, 0, static_cast<char>(body.size())}) + body;
}

ptl_trust *trusted() {
  static const test::Trust trust = test::new_trust({fuzz::root_certificate()});
  return trust.get();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz::Input input(data, size);
  const uint8_t options = input.u8();
  std::string error, hello_template = input.bytes(input.u16());
  test::ClientContext context =
      fuzz::context_of(hello_template, &error, (options & kVerifies) != 0 ? trusted() : nullptr);
  if (!context) return 0;
  const std::string alpn = (options & kNoAlpn) != 0 ? "" : "\x02h2\x08http/1.1";
  fuzz::Client client(context.get(), "origin.test", alpn);
  Server server(&client, (options & kBytewise) != 0 ? 1 : (options & kShortPieces) != 0 ? 50 : 1 << 17);
  for (size_t steps = 0; steps < kMaxSteps && !input.empty(); steps++) {
    uint8_t operation = input.u8() % kOperations;
    uint16_t length = input.u16();
    if (!server.play(operation, input.bytes(length))) break;
  }
  if (client.done() && !client.over()) {
    const uint8_t request[] = {'G', 'E', 'T'};
    client.get()->write(request, sizeof(request));
  }
  client.get()->close_notify();
  fuzz::check_records(client.take());
  // Sessions that the server gave are offered in the next hello, and in the one behind a HelloRetryRequest.
  fuzz::Client again(context.get(), "origin.test", alpn);
  Server(&again, 1 << 17).play(kRetry, retry_for_cookie());
  return 0;
}
