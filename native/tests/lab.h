// What TLS tests share: a root, an origin's certificate under it, a leaf for clients, and contexts of both
// kinds: the engine's, and the TLS library's own for the peers.
#ifndef POLYTLS_TESTS_LAB_H
#define POLYTLS_TESTS_LAB_H

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <vector>

#include "certificates.h"
#include "polytls/native.h"

namespace test {

template <typename T, void (*free_function)(T *)>
struct Freer {
  void operator()(T *object) const { free_function(object); }
};
using Trust = std::unique_ptr<ptl_trust, Freer<ptl_trust, ptl_trust_free>>;
using Credential = std::unique_ptr<ptl_credential, Freer<ptl_credential, ptl_credential_free>>;
using ClientContext = std::unique_ptr<ptl_client_context, Freer<ptl_client_context, ptl_client_context_free>>;
using ServerContext = std::unique_ptr<ptl_server_context, Freer<ptl_server_context, ptl_server_context_free>>;

constexpr int kVerifyAll = PTL_VERIFY_CHAIN | PTL_VERIFY_HOST;

// default_hello returns what a plain profile offers: TLS 1.2 and 1.3, tickets, nothing else set.
ptl_hello default_hello();

Trust new_trust(const std::vector<std::string> &roots, uint32_t cache_ms = 0, uint32_t cache_max = 0);
ClientContext new_client_context(const ptl_hello &hello, ptl_trust *trust, int verify = kVerifyAll);
ServerContext new_server_context();
Credential new_credential(const Identity &identity);

// The peers' side. peer_client verifies nothing.
bssl::UniquePtr<SSL_CTX> peer_server(const Identity &identity, uint16_t max_version = TLS1_3_VERSION);
bssl::UniquePtr<SSL_CTX> peer_client(uint16_t max_version = TLS1_3_VERSION);
// offer_alpn makes a client's |ctx| offer |wire|; choose_alpn makes a server's choose |protocol|, which must
// live as long.
void offer_alpn(SSL_CTX *ctx, const std::string &wire);
void choose_alpn(SSL_CTX *ctx, const std::string *protocol);

struct Lab {
  Authority root{"PolyTLS lab root"};
  Authority stranger{"PolyTLS lab stranger"};
  Identity origin = root.issue(LeafSpec());
  Identity leaf = root.issue(LeafSpec());
  Trust trust = new_trust({root.der()});
  ClientContext client = new_client_context(default_hello(), trust.get());
  ServerContext server = new_server_context();
  Credential credential = new_credential(leaf);
  bssl::UniquePtr<SSL_CTX> origin_ctx = peer_server(origin);
  bssl::UniquePtr<SSL_CTX> client_ctx = peer_client();
};

// lab returns the one of this program, made when it is first asked for.
Lab &lab();

}  // namespace test

#endif
