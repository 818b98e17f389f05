// bench-yardstick: what the machine charges for the job, to read a proxy against. It is no proxy.
//
// MITM: a CONNECT tunnel is terminated with BoringSSL on both sides, and bytes are relayed. As soon as the
// client's hello is there, upstream's handshake runs, with the client's ALPN list and verified (once per name
// and chain); then the leaf, minted once per name, and the client's handshake. Passthrough: the same without TLS.
// There is no HTTP beyond finding the end of the CONNECT head, no policy, no limit, no log, no half-close: an
// end of one side ends the tunnel. Every name is connected to the same origin.
#include <signal.h>
#include <stdio.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>

#include "common/channel.h"
#include "common/loop.h"
#include "common/net.h"
#include "common/options.h"
#include "yardstick/mitm.h"

namespace bench {
namespace {

constexpr size_t kRecordBytes = 16384;
constexpr int kHeapKeptBytes = 8 << 20;       // the heap is not handed back and fetched anew with each burst
const char kEstablished[] = "HTTP/1.1 200 OK\r\n\r\n";

struct Shared {
  sockaddr_in origin;
  std::unique_ptr<Mitm> mitm;  // none: passthrough
};

class Tunnel;

struct Side : Handler {
  explicit Side(Tunnel *of) : tunnel(of) {}
  void on_event(uint32_t events) override;
  Tunnel *tunnel;
  Channel channel;
  bool shaken = false;
};

class Tunnel : public Handler {
 public:
  Tunnel(Loop *loop, Shared *shared, int fd) : loop_(loop), shared_(shared), client_(this), upstream_(this) {
    client_.channel.open(fd);
    loop_->add(fd, &client_);
  }

  void on_event(uint32_t) override {}

  void on_side(Side *side, uint32_t events) {
    if (events != 0) side->channel.ready(events & kEnding);
    if (!go_on(side)) end();
  }

  ssl_select_cert_result_t on_hello(const SSL_CLIENT_HELLO *hello) {
    const char *name = SSL_get_servername(hello->ssl, TLSEXT_NAMETYPE_host_name);
    if (!upstream_.channel.ssl()) begin_upstream(hello, name);
    if (!upstream_.shaken) return ssl_select_cert_retry;
    return shared_->mitm->give_leaf(hello->ssl, name ? name : "none.test") ? ssl_select_cert_success : ssl_select_cert_error;
  }

  int on_alpn(const uint8_t **out, uint8_t *out_size, const uint8_t *offered, unsigned size) {
    const uint8_t *chosen = nullptr;
    unsigned chosen_size = 0;
    SSL_get0_alpn_selected(upstream_.channel.ssl(), &chosen, &chosen_size);
    uint8_t list[256] = {static_cast<uint8_t>(chosen_size)};
    std::copy(chosen, chosen + chosen_size, list + 1);
    if (chosen_size == 0) return SSL_TLSEXT_ERR_NOACK;
    int found = SSL_select_next_proto(const_cast<uint8_t **>(out), out_size, offered, size, list, chosen_size + 1);
    return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
  }

 private:
  enum class Step { kHead, kConnect, kShake, kRelay };

  // As far as it goes; false: the tunnel has ended.
  bool go_on(Side *side) {
    switch (step_) {
      case Step::kHead:
        return side == &client_ && read_head();
      case Step::kConnect:
        return side == &client_ || answer();
      case Step::kShake:
        return shake(side);
      case Step::kRelay:
        return relay_both(side);
    }
    return false;
  }

  bool read_head() {
    uint8_t bytes[4096];
    size_t size = 0;
    Io io;
    while ((io = client_.channel.read(bytes, sizeof bytes, &size)) == Io::kDone) {
      head_.append(reinterpret_cast<char *>(bytes), size);
    }
    if (io != Io::kWait) return false;
    if (head_.size() < 4 || head_.compare(head_.size() - 4, 4, "\r\n\r\n") != 0) return true;
    std::string().swap(head_);
    int fd = connect_socket(shared_->origin);
    if (fd < 0) return false;
    upstream_.channel.open(fd);
    loop_->add(fd, &upstream_);
    step_ = Step::kConnect;
    return true;
  }

  bool answer() {
    if (connect_error(upstream_.channel.fd()) != 0) return false;
    client_.channel.write(kEstablished);
    if (client_.channel.flush() != Io::kDone) return false;
    step_ = shared_->mitm ? Step::kShake : Step::kRelay;
    if (shared_->mitm) make_tls(&client_, shared_->mitm->client_side(), true);
    return true;
  }

  void make_tls(Side *side, SSL_CTX *context, bool server) {
    SSL *ssl = side->channel.make_tls(context, server);
    SSL_set_app_data(ssl, reinterpret_cast<char *>(this));
    SSL_set_shed_handshake_config(ssl, 1);
  }

  void begin_upstream(const SSL_CLIENT_HELLO *hello, const char *name) {
    make_tls(&upstream_, shared_->mitm->upstream_side(), false);
    if (name) SSL_set_tlsext_host_name(upstream_.channel.ssl(), name);
    const uint8_t *list = nullptr;
    size_t size = 0;
    if (SSL_early_callback_ctx_extension_get(hello, TLSEXT_TYPE_application_layer_protocol_negotiation, &list, &size) && size > 2) {
      SSL_set_alpn_protos(upstream_.channel.ssl(), list + 2, size - 2);
    }
  }

