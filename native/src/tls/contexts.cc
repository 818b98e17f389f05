#include "tls/contexts.h"

#include <arpa/inet.h>
#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/pool.h>
#include <openssl/x509.h>

#include <algorithm>

#include "base/guard.h"
#include "base/text.h"
#include "tls/callbacks.h"
#include "tls/decompress.h"

namespace {

// Certificates that many connections see are held once.
CRYPTO_BUFFER_POOL *buffer_pool() {
  static CRYPTO_BUFFER_POOL *pool = CRYPTO_BUFFER_POOL_new();  // lives as long as the process
  return pool;
}

bssl::UniquePtr<SSL_CTX> new_ctx() {
  // Without X.509 objects and with configuration shed after the handshake an idle pair of client and server
  // takes half the memory.
  bssl::UniquePtr<SSL_CTX> ctx(SSL_CTX_new(TLS_with_buffers_method()));
  if (!ctx) return nullptr;
  SSL_CTX_set0_buffer_pool(ctx.get(), buffer_pool());
  SSL_CTX_set_info_callback(ctx.get(), ptl::LayerCallbacks::info);
  SSL_CTX_set_max_cert_list(ctx.get(), PTL_MAX_CERTIFICATE_BYTES);
  return ctx;
}

std::string complaint(const char *what) {
  const char *reason = ERR_reason_error_string(ERR_peek_error());
  std::string text = std::string(what) + " cannot be set";
  if (reason != nullptr) text += std::string(": ") + reason;
  ERR_clear_error();
  return text;
}

bool is_ip(const std::string &name) {
  uint8_t ip[16];
  return inet_pton(AF_INET, name.c_str(), ip) == 1 || inet_pton(AF_INET6, name.c_str(), ip) == 1;
}

bool wire_list_has(const std::vector<uint8_t> &list, const std::vector<uint8_t> &name) {
  for (size_t i = 0; i < list.size(); i += 1u + list[i]) {
    if (list[i] == name.size() && i + 1 + name.size() <= list.size() &&
        std::equal(name.begin(), name.end(), list.begin() + static_cast<ptrdiff_t>(i) + 1)) {
      return true;
    }
  }
  return false;
}

// What a template may ask for, in bytes: itself, most of which goes into the hello, and the longest payload of a GREASE
// ECH. A hello's extensions have 65535, of which tickets, key shares, names and protocols take their part; beyond
// that nothing could be written at all. Servers read 16 KB or little more.
constexpr size_t kMaxTemplateBytes = 32768;

// longest_payload returns that of a template that was parsed: of the lists behind its four bytes of header, the fifth
// (ssl/client_hello_template.h).
size_t longest_payload(const ptl_hello &hello) {
  CBS in, skipped, payloads;
  CBS_init(&in, hello.template_bytes, hello.template_len);
  uint16_t payload, longest = 0;
  if (!CBS_skip(&in, 4) || !CBS_get_u16_length_prefixed(&in, &skipped) ||
      !CBS_get_u8_length_prefixed(&in, &skipped) || !CBS_get_u16_length_prefixed(&in, &skipped) ||
      !CBS_get_u16_length_prefixed(&in, &skipped) || !CBS_get_u16_length_prefixed(&in, &payloads)) {
    return 0;
  }
  while (CBS_get_u16(&payloads, &payload)) longest = std::max(longest, payload);
  return longest;
}

bool wire_list_valid(const uint8_t *list, size_t list_len) {
  while (list_len != 0) {
    size_t step = 1u + list[0];
    if (list[0] == 0 || step > list_len) return false;
    list += step;
    list_len -= step;
  }
  return true;
}

}  // namespace

