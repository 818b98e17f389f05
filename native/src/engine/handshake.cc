// Handshakes: a TLS layer put over a stream, and driven until it is done or has failed.
#include <errno.h>
#include <openssl/err.h>

#include <algorithm>

#include "engine/completion.h"
#include "engine/engine.h"
#include "engine/loop.h"

namespace ptl {

namespace {

// paired_protocol finds what |pairs| has for the protocol that |ssl| agreed on.
bool paired_protocol(const std::vector<uint8_t> &pairs, const SSL *ssl, std::string *out) {
  const uint8_t *chosen;
  unsigned chosen_len;
  SSL_get0_alpn_selected(ssl, &chosen, &chosen_len);
  for (size_t at = 0; at < pairs.size();) {  // well-formed: |submit| has seen to it
    const size_t answer = at + 1 + pairs[at];
    if (pairs[at] == chosen_len && std::equal(chosen, chosen + chosen_len, &pairs[at] + 1)) {
      out->assign(pairs.begin() + static_cast<ptrdiff_t>(answer) + 1,
                  pairs.begin() + static_cast<ptrdiff_t>(answer) + 1 + pairs[answer]);
      return true;
    }
    at = answer + 1 + pairs[answer];
  }
  return false;
}

}  // namespace

void Loop::start_tls(Op *op, Stream *stream) {
  std::unique_ptr<TlsLayer> layer;
  if (op->kind == PTL_OP_CONNECT_TLS) {
    layer = TlsLayer::client(std::move(op->given->client_context), op->given->name, op->port, op->given->data,
                             op->given->ech_configs, stream, &stream->tls);
  } else {
    std::string protocol(op->given->data.begin(), op->given->data.end());
    if (op->other != 0) {
      Stream *other = find_open(op->other);
      if (other == nullptr || !other->tls || !other->tls->handshaken()) {
        fail(op, PTL_E_STALE, "the other stream is closed, or agreed on no protocol");
        return;
      }
      if (!paired_protocol(op->given->data, other->tls->ssl(), &protocol)) {
        fail(op, PTL_E_ALPN, "there is no protocol to agree on that fits what the other side chose");
        return;
      }
    }
    layer = TlsLayer::server(std::move(op->given->server_context), std::move(op->given->credential),
                             std::move(protocol), stream, &stream->tls);
  }
  if (!layer) {
    const bool no_memory = TlsLayer::out_of_memory();
    ERR_clear_error();
    if (no_memory) {
      fail(op, PTL_E_NOMEM, "out of memory", ENOMEM);
    } else {
      fail(op, PTL_E_INVALID, "TLS cannot begin with these arguments");
    }
    return;
  }
  // What had been read ahead, the ClientHello that was peeked at above all, is the new layer's to read.
  layer->received()->swap(stream->in);
  stream->tls = std::move(layer);
  if (op->kind == PTL_OP_CONNECT_TLS && (op->flags & PTL_FLAG_RAW) != 0) stream->tls->keep_first_flight();
  if (stream->tls->offered_session()) {
    counters_.sessions_offered.fetch_add(1, std::memory_order_relaxed);
  }
  try_handshake(stream);
}

void Loop::try_handshake(Stream *stream) {
  Op *op = stream->op;
  TlsFailure failure;
  TlsLayer::Step step;
  for (;;) {
    stage(stream);
    step = stream->tls->handshake(&failure);
    unstage();
    if (step != TlsLayer::Step::kWant || stream->broken) break;
    size_t got = receive(stream, chunk_.get(), kChunkBytes);
    if (got == 0) break;
    stream->tls->supply(chunk_.get(), got);
  }
  if (!stream->tls->keep_rest()) mark_broken(stream, ENOMEM);
  if (step == TlsLayer::Step::kDone) {
    handshake_done(op, stream);
    return;
  }
  if (step == TlsLayer::Step::kWant && !stream->broken && !stream->fin) return;
  ptl_completion completion = completion_of(op, failure.status);
  completion.flight_sent = stream->tls->flight_sent();
  if (step == TlsLayer::Step::kWant) {
    const bool no_memory = stream->broken && stream->sys_errno == ENOMEM;
    const bool reset = stream->broken && !no_memory;
    completion.status = no_memory ? PTL_E_NOMEM : reset ? PTL_E_RESET : PTL_E_CLOSED;
    completion.sys_errno = stream->sys_errno;
    attach_text(&completion, no_memory ? "out of memory"
                             : reset   ? "the connection was reset during the handshake"
                                       : "the connection was closed during the handshake");
  } else {
    completion.alert = static_cast<uint8_t>(failure.alert);
    completion.verify_error = failure.verify_error;
    if (failure.status == PTL_E_ECH_REJECTED) {
      attach_data(&completion, failure.ech_retry_configs.data(), failure.ech_retry_configs.size());
    } else {
      attach_text(&completion, failure.detail);
    }
  }
  complete(op, completion);
}

void Loop::handshake_done(Op *op, Stream *stream) {
  const SSL *ssl = stream->tls->ssl();
  counters_.handshakes.fetch_add(1, std::memory_order_relaxed);
  ptl_completion completion = completion_of(op, PTL_OK);
  completion.version = static_cast<uint16_t>(SSL_version(ssl));
  if (const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl)) {
    completion.cipher = SSL_CIPHER_get_protocol_id(cipher);
  }
  completion.group = SSL_get_group_id(ssl);
  completion.sigalg = stream->tls->is_client() ? SSL_get_peer_signature_algorithm(ssl) : 0;
  completion.resumed = SSL_session_reused(ssl) == 1;
  completion.retried = SSL_used_hello_retry_request(ssl) == 1;
  completion.ech_accepted = SSL_ech_accepted(ssl) == 1;
  const uint8_t *protocol;
  unsigned protocol_len;
  SSL_get0_alpn_selected(ssl, &protocol, &protocol_len);
  if (!attach_data(&completion, protocol, protocol_len)) {
    fail(op, PTL_E_NOMEM, "out of memory", ENOMEM);
    return;
  }
  stream->tls->settle();
  complete(op, completion);
}

}  // namespace ptl
