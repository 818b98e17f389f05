// The other end of an engine's connection: a client or an origin, plain or TLS, on one socket.
//
// It is driven by the test's own thread. Nothing here blocks but poll, which ends with an event or, when none
// comes, with a failure; so both ends of a tunnel can be moved by turns (see exchange.h) without a thread for
// each.
#ifndef POLYTLS_TESTS_PEER_H
#define POLYTLS_TESTS_PEER_H

#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

#include <string>

#include "base/fd.h"

namespace test {

// How a read ended.
enum class Outcome {
  kBytes,
  kWait,       // nothing there yet
  kEnd,        // FIN; of TLS: close_notify
  kTruncated,  // of TLS: FIN without close_notify
  kReset,
  kFailed,     // TLS: see |error|
};

class Peer {
 public:
  Peer() = default;
  explicit Peer(ptl::Fd fd);  // which becomes non-blocking

  // connect_to returns a peer connected to 127.0.0.1. With |receive_bytes| its socket takes about so much.
  static Peer connect_to(uint16_t port, int receive_bytes = 0);

  int fd() const { return fd_.get(); }
  SSL *ssl() const { return ssl_.get(); }
  // The TLS library's reason when a handshake or read failed (ERR_GET_REASON), 0 otherwise.
  int error() const { return error_; }
  uint16_t port() const;  // its own

  // TLS from here on. handshake returns whether it succeeded.
  void be_client(SSL_CTX *ctx, const char *sni = nullptr);
  void be_server(SSL_CTX *ctx);
  bool handshake();
  // shake_once goes on with it as far as it goes without waiting.
  enum class Shake { kDone, kWantRead, kWantWrite, kFailed };
  Shake shake_once();

  // Non-blocking: what can be done now.
  Outcome read_some(std::string *out, size_t limit);
  size_t write_some(const char *bytes, size_t size, bool *out_broken);

  // Waiting: until it is done.
  void write(const std::string &bytes);
  std::string read(size_t size);  // exactly
  std::string read_to_end(Outcome *out_end);
  Outcome await_end();  // how it ends; bytes before the end fail the test
  void wait(short events);

  void say_goodbye();     // TLS: close_notify. The socket stays as it is
  // goodbye_once does so as far as it goes without waiting, and returns whether that is over.
  bool goodbye_once();
  void shutdown_write();  // FIN
  void reset();           // RST
  void close();           // of the descriptor alone

 private:
  ptl::Fd fd_;
  bssl::UniquePtr<SSL> ssl_;
  int error_ = 0;
};

// A listening socket of an origin.
class Origin {
 public:
  explicit Origin(int backlog = 64, int receive_bytes = 0, bool ipv6 = false);
  uint16_t port() const { return port_; }
  int fd() const { return fd_.get(); }
  Peer accept();
  bool has_one();  // is there somebody to accept now?
  void close() { fd_.reset(); }

 private:
  ptl::Fd fd_;
  uint16_t port_ = 0;
};

// An address of 127.0.0.1 that answers nothing: its backlog is full, so that the kernel drops every SYN.
class Blackhole {
 public:
  Blackhole();
  uint16_t port() const { return port_; }

 private:
  static constexpr int kFillers = 4;
  ptl::Fd fd_;
  ptl::Fd fillers_[kFillers];
  uint16_t port_ = 0;
};

// A port of 127.0.0.1 where nobody listens.
uint16_t refusing_port();

}  // namespace test

#endif
