// What BoringSSL calls while a layer runs it: for the bytes below, for a verdict on certificates, for the protocol to
// agree on, with sessions to keep, and with what it says and sends on the way. Each finds its layer by the SSL, and none
// lets an exception out: BoringSSL knows none.
#ifndef POLYTLS_SRC_TLS_CALLBACKS_H
#define POLYTLS_SRC_TLS_CALLBACKS_H

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include "tls/layer.h"

namespace ptl {

// The layer of an SSL is the data of its BIO: ex_data would cost each connection an allocation.
struct LayerCallbacks {
  static TlsLayer *layer(const SSL *ssl) {
    return static_cast<TlsLayer *>(BIO_get_data(SSL_get_rbio(ssl)));
  }
  static const BIO_METHOD *bio_method();

  static ssl_verify_result_t verify(SSL *ssl, uint8_t *out_alert);
  static int select_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in,
                         unsigned in_len, void *arg);
  static int new_session(SSL *ssl, SSL_SESSION *session);
  static void info(const SSL *ssl, int type, int value);
  static void message(int is_write, int version, int content_type, const void *bytes, size_t size, SSL *ssl,
                      void *arg);

 private:
  static int bio_read(BIO *bio, char *out, int size);
  static int bio_write(BIO *bio, const char *in, int size);
  static long bio_ctrl(BIO *bio, int command, long number, void *pointer);
};

}  // namespace ptl

#endif
