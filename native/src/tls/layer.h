// One TLS state over a byte stream: client or server, over a socket or over another layer.
//
// A layer has no socket. Ciphertext is supplied to it in chunks which belong to the loop's scratch memory; what it
// writes goes to a sink. So one recv serves many records, many records leave in one send, and an idle layer
// holds no buffer but what BoringSSL keeps.
#ifndef POLYTLS_SRC_TLS_LAYER_H
#define POLYTLS_SRC_TLS_LAYER_H

#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

#include <memory>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/ref.h"
#include "tls/contexts.h"
#include "tls/credential.h"
#include "tls/record_watch.h"

namespace ptl {

// Takes what a layer writes. |emit| returns false when memory is short.
class Sink {
 public:
  virtual bool emit(const uint8_t *bytes, size_t size) = 0;

 protected:
  ~Sink() = default;
};

// Why a handshake or a record failed.
struct TlsFailure {
  int status = PTL_E_TLS;
  int alert = 0;
  int verify_error = 0;
  std::string detail;
  std::vector<uint8_t> ech_retry_configs;
};

class TlsLayer {
 public:
  enum class Step { kDone, kWant, kFailed };

  // client and server return a layer, or null when memory is short, which the library's queue of errors then says
  // (out_of_memory), or an argument fits none. |sink| must
  // outlive it. |below| is the layer this one stands on, if any; a new layer owns it, and where
  // there is none it stays where it was, so that a refused argument never takes the encryption off a stream.
  static std::unique_ptr<TlsLayer> client(Ref<ptl_client_context> context, const std::string &name,
                                          uint16_t port, const std::vector<uint8_t> &alpn,
                                          const std::vector<uint8_t> &ech_configs, Sink *sink,
                                          std::unique_ptr<TlsLayer> *below);
  static std::unique_ptr<TlsLayer> server(Ref<ptl_server_context> context,
                                          Ref<ptl_credential> credential, std::string protocol,
                                          Sink *sink, std::unique_ptr<TlsLayer> *below);
  static bool out_of_memory();
  ~TlsLayer();
  TlsLayer(const TlsLayer &) = delete;
  TlsLayer &operator=(const TlsLayer &) = delete;

  // supply makes |size| bytes of ciphertext readable. They are not copied: before they go away, |keep_rest|
  // must be called, which copies what was not consumed. A layer over another hands both on to the lowest.
  void supply(const uint8_t *bytes, size_t size);
  bool keep_rest();
  // drop_rest forgets what was supplied and not consumed, and returns whether that was anything.
  bool drop_rest();
  // received is where bytes belong that came before the layer was there.
  Buffer *received() { return &received_; }
  bool has_received() const;

  // Nothing here throws once a layer is made: who calls is often BoringSSL, which knows no exceptions. Where memory
  // is short for a sentence there is none, and where it is for more, the status is PTL_E_NOMEM.
  Step handshake(TlsFailure *out_failure);

  // read returns plaintext bytes (> 0), 0 when it wants more ciphertext, -1 on close_notify, -2 on failure.
  int read(uint8_t *out, size_t size, TlsFailure *out_failure);
  // write returns false where it cannot be: |short_of_memory| says whether that was the reason.
  bool write(const uint8_t *bytes, size_t size);
  bool short_of_memory() const { return short_of_memory_; }
  // close_notify says goodbye once, if the handshake is done.
  void close_notify();
  void fatal_alert(uint8_t alert);

  const SSL *ssl() const { return ssl_.get(); }
  bool is_client() const { return client_context_.get() != nullptr; }
  bool handshaken() const { return handshaken_; }
  bool flight_sent() const { return flight_sent_; }
  bool offered_session() const { return offered_session_; }
  // keep_first_flight has a layer remember what it writes before it has read anything: of a client, the records of
  // its ClientHello. take_first_flight gives that away, or an empty string.
  bool keep_first_flight();
  std::string take_first_flight();
  int sent_alert() const { return sent_alert_; }
  // settle gives up what is there to ask about a handshake that is done, all but its protocol: half of what the
  // library keeps of an idle connection, the certificates above all. Sessions are still made of tickets that come.
  void settle();
  // rest gives up what the next record can be made ready for again, which costs it some microseconds.
  void rest();

 private:
  friend struct LayerCallbacks;

  explicit TlsLayer(Sink *sink) : sink_(sink) {}
  bool attach(bssl::UniquePtr<SSL> ssl, std::unique_ptr<TlsLayer> *below);
  int read_below(uint8_t *out, size_t size);
  bool write_below(const uint8_t *bytes, size_t size);
  bool wake();
  Step step(TlsFailure *out_failure);
  void explain(TlsFailure *out);
  void keep_flight(const uint8_t *bytes, size_t size);
  void note_flight(const uint8_t *bytes, size_t size);
  void note_read(const uint8_t *bytes, size_t size);
  TlsLayer *lowest();

  bssl::UniquePtr<SSL> ssl_;
  std::unique_ptr<TlsLayer> below_;
  Sink *const sink_;
  Buffer received_;
  const uint8_t *chunk_ = nullptr;
  size_t chunk_len_ = 0;
  Ref<ptl_client_context> client_context_;
  Ref<ptl_server_context> server_context_;
  // What only the handshake needs.
  struct Extra {
    std::string name;      // client: whom to verify
    std::string protocol;  // server: the one to agree on
    RecordWatch watch;     // server: what the client sends
    Verdict verdict;
    bool wants_ech = false;        // client: no hello may leave that is not encrypted
    bool encrypted_hello = false;  // client: one was made
    bool would_be_clear = false;   // client: one was not, and was kept back
  };
  std::unique_ptr<Extra> extra_;
  std::unique_ptr<std::string> session_key_;   // client: where the context resumes
  std::unique_ptr<std::string> first_flight_;  // where it is kept
  bool handshaken_ = false;
  bool flight_sent_ = false;
  bool saw_byte_ = false;
  bool saw_record_ = false;  // what came first looks like a TLS record
  bool said_goodbye_ = false;
  bool offered_session_ = false;
  bool below_closed_ = false;
  bool trouble_below_ = false;
  bool short_of_memory_ = false;
  bool resting_ = false;
  uint8_t sent_alert_ = 0;
};

}  // namespace ptl

#endif
