// The C ABI of the engine proper. Exceptions stop here.
#include <exception>
#include <new>

#include "base/text.h"
#include "engine/engine.h"
#include "polytls/native.h"

int ptl_abi_version(void) { return PTL_ABI_VERSION; }

const char *ptl_versions(void) { return "BoringSSL (grpcio 1.85.1)"; }

const char *ptl_status_name(int status) {
  switch (status) {
    case PTL_OK: return "ok";
    case PTL_E_CANCELLED: return "cancelled";
    case PTL_E_TIMEOUT: return "timeout";
    case PTL_E_STALE: return "stale";
    case PTL_E_BUSY: return "busy";
    case PTL_E_INVALID: return "invalid";
    case PTL_E_NOMEM: return "nomem";
    case PTL_E_SHUTDOWN: return "shutdown";
    case PTL_E_CLOSED: return "closed";
    case PTL_E_RESET: return "reset";
    case PTL_E_IO: return "io";
    case PTL_E_REFUSED: return "refused";
    case PTL_E_UNREACHABLE: return "unreachable";
    case PTL_E_TOO_LARGE: return "too_large";
    case PTL_E_MALFORMED: return "malformed";
    case PTL_E_NOT_TLS: return "not_tls";
    case PTL_E_ALERT: return "alert";
    case PTL_E_VERIFY: return "verify";
    case PTL_E_TLS_VERSION: return "tls_version";
    case PTL_E_TLS_SHARED: return "tls_shared";
    case PTL_E_ALPN: return "alpn";
    case PTL_E_KEY_USAGE: return "key_usage";
    case PTL_E_TLS: return "tls";
    case PTL_E_IDLE: return "idle";
    case PTL_E_LIFETIME: return "lifetime";
    case PTL_E_CHOICE: return "choice";
    case PTL_E_ECH_REJECTED: return "ech_rejected";
    case PTL_E_ECH_UNUSABLE: return "ech_unusable";
    case PTL_E_UNEXPECTED: return "unexpected";
    case PTL_E_NO_SOCKET: return "no_socket";
    default: return "unknown";
  }
}

ptl_engine *ptl_engine_new(uint32_t num_loops, uint32_t max_streams, char *err, size_t err_len) {
  try {
    std::string error;
    std::unique_ptr<ptl::Engine> engine = ptl::Engine::start(num_loops, max_streams, &error);
    if (engine) return new ptl_engine{std::move(engine)};
    ptl::put_text(err, err_len, error);
  } catch (const std::exception &error) {
    ptl::put_text(err, err_len, error.what());
  }
  return nullptr;
}

void ptl_engine_stop(ptl_engine *engine) { engine->engine->stop(); }

void ptl_engine_free(ptl_engine *engine) { delete engine; }

int ptl_engine_eventfd(const ptl_engine *engine) { return engine->engine->completions()->eventfd(); }

uint32_t ptl_engine_num_loops(const ptl_engine *engine) { return engine->engine->num_loops(); }

int ptl_listen(ptl_engine *engine, const char *ip, uint16_t port, int backlog, uint32_t head_max,
               uint32_t head_ms, uint64_t tag, uint32_t *out_listener, uint16_t *out_port,
               int *out_errno) {
  try {
    return engine->engine->listen(ip, port, backlog, head_max, head_ms, tag, out_listener, out_port,
                                  out_errno);
  } catch (const std::bad_alloc &) {
    return PTL_E_NOMEM;
  }
}

int ptl_listen_on(ptl_engine *engine, int fd, uint32_t head_max, uint32_t head_ms, uint64_t tag,
                  uint32_t *out_listener, int *out_errno) {
  ptl::Fd owned(fd);
  try {
    return engine->engine->listen_on(std::move(owned), head_max, head_ms, tag, out_listener, out_errno);
  } catch (const std::bad_alloc &) {
    return PTL_E_NOMEM;
  }
}

void ptl_unlisten(ptl_engine *engine, uint32_t listener) {
  try {
    engine->engine->unlisten(listener);
  } catch (const std::bad_alloc &) {  // nothing to unlisten with; the engine's stop will do it
  }
}

int ptl_submit(ptl_engine *engine, const ptl_op *ops, size_t num_ops) {
  try {
    return engine->engine->submit(ops, num_ops);
  } catch (const std::bad_alloc &) {
    return PTL_E_NOMEM;
  }
}

void ptl_cancel(ptl_engine *engine, ptl_stream stream, uint64_t tag) {
  try {
    engine->engine->cancel(stream, tag);
  } catch (const std::bad_alloc &) {  // the operation goes on until its deadline
  }
}

size_t ptl_drain(ptl_engine *engine, ptl_completion *out, size_t max) {
  return engine->engine->completions()->drain(out, max);
}

void ptl_engine_stats(ptl_engine *engine, ptl_stats *out) { engine->engine->stats(out); }
