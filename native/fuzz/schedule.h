// The keys of a TLS 1.3 server (RFC 8446 §7), with TLS_AES_128_GCM_SHA256 and X25519 and nothing else: enough to
// encrypt what no honest server would send. All keys of its own are constants, for an input must mean the same
// each time.
#ifndef POLYTLS_FUZZ_SCHEDULE_H
#define POLYTLS_FUZZ_SCHEDULE_H

#include <openssl/base.h>
#include <openssl/evp.h>
#include <stdint.h>

#include <string>

namespace fuzz {

// kPrivateByte, repeated, is the server's X25519 key, kSigningByte that of its P-256 certificate (seeds.py).
constexpr uint8_t kPrivateByte = 0x42;
constexpr uint8_t kSigningByte = 0x11;

// One direction's encryption.
class Sealer {
 public:
  void set(const std::string &secret);
  bool ready() const { return !key_.empty(); }
  // seal returns one record that holds |content|, of |type| on the inside.
  std::string seal(uint8_t type, const std::string &content);
  // update takes the next keys, as one does behind a KeyUpdate (RFC 8446 §7.2).
  void update();

 private:
  std::string secret_, key_, iv_;
  uint64_t number_ = 0;
};

class Schedule {
 public:
  // hear adds a handshake message to the transcript; retried replaces what it holds by its hash (RFC 8446 §4.4.1).
  void hear(const std::string &message) { transcript_ += message; }
  void retried();
  // share derives the handshake keys for the client's public X25519 key. The transcript ends with the ServerHello.
  bool share(const std::string &client_public);
  // finished returns the server's Finished for the transcript as it is; application derives the keys behind it.
  std::string finished() const;
  void application();
  std::string verify_input() const;
  Sealer handshake_keys, application_keys;

 private:
  std::string hash() const;
  std::string transcript_;
  std::string handshake_secret_, server_secret_;
};

// sign returns a signature over |input| by ECDSA with P-256 and SHA-256.
std::string sign(const std::string &input);

}  // namespace fuzz

#endif