  bool shake(Side *side) {
    if (side == &client_ && !client_.shaken && !shake_one(&client_)) return false;
    if (upstream_.channel.ssl() && !upstream_.shaken) {
      if (!shake_one(&upstream_)) return false;
      if (upstream_.shaken && !shake_one(&client_)) return false;
    }
    if (!client_.shaken || !upstream_.shaken) return true;
    step_ = Step::kRelay;
    return relay_both(&client_) && relay_both(&upstream_);
  }

  bool shake_one(Side *side) {
    Io io = side->channel.handshake();
    side->shaken = io == Io::kDone;
    return io == Io::kDone || io == Io::kWait || io == Io::kPaused;
  }

  // After an event of |side|: what came from it goes on, and what waited for room on it.
  bool relay_both(Side *side) {
    Side *other = side == &client_ ? &upstream_ : &client_;
    if (side->channel.waiting() > 0) {
      Io io = side->channel.flush();
      if (io != Io::kDone && io != Io::kWait) return false;
      if (io == Io::kDone && !relay(other, side)) return false;
    }
    return relay(side, other);
  }

  bool relay(Side *from, Side *to) {
    static thread_local uint8_t bytes[kRecordBytes];
    if (to->channel.waiting() > 0) return true;
    from->channel.begin_turn();
    Io io;
    if (!shared_->mitm) {
      if ((io = from->channel.pass_on(&to->channel)) == Io::kDone) loop_->again(from);
      return io == Io::kDone || io == Io::kWait;
    }
    for (size_t size = 0; (io = from->channel.read(bytes, sizeof bytes, &size)) == Io::kDone;) {
      if (to->channel.write(bytes, size) != Io::kDone) return false;
    }
    Io flushed = to->channel.flush();
    if (flushed != Io::kDone && flushed != Io::kWait) return false;
    if (from->channel.turn_is_over()) loop_->again(from);
    if (io == Io::kEnd && shared_->mitm) to->channel.say_goodbye();
    return io == Io::kWait;
  }

  void end() {
    loop_->silence(&client_);
    loop_->silence(&upstream_);
    loop_->bury(this);
    client_.channel.close();
    upstream_.channel.close();
  }

  Loop *loop_;
  Shared *shared_;
  Step step_ = Step::kHead;
  Side client_, upstream_;
  std::string head_;
};

void Side::on_event(uint32_t events) { tunnel->on_side(this, events); }

Tunnel *tunnel_of(const SSL *ssl) { return reinterpret_cast<Tunnel *>(SSL_get_app_data(ssl)); }

class Listener : public Handler {
 public:
  Listener(Loop *loop, Shared *shared, const sockaddr_in &at) : loop_(loop), shared_(shared), fd_(listen_socket(at)) {
    loop_->add(fd_, this, true);
  }
  uint16_t port() const { return port_of(fd_); }
  void on_event(uint32_t) override {
    for (int fd; (fd = accept_socket(fd_)) >= 0;) new Tunnel(loop_, shared_, fd);
  }

 private:
  Loop *loop_;
  Shared *shared_;
  int fd_;
};

int run(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  raise_descriptors();
  Options options(argc, argv);
  std::string mode = options.text("mode", "mitm", "mitm or passthrough");
  std::string at = options.text("listen", "127.0.0.1:0", "where clients connect");
  std::string origin = options.text("origin", "", "where every tunnel leads");
  MitmOptions mitm;
  mitm.trusted_pem = options.text("ca", "", "certificates to trust upstream");
  mitm.post_quantum = options.flag("post-quantum", "offer X25519MLKEM768 before X25519");
  int64_t threads = options.number("threads", 1, "loops");
  options.finish("The yardstick: the least native code that does a CONNECT proxy's job.");
  mallopt(M_TRIM_THRESHOLD, kHeapKeptBytes);
  mallopt(M_MMAP_THRESHOLD, kHeapKeptBytes);

  Shared shared{parse_address("origin", origin), nullptr};
  if (mode == "mitm") {
    shared.mitm = std::make_unique<Mitm>(mitm);
    SSL_CTX_set_select_certificate_cb(shared.mitm->client_side(), [](const SSL_CLIENT_HELLO *hello) {
      return tunnel_of(hello->ssl)->on_hello(hello);
    });
    SSL_CTX_set_alpn_select_cb(shared.mitm->client_side(), [](SSL *ssl, const uint8_t **out, uint8_t *out_size,
                               const uint8_t *offered, unsigned size, void *) {
      return tunnel_of(ssl)->on_alpn(out, out_size, offered, size);
    }, nullptr);
  } else if (mode != "passthrough") {
    die("--mode is mitm or passthrough, not " + mode);
  }

  Loop loop;
  sockaddr_in address = parse_address("listen", at);
  Listener first(&loop, &shared, address);
  address.sin_port = htons(first.port());
  for (int64_t i = 1; i < threads; i++) {
    std::thread([&shared, address] {
      Loop own;
      Listener more(&own, &shared, address);
      for (;;) own.poll(-1);
    }).detach();
  }
  printf("READY {\"port\": %d}\n", first.port());
  fflush(stdout);
  for (;;) loop.poll(-1);
}

}  // namespace
}  // namespace bench

int main(int argc, char **argv) { return bench::run(argc, argv); }
