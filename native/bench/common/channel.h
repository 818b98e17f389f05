// One non-blocking connection, plain or TLS, that costs as few system calls as it can.
//
// What arrives is received in large pieces into a buffer that all channels of a thread share; TLS records are
// taken out of it, or plain bytes. What is written gathers in another shared buffer until flush sends it at
// once. A channel owns memory only for bytes that wait: received but not asked for, or not taken by the
// socket. Whichever channel needs a shared buffer next makes the one before it keep its own.
//
// Events are edge-triggered: after one, call ready, then read until kWait.
#ifndef POLYTLS_BENCH_COMMON_CHANNEL_H
#define POLYTLS_BENCH_COMMON_CHANNEL_H

#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

#include <string>
#include <vector>

namespace bench {

enum class Io {
  kDone,
  kWait,    // for an event
  kEnd,     // FIN; of TLS: close_notify
  kCut,     // of TLS: FIN without close_notify
  kReset,   // by the peer
  kFailed,  // TLS: last_tls_error says why
  kPaused,  // a handshake waits for its certificate callback
};

class Channel {
 public:
  Channel() = default;
  explicit Channel(int fd) : fd_(fd) {}
  ~Channel() { close(); }
  Channel(const Channel &) = delete;
  Channel &operator=(const Channel &) = delete;

  void open(int fd) { fd_ = fd; }
  int fd() const { return fd_; }
  SSL *ssl() const { return ssl_; }
  bool is_open() const { return fd_ >= 0; }

  // make_tls prepares TLS from here on; the caller sets the SSL up and then calls handshake.
  SSL *make_tls(SSL_CTX *context, bool server);
  Io handshake();

  // ready tells of an event. With |ending| the peer's end may be behind the bytes that are there.
  void ready(bool ending) { drained_ = false, ending_ = ending_ || ending; }

  // read stores up to |room| bytes; their number, above 0, comes with kDone.
  Io read(uint8_t *into, size_t room, size_t *out_size);
  // write takes all of it. It is sent with the next flush.
  Io write(const uint8_t *bytes, size_t size);
  Io write(const std::string &text);
  // pass_on sends what was received, as it is, to |to|. Both are plain. It returns as read does.
  Io pass_on(Channel *to);
  // flush sends; kWait: some waits for the socket.
  Io flush();
  size_t waiting() const;

  void say_goodbye();     // TLS: close_notify, and flush
  void shutdown_write();  // say_goodbye, then FIN
  void reset();           // RST
  void close();

  // begin_turn allows one receive until the next begin_turn; turn_is_over returns whether another was wanted. So a
  // turn ends where what was received has been used up, and nothing is left lying that others would displace.
  void begin_turn() { turn_ = Turn::kFresh; }
  bool turn_is_over() const { return turn_ == Turn::kOver; }

  // read at most so many bytes from the socket at once; 0: as many as fit.
  void set_receive_limit(size_t bytes) { receive_limit_ = bytes; }

 private:
  friend struct ChannelBio;
  Io receive();
  void keep_received();
  void keep_gathered();
  Io of_tls(int result);

  enum class Turn : uint8_t { kUnbounded, kFresh, kUsed, kOver };

  int fd_ = -1;
  Turn turn_ = Turn::kUnbounded;
  bool drained_ = false, ending_ = false;
  Io broken_ = Io::kDone;  // how the socket ended, once it has
  uint32_t receive_limit_ = 0;
  uint32_t received_from_ = 0, waiting_from_ = 0;
  SSL *ssl_ = nullptr;
  std::vector<uint8_t> received_, waiting_;
};

// last_tls_error names the newest error of this thread's TLS, and forgets it.
std::string last_tls_error();

}  // namespace bench

#endif
