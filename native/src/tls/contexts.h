// What handshakes share: one client context per profile, one server context.
#ifndef POLYTLS_SRC_TLS_CONTEXTS_H
#define POLYTLS_SRC_TLS_CONTEXTS_H

#include <openssl/base.h>
#include <openssl/ssl.h>
#include <stdint.h>

#include <atomic>
#include <string>
#include <vector>

#include "base/ref.h"
#include "polytls/native.h"
#include "tls/session_cache.h"
#include "tls/trust.h"

struct ptl_client_context : public ptl::RefCounted<ptl_client_context> {
 public:
  ptl_client_context() = default;
  ~ptl_client_context() = default;

  // init fills a new context in. It returns an empty text, or a sentence saying what cannot be.
  std::string init(const ptl_hello &hello, ptl_trust *trust, int verify);

  // new_ssl returns a client that will offer |alpn| (wire form, empty: no ALPN extension) and say it wants
  // |name|; or null. The SNI is left out where |name| is an IP address (RFC 6066 §3).
  bssl::UniquePtr<SSL> new_ssl(const std::string &name, const std::vector<uint8_t> &alpn) const;

  // verify judges the certificates of |ssl| as the context's |verify| flags say.
  ptl::Verdict verify(const SSL *ssl, const std::string &name) const;

  bool resumes() const { return resumption_; }
  ptl::SessionCache *sessions() { return &sessions_; }

 private:
  bool configure_per_connection(SSL *ssl, const std::vector<uint8_t> &alpn) const;

  std::string set_knobs(const ptl_hello &hello);
  std::string set_template(const ptl_hello &hello);

  bssl::UniquePtr<SSL_CTX> ctx_;
  bssl::UniquePtr<SSL_CLIENT_HELLO_TEMPLATE> template_;  // null: by knobs
  ptl::Ref<ptl_trust> trust_;
  int verify_ = PTL_VERIFY_CHAIN | PTL_VERIFY_HOST;
  bool ech_grease_ = false;
  bool alps_new_codepoint_ = true;
  bool resumption_ = false;
  bool key_shares_chosen_ = false;
  std::vector<uint16_t> key_shares_;
  std::vector<std::vector<uint8_t>> alps_;
  ptl::SessionCache sessions_;
};

struct ptl_server_context : public ptl::RefCounted<ptl_server_context> {
 public:
  ptl_server_context() = default;
  ~ptl_server_context() = default;

  std::string init();
  bssl::UniquePtr<SSL> new_ssl(const SSL_CREDENTIAL *credential) const;

 private:
  bssl::UniquePtr<SSL_CTX> ctx_;
};

#endif
