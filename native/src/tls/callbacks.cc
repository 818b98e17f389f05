#include "tls/callbacks.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <string.h>

#include <atomic>
#include <new>
#include <string>

#include "tls/layer.h"

namespace ptl {

namespace {

// A ticket goes into the next hello, whose extensions have 65535 bytes at most: with a longer one it could not be
// written, and that connection would fail. Real ones have up to about 3000.
constexpr size_t kMaxTicketBytes = 8192;

}  // namespace

const BIO_METHOD *LayerCallbacks::bio_method() {
  static std::atomic<BIO_METHOD *> method{nullptr};
  BIO_METHOD *known = method.load(std::memory_order_acquire);
  if (known != nullptr) return known;
  BIO_METHOD *made = BIO_meth_new(0, "polytls layer");
  if (made == nullptr) return nullptr;  // whoever comes next tries again
  BIO_meth_set_read(made, bio_read);
  BIO_meth_set_write(made, bio_write);
  BIO_meth_set_ctrl(made, bio_ctrl);
  if (method.compare_exchange_strong(known, made, std::memory_order_acq_rel)) return made;
  BIO_meth_free(made);
  return known;
}

int LayerCallbacks::bio_read(BIO *bio, char *out, int size) {
  BIO_clear_retry_flags(bio);
  auto *layer = static_cast<TlsLayer *>(BIO_get_data(bio));
  int n = layer->read_below(reinterpret_cast<uint8_t *>(out), static_cast<size_t>(size));
  if (n > 0) return n;
  BIO_set_retry_read(bio);
  return -1;
}

int LayerCallbacks::bio_write(BIO *bio, const char *in, int size) {
  BIO_clear_retry_flags(bio);
  auto *layer = static_cast<TlsLayer *>(BIO_get_data(bio));
  const auto *bytes = reinterpret_cast<const uint8_t *>(in);
  return layer->write_below(bytes, static_cast<size_t>(size)) ? size : -1;
}

long LayerCallbacks::bio_ctrl(BIO *, int command, long, void *) { return command == BIO_CTRL_FLUSH; }

ssl_verify_result_t LayerCallbacks::verify(SSL *ssl, uint8_t *out_alert) try {
  TlsLayer *self = layer(ssl);
  // A server that does not take the encrypted hello proves to be the one that published the config: only then is it
  // believed, and only as to which configs to try next (RFC 9849 section 6.1.7).
  const char *public_name;
  size_t public_name_len;
  SSL_get0_ech_name_override(ssl, &public_name, &public_name_len);
  const bool rejected = public_name_len != 0;
  self->extra_->verdict = self->client_context_->verify(
      ssl, rejected ? std::string(public_name, public_name_len) : self->extra_->name);
  if (rejected && !self->extra_->verdict.ok) {
    self->extra_->verdict.detail += " (upstream rejected ECH, and this certificate is not one for the public name " +
                                    std::string(public_name, public_name_len) + ")";
  }
  // What X.509 had to say on its way is in the verdict; in the queue it would pass for the handshake's error.
  ERR_clear_error();
  if (self->extra_->verdict.ok) return ssl_verify_ok;
  *out_alert = static_cast<uint8_t>(SSL_alert_from_verify_result(self->extra_->verdict.error));
  return ssl_verify_invalid;
} catch (const std::bad_alloc &) {
  layer(ssl)->short_of_memory_ = true;
  *out_alert = SSL_AD_INTERNAL_ERROR;
  return ssl_verify_invalid;
}

int LayerCallbacks::select_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in,
                                unsigned in_len, void *) {
  const std::string &wanted = layer(ssl)->extra_->protocol;
  if (wanted.empty()) return SSL_TLSEXT_ERR_NOACK;
  for (unsigned i = 0; i < in_len; i += 1u + in[i]) {
    if (in[i] == wanted.size() && memcmp(in + i + 1, wanted.data(), wanted.size()) == 0) {
      *out = in + i + 1;
      *out_len = in[i];
      return SSL_TLSEXT_ERR_OK;
    }
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

int LayerCallbacks::new_session(SSL *ssl, SSL_SESSION *session) try {
  TlsLayer *self = layer(ssl);
  if (!self->session_key_) return 0;
  const uint8_t *ticket;
  size_t ticket_len;
  SSL_SESSION_get0_ticket(session, &ticket, &ticket_len);
  if (ticket_len > kMaxTicketBytes) return 0;
  self->client_context_->sessions()->put(*self->session_key_, bssl::UpRef(session));
  SSL_SESSION_free(session);
  return 1;  // the session is ours
} catch (const std::bad_alloc &) {
  return 0;  // not kept
}

void LayerCallbacks::message(int is_write, int, int content_type, const void *, size_t, SSL *ssl, void *) {
  if (is_write && content_type == SSL3_RT_CLIENT_HELLO_INNER) layer(ssl)->extra_->encrypted_hello = true;
}

void LayerCallbacks::info(const SSL *ssl, int type, int value) {
  if (type == SSL_CB_WRITE_ALERT) layer(ssl)->sent_alert_ = static_cast<uint8_t>(value & 0xff);
}

}  // namespace ptl