std::string ptl_client_context::init(const ptl_hello &hello, ptl_trust *trust, int verify) {
  if (verify != 0 && trust == nullptr) return "verification needs trusted roots";
  if ((verify & ~(PTL_VERIFY_CHAIN | PTL_VERIFY_HOST)) != 0 || verify == PTL_VERIFY_HOST) {
    return "the host cannot be verified without the chain";  // anybody can write a name into a certificate
  }
  ctx_ = new_ctx();
  if (!ctx_) return "out of memory";
  SSL_CTX *ctx = ctx_.get();
  trust_ = ptl::Ref<ptl_trust>::share(trust);
  verify_ = verify;
  alps_new_codepoint_ = hello.alps_new_codepoint != 0;
  resumption_ = hello.resumption != 0;

  std::string problem = hello.template_len != 0 ? set_template(hello) : set_knobs(hello);
  if (!problem.empty()) return problem;
  for (size_t i = 0; i < hello.num_cert_compression; i++) {
    if (!ptl::offer_decompression(ctx, hello.cert_compression[i])) {
      return complaint("the certificate compression");
    }
  }
  if (!wire_list_valid(hello.alps, hello.alps_len)) return "the ALPS list is not in wire form";
  for (size_t i = 0; i < hello.alps_len; i += 1u + hello.alps[i]) {
    alps_.emplace_back(hello.alps + i + 1, hello.alps + i + 1 + hello.alps[i]);
  }
  SSL_CTX_set_custom_verify(ctx, SSL_VERIFY_PEER, ptl::LayerCallbacks::verify);
  if (resumption_) {
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, ptl::LayerCallbacks::new_session);
  } else {
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  }
  // What is set per connection is tried once here, so that a bad profile fails at start.
  bssl::UniquePtr<SSL> probe(SSL_new(ctx));
  std::vector<uint8_t> alpn(hello.alps, hello.alps + hello.alps_len);
  if (!probe || !configure_per_connection(probe.get(), alpn)) {
    return complaint(template_ ? "the template" : "the key shares");
  }
  return "";
}

// A template decides what is offered; what BoringSSL must be ready for is derived from it per connection. Here it is
// only opened as wide as any template may reach.
std::string ptl_client_context::set_template(const ptl_hello &hello) {
  size_t offset = 0;
  template_.reset(SSL_CLIENT_HELLO_TEMPLATE_parse(hello.template_bytes, hello.template_len, &offset));
  if (!template_) return "the template cannot be used; what is wrong begins at byte " + std::to_string(offset);
  if (hello.template_len + longest_payload(hello) > kMaxTemplateBytes) {
    return "the template asks for a hello longer than any server reads";
  }
  SSL_CTX *ctx = ctx_.get();
  if (!SSL_CTX_set_min_proto_version(ctx, TLS1_VERSION) ||
      !SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION)) {
    return complaint("the version bounds");
  }
  return "";
}

std::string ptl_client_context::set_knobs(const ptl_hello &hello) {
  SSL_CTX *ctx = ctx_.get();
  ech_grease_ = hello.ech_grease != 0;
  SSL_CTX_set_grease_enabled(ctx, hello.grease);
  SSL_CTX_set_permute_extensions(ctx, hello.permute_extensions);
  if (hello.ocsp_stapling) SSL_CTX_enable_ocsp_stapling(ctx);
  if (hello.signed_cert_timestamps) SSL_CTX_enable_signed_cert_timestamps(ctx);
  if (!hello.session_tickets) SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
  if (!SSL_CTX_set_min_proto_version(ctx, hello.min_version) ||
      !SSL_CTX_set_max_proto_version(ctx, hello.max_version)) {
    return complaint("the version bounds");
  }
  if (hello.num_groups != 0 && !SSL_CTX_set1_group_ids(ctx, hello.groups, hello.num_groups)) {
    return complaint("the groups");
  }
  if (hello.num_sigalgs != 0 &&
      !SSL_CTX_set_verify_algorithm_prefs(ctx, hello.sigalgs, hello.num_sigalgs)) {
    return complaint("the signature algorithms");
  }
  if (hello.cipher_list != nullptr && !SSL_CTX_set_strict_cipher_list(ctx, hello.cipher_list)) {
    return complaint("the cipher list");
  }
  if (hello.key_shares != nullptr) {
    key_shares_chosen_ = true;
    key_shares_.assign(hello.key_shares, hello.key_shares + hello.num_key_shares);
  }
  return "";
}

