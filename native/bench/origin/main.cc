// bench-origin: the TLS server that everything is fetched from.
//
// It makes its own root CA (DIR/ca.pem; a leaf with its key beside it, for other servers) and answers
//   origin.test, *.origin.test   with one leaf under the root, P-256
//   *.own.test                   with an intermediate and a leaf of their own for each name
//   *.bad.test                   with a leaf under a root that nobody trusts
//   *.alert.test                 with an alert
// On two more ports it speaks no TLS: one answers whatever comes with bytes that are none, the other resets.
// On standard output it says `READY {"port": P, "tickets_port": Q, "plain_port": R, "rude_port": S}`; it ends with
// standard input.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/certificates.h"
#include "common/loop.h"
#include "common/net.h"
#include "common/options.h"
#include "common/pattern.h"
#include "origin/protocol.h"

namespace bench {
namespace {

const char kOwn[] = ".own.test", kBad[] = ".bad.test", kAlert[] = ".alert.test";

bool ends_with(const std::string &text, const std::string &end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// The certificates that names are answered with; shared by all threads.
class Chains {
 public:
  explicit Chains(const std::string &directory) : root_(make_authority("bench root")), key_(make_key()) {
    write_pem(root_.certificate.get(), directory + "/ca.pem");
    bssl::UniquePtr<X509> leaf =
        make_leaf({"origin.test", "*.origin.test", "localhost", "IP:127.0.0.1"}, key_.get(), root_);
    common_.push_back(to_buffer(leaf.get(), nullptr));
    write_pem(leaf.get(), directory + "/leaf.pem");
    write_pem(key_.get(), directory + "/leaf.key");
    Authority stranger = make_authority("a root nobody trusts");
    bad_.push_back(to_buffer(make_leaf({"bad.test", "*.bad.test"}, key_.get(), stranger).get(), nullptr));
  }

  bool give(SSL *ssl, const std::string &name) {
    const std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> *chain = &common_;
    if (ends_with(name, kBad)) chain = &bad_;
    if (ends_with(name, kOwn)) {
      std::lock_guard<std::mutex> hold(lock_);
      auto &own = own_[name];
      if (own.empty()) {
        Authority middle = make_authority("intermediate of " + name, &root_);
        own.push_back(to_buffer(make_leaf({name}, key_.get(), middle).get(), nullptr));
        own.push_back(to_buffer(middle.certificate.get(), nullptr));
      }
      chain = &own;
    }
    std::vector<CRYPTO_BUFFER *> certificates;
    for (const auto &certificate : *chain) certificates.push_back(certificate.get());
    return SSL_set_chain_and_key(ssl, certificates.data(), certificates.size(), key_.get(), nullptr);
  }

 private:
  Authority root_;
  bssl::UniquePtr<EVP_PKEY> key_;
  std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> common_, bad_;
  std::mutex lock_;
  std::map<std::string, std::vector<bssl::UniquePtr<CRYPTO_BUFFER>>> own_;
};

Chains *chains;  // for the callback, which has no other way to it

ssl_select_cert_result_t on_hello(const SSL_CLIENT_HELLO *hello) {
  const char *name = SSL_get_servername(hello->ssl, TLSEXT_NAMETYPE_host_name);
  if (name != nullptr && ends_with(name, kAlert)) return ssl_select_cert_error;
  return chains->give(hello->ssl, name ? name : "") ? ssl_select_cert_success : ssl_select_cert_error;
}

int on_alpn(SSL *, const uint8_t **out, uint8_t *out_size, const uint8_t *offered, unsigned size, void *) {
  static const uint8_t ours[] = "\x02h2\x08http/1.1";
  int found = SSL_select_next_proto(const_cast<uint8_t **>(out), out_size, ours, sizeof ours - 1, offered, size);
  return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

bssl::UniquePtr<SSL_CTX> make_context(const std::string &groups, bool tickets) {
  bssl::UniquePtr<SSL_CTX> context(SSL_CTX_new(TLS_with_buffers_method()));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  if (!tickets) SSL_CTX_set_options(context.get(), SSL_OP_NO_TICKET);
  if (!SSL_CTX_set1_groups_list(context.get(), groups.c_str())) die("--groups: BoringSSL does not know " + groups);
  SSL_CTX_set_select_certificate_cb(context.get(), on_hello);
  SSL_CTX_set_alpn_select_cb(context.get(), on_alpn, nullptr);
  return context;
}

class Connection : public Handler {
 public:
  Connection(Loop *loop, int fd, SSL_CTX *context) : loop_(loop), channel_(fd) {
    SSL_set_shed_handshake_config(channel_.make_tls(context, true), 1);
    loop_->add(fd, this);
  }

  void on_event(uint32_t events) override {
    channel_.ready(events & kEnding);
    if (!protocol_) {
      Io io = channel_.handshake();
      if (io == Io::kWait) return;
      if (io != Io::kDone) return loop_->bury(this);
      const uint8_t *name = nullptr;
      unsigned size = 0;
      SSL_get0_alpn_selected(channel_.ssl(), &name, &size);
      protocol_ = size == 2 ? make_http2() : make_http1();
    }
    Protocol::Next next = protocol_->pump(&channel_);
    if (next == Protocol::Next::kAgain) loop_->again(this);
    if (next == Protocol::Next::kGone) loop_->bury(this);
  }

 private:
  Loop *loop_;
  Channel channel_;
  std::unique_ptr<Protocol> protocol_;
};

// Who speaks no TLS: it answers the first bytes with others, or resets.
class Stranger : public Handler {
 public:
  Stranger(Loop *loop, int fd, bool rude) : loop_(loop), channel_(fd), rude_(rude) { loop_->add(fd, this); }

  void on_event(uint32_t events) override {
    channel_.ready(events & kEnding);
    uint8_t bytes[4096];
    size_t size = 0;
    Io io = channel_.read(bytes, sizeof bytes, &size);
    if (io == Io::kWait) return;
    if (io == Io::kDone && rude_) channel_.reset();
    if (io == Io::kDone && !rude_ && !answered_) {
      channel_.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
      channel_.shutdown_write();
      answered_ = true;
      return;
    }
    if (io != Io::kDone || rude_) loop_->bury(this);
  }

 private:
  Loop *loop_;
  Channel channel_;
  const bool rude_;
  bool answered_ = false;
};

class StrangeListener : public Handler {
 public:
  StrangeListener(Loop *loop, sockaddr_in at, bool rude) : loop_(loop), rude_(rude) {
    at.sin_port = 0;
    fd_ = listen_socket(at);
    loop_->add(fd_, this, true);
  }
  uint16_t port() const { return port_of(fd_); }

  void on_event(uint32_t) override {
    for (int fd; (fd = accept_socket(fd_)) >= 0;) new Stranger(loop_, fd, rude_);
  }

 private:
  Loop *loop_;
  const bool rude_;
  int fd_;
};

class Listener : public Handler {
 public:
  Listener(Loop *loop, const sockaddr_in &at, SSL_CTX *context)
      : loop_(loop), context_(context), fd_(listen_socket(at)) {
    loop_->add(fd_, this, true);
  }
  uint16_t port() const { return port_of(fd_); }

  void on_event(uint32_t) override {
    for (int fd; (fd = accept_socket(fd_)) >= 0;) new Connection(loop_, fd, context_);
  }

 private:
  Loop *loop_;
  SSL_CTX *context_;
  int fd_;
};

// Ends the process when whoever started it is gone or says so.
class Parent : public Handler {
 public:
  void on_event(uint32_t) override {
    char byte;
    if (read(STDIN_FILENO, &byte, 1) != 1) _exit(0);
  }
};

void write_body(const std::string &path, uint64_t size) {
  FILE *file = fopen(path.c_str(), "w");
  for (uint64_t at = 0; file != nullptr && at < size;) {
    size_t piece = static_cast<size_t>(std::min<uint64_t>(size - at, kLongestPiece));
    if (fwrite(pattern_at(0, at), 1, piece, file) != piece) die("cannot write " + path);
    at += piece;
  }
  if (file == nullptr || fclose(file) != 0) die("cannot write " + path);
}

int run(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  raise_descriptors();
  Options options(argc, argv);
  std::string directory = options.text("dir", ".", "where ca.pem is written");
  std::string at = options.text("listen", "127.0.0.1:0", "without tickets; the port with tickets is any free one");
  std::string groups = options.text("groups", "X25519:P-256", "key exchange groups, by preference");
  int64_t threads = options.number("threads", 1, "loops");
  std::string body = options.text("body", "", "write the body with seed 0 to this file, for other servers");
  int64_t body_bytes = options.number("body-bytes", 0, "how much of it");
  options.finish("The TLS origin of the bench.");
  if (!body.empty()) write_body(body, static_cast<uint64_t>(body_bytes));

  Chains made(directory);
  chains = &made;
  bssl::UniquePtr<SSL_CTX> plain = make_context(groups, false), resuming = make_context(groups, true);
  sockaddr_in first = parse_address("listen", at), second = first;
  second.sin_port = 0;
  Loop loop;
  Listener without(&loop, first, plain.get()), with(&loop, second, resuming.get());
  first.sin_port = htons(without.port());
  second.sin_port = htons(with.port());
  for (int64_t i = 1; i < threads; i++) {
    std::thread([&] {
      Loop own;
      Listener a(&own, first, plain.get()), b(&own, second, resuming.get());
      for (;;) own.poll(-1);
    }).detach();
  }
  Parent parent;
  loop.add(STDIN_FILENO, &parent, true);
  StrangeListener stranger(&loop, first, false), rude(&loop, first, true);
  printf("READY {\"port\": %d, \"tickets_port\": %d, \"plain_port\": %d, \"rude_port\": %d}\n", without.port(), with.port(),
         stranger.port(), rude.port());
  fflush(stdout);
  for (;;) loop.poll(-1);
}

}  // namespace
}  // namespace bench

int main(int argc, char **argv) { return bench::run(argc, argv); }
