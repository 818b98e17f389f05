// A TLS client of the engine's own kind without a socket: what it writes is kept, what it reads is given to it.
#ifndef POLYTLS_FUZZ_CLIENT_H
#define POLYTLS_FUZZ_CLIENT_H

#include <memory>
#include <string>

#include "lab.h"
#include "tls/layer.h"

namespace fuzz {

struct Wire final : public ptl::Sink {
  bool emit(const uint8_t *bytes, size_t size) override {
    written.append(reinterpret_cast<const char *>(bytes), size);
    return true;
  }
  std::string written;
};

// context_of returns a context that writes its hellos from |template_bytes| (empty: by knobs), or null and why in
// |*out_error|. It takes any certificate, unless there is |trust|. It undoes certificate compression with a stand-in
// that copies.
test::ClientContext context_of(const std::string &template_bytes, std::string *out_error,
                               ptl_trust *trust = nullptr);

// taken_by_boringssl returns what BoringSSL's parser, which looks at the structure alone, says of a ClientHello with
// its message header.
bool taken_by_boringssl(const std::string &message);

// check_hello ends the process unless |records| are one whole ClientHello and nothing else, for our own parser and
// for BoringSSL's. It returns the handshake message.
std::string check_hello(const std::string &records);

// check_records ends the process unless |bytes| are whole TLS records.
void check_records(const std::string &bytes);

// A Layer is one end of a connection, driven as the engine's loop drives it.
class Layer {
 public:
  using Step = ptl::TlsLayer::Step;

  // step goes on with the handshake; once that is done, it reads what there is.
  Step step();
  // feed hands over |bytes| in pieces of |piece| at most and steps after each. It returns false when the layer has
  // failed or was told goodbye: nobody would feed it then.
  bool feed(const std::string &bytes, size_t piece);
  // take returns what was written since it was last called.
  std::string take();
  bool done() const { return layer_->handshaken(); }
  bool over() const { return over_; }
  const ptl::TlsFailure &failure() const { return failure_; }
  ptl::TlsLayer *get() { return layer_.get(); }

 protected:
  Wire wire_;
  std::unique_ptr<ptl::TlsLayer> layer_;

 private:
  bool over_ = false;
  ptl::TlsFailure failure_;
};

class Client : public Layer {
 public:
  Client(ptl_client_context *context, const char *name, const std::string &alpn);

  // say_hello writes the first flight and returns it: a context that was made can always say its hello.
  std::string say_hello();
};

class Server : public Layer {
 public:
  explicit Server(const std::string &protocol);
};

}  // namespace fuzz

#endif