bool ptl_client_context::configure_per_connection(SSL *ssl, const std::vector<uint8_t> &alpn) const {
  if (template_) {  // first: it sets versions, groups and algorithms (SSL_set1_client_hello_template)
    if (!SSL_set1_client_hello_template(ssl, template_.get())) return false;
  } else {
    SSL_set_enable_ech_grease(ssl, ech_grease_);
  }
  if (key_shares_chosen_ &&
      !SSL_set1_client_key_shares(ssl, key_shares_.data(), key_shares_.size())) {
    return false;
  }
  if (!alpn.empty() && SSL_set_alpn_protos(ssl, alpn.data(), alpn.size()) != 0) return false;
  SSL_set_alps_use_new_codepoint(ssl, alps_new_codepoint_);
  for (const auto &protocol : alps_) {
    // Settings are for protocols that are offered (SSL_add_application_settings).
    if (!wire_list_has(alpn, protocol)) continue;
    if (!SSL_add_application_settings(ssl, protocol.data(), protocol.size(), nullptr, 0)) return false;
  }
  return true;
}

bssl::UniquePtr<SSL> ptl_client_context::new_ssl(const std::string &name,
                                                 const std::vector<uint8_t> &alpn) const {
  if (!wire_list_valid(alpn.data(), alpn.size())) return nullptr;
  bssl::UniquePtr<SSL> ssl(SSL_new(ctx_.get()));
  if (!ssl || !configure_per_connection(ssl.get(), alpn)) return nullptr;
  if (!is_ip(name) && !SSL_set_tlsext_host_name(ssl.get(), name.c_str())) return nullptr;
  SSL_set_shed_handshake_config(ssl.get(), 1);
  SSL_set_connect_state(ssl.get());
  return ssl;
}

ptl::Verdict ptl_client_context::verify(const SSL *ssl, const std::string &name) const {
  if ((verify_ & PTL_VERIFY_CHAIN) == 0) return {true, 0, ""};
  const bool host = (verify_ & PTL_VERIFY_HOST) != 0;
  return trust_->verify(SSL_get0_peer_certificates(ssl), host ? name : std::string());
}

std::string ptl_server_context::init() {
  ctx_ = new_ctx();
  if (!ctx_) return "out of memory";
  const uint16_t groups[] = {SSL_GROUP_X25519_MLKEM768, SSL_GROUP_X25519, SSL_GROUP_SECP256R1,
                             SSL_GROUP_SECP384R1};
  if (!SSL_CTX_set_min_proto_version(ctx_.get(), TLS1_2_VERSION) ||
      !SSL_CTX_set_max_proto_version(ctx_.get(), TLS1_3_VERSION) ||
      !SSL_CTX_set1_group_ids(ctx_.get(), groups, 4)) {
    return complaint("the server's parameters");
  }
  // The client is next door: a full handshake costs it one signature of ours, a ticket would cost memory.
  SSL_CTX_set_options(ctx_.get(), SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(ctx_.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_alpn_select_cb(ctx_.get(), ptl::LayerCallbacks::select_alpn, nullptr);
  return "";
}

bssl::UniquePtr<SSL> ptl_server_context::new_ssl(const SSL_CREDENTIAL *credential) const {
  bssl::UniquePtr<SSL> ssl(SSL_new(ctx_.get()));
  if (!ssl || !SSL_add1_credential(ssl.get(), credential)) return nullptr;
  SSL_set_shed_handshake_config(ssl.get(), 1);
  SSL_set_accept_state(ssl.get());
  return ssl;
}

ptl_client_context *ptl_client_context_new(const ptl_hello *hello, ptl_trust *trust, int verify,
                                           char *err, size_t err_len) {
  return ptl::guarded(err, err_len, [&]() -> ptl_client_context *{
    auto *context = new ptl_client_context();
    std::string problem = context->init(*hello, trust, verify);
    if (problem.empty()) return context;
    ptl::put_text(err, err_len, problem);
    context->release();
    return nullptr;
  });
}

void ptl_client_context_free(ptl_client_context *context) {
  if (context != nullptr) context->release();
}

ptl_server_context *ptl_server_context_new(char *err, size_t err_len) {
  return ptl::guarded(err, err_len, [&]() -> ptl_server_context *{
    auto *context = new ptl_server_context();
    std::string problem = context->init();
    if (problem.empty()) return context;
    ptl::put_text(err, err_len, problem);
    context->release();
    return nullptr;
  });
}

void ptl_server_context_free(ptl_server_context *context) {
  if (context != nullptr) context->release();
}
