#include "tls/layer.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <string.h>

#include <algorithm>
#include <new>
#include <utility>

#include "tls/callbacks.h"

namespace ptl {

namespace {

// The scale of alerts in the library's error reasons (SSL_AD_REASON_OFFSET).
constexpr int kAlertReasons = SSL_AD_REASON_OFFSET;

constexpr uint8_t kRecordAlert = 21;
constexpr uint8_t kRecordHandshake = 22;
constexpr uint8_t kRecordApplicationData = 23;
constexpr size_t kRecordHeader = 5;

int status_of_reason(int reason, bool saw_record) {
  switch (reason) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
      return PTL_E_VERIFY;
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
      return PTL_E_NOT_TLS;
    case SSL_R_WRONG_VERSION_NUMBER:
      return saw_record ? PTL_E_TLS_VERSION : PTL_E_NOT_TLS;
    case SSL_R_UNEXPECTED_RECORD:
    case SSL_R_ENCRYPTED_LENGTH_TOO_LONG:
      return saw_record ? PTL_E_TLS : PTL_E_NOT_TLS;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_INAPPROPRIATE_FALLBACK:
      return PTL_E_TLS_VERSION;
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SHARED_GROUP:
    case SSL_R_NO_COMMON_SIGNATURE_ALGORITHMS:
      return PTL_E_TLS_SHARED;
    case SSL_R_NO_APPLICATION_PROTOCOL:
      return PTL_E_ALPN;
    case SSL_R_WRONG_CIPHER_RETURNED:
    case SSL_R_WRONG_CURVE:
    case SSL_R_UNEXPECTED_EXTENSION:
      return PTL_E_CHOICE;
    case SSL_R_ECH_REJECTED:
      return PTL_E_ECH_REJECTED;
    case SSL_R_KEY_USAGE_BIT_INCORRECT:
      return PTL_E_KEY_USAGE;
    default:
      return PTL_E_TLS;
  }
}

}  // namespace

TlsLayer::~TlsLayer() = default;

std::unique_ptr<TlsLayer> TlsLayer::client(Ref<ptl_client_context> context, const std::string &name,
                                           uint16_t port, const std::vector<uint8_t> &alpn,
                                           const std::vector<uint8_t> &ech_configs, Sink *sink,
                                           std::unique_ptr<TlsLayer> *below) {
  ERR_clear_error();
  bssl::UniquePtr<SSL> ssl = context->new_ssl(name, alpn);
  if (ssl && !ech_configs.empty() &&
      !SSL_set1_ech_config_list(ssl.get(), ech_configs.data(), ech_configs.size())) {
    ssl.reset();
  }
  std::unique_ptr<TlsLayer> layer(new TlsLayer(sink));
  layer->extra_ = std::make_unique<Extra>();
  layer->extra_->name = name;
  if (ssl && !ech_configs.empty()) {
    layer->extra_->wants_ech = true;
    SSL_set_msg_callback(ssl.get(), LayerCallbacks::message);
  }
  if (ssl && context->resumes()) {
    layer->session_key_ = std::make_unique<std::string>(name + ":" + std::to_string(port));
    bssl::UniquePtr<SSL_SESSION> session = context->sessions()->take(*layer->session_key_);
    if (session) layer->offered_session_ = SSL_set_session(ssl.get(), session.get()) == 1;
  }
  layer->client_context_ = std::move(context);
  return layer->attach(std::move(ssl), below) ? std::move(layer) : nullptr;
}

std::unique_ptr<TlsLayer> TlsLayer::server(Ref<ptl_server_context> context,
                                           Ref<ptl_credential> credential, std::string protocol,
                                           Sink *sink, std::unique_ptr<TlsLayer> *below) {
  ERR_clear_error();
  bssl::UniquePtr<SSL_CREDENTIAL> shown = credential->make();
  bssl::UniquePtr<SSL> ssl = shown ? context->new_ssl(shown.get()) : nullptr;
  std::unique_ptr<TlsLayer> layer(new TlsLayer(sink));
  layer->extra_ = std::make_unique<Extra>();
  layer->extra_->protocol = std::move(protocol);
  layer->server_context_ = std::move(context);
  return layer->attach(std::move(ssl), below) ? std::move(layer) : nullptr;
}

bool TlsLayer::out_of_memory() { return ERR_GET_REASON(ERR_peek_error()) == ERR_R_MALLOC_FAILURE; }

bool TlsLayer::attach(bssl::UniquePtr<SSL> ssl, std::unique_ptr<TlsLayer> *below) {
  BIO *bio = ssl ? BIO_new(LayerCallbacks::bio_method()) : nullptr;
  if (bio == nullptr) return false;
  below_ = std::move(*below);
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl.get(), bio, bio);
  ssl_ = std::move(ssl);
  return true;
}

TlsLayer *TlsLayer::lowest() { return below_ ? below_->lowest() : this; }

void TlsLayer::supply(const uint8_t *bytes, size_t size) {
  TlsLayer *layer = lowest();
  layer->chunk_ = bytes;
  layer->chunk_len_ = size;
}

bool TlsLayer::keep_rest() {
  TlsLayer *layer = lowest();
  bool kept = layer->received_.append(layer->chunk_, layer->chunk_len_);
  layer->chunk_len_ = 0;
  return kept;
}

bool TlsLayer::drop_rest() {
  TlsLayer *layer = lowest();
  const bool some = layer->chunk_len_ != 0;
  layer->chunk_len_ = 0;
  return some;
}

bool TlsLayer::has_received() const {
  return !received_.empty() || (below_ && below_->has_received());
}

void TlsLayer::note_read(const uint8_t *bytes, size_t size) {
  if (!handshaken_ && !is_client()) extra_->watch.feed(bytes, size);
  if (saw_byte_) return;
  saw_byte_ = true;
  saw_record_ = bytes[0] == kRecordAlert || bytes[0] == kRecordHandshake;
}

// A server has shown its certificate once it wrote an encrypted record (TLS 1.3) or, in TLS 1.2, any handshake
// record: everything before Certificate goes out in the same flight.
void TlsLayer::note_flight(const uint8_t *bytes, size_t size) {
  const bool tls13 = SSL_version(ssl_.get()) >= TLS1_3_VERSION;
  const uint8_t tells = tls13 ? kRecordApplicationData : kRecordHandshake;
  while (size >= kRecordHeader) {
    if (bytes[0] == tells) flight_sent_ = true;
    size_t step = kRecordHeader + (static_cast<size_t>(bytes[3]) << 8 | bytes[4]);
    if (step > size) return;
    bytes += step;
    size -= step;
  }
}

int TlsLayer::read_below(uint8_t *out, size_t size) {
  if (!received_.empty()) {
    size_t n = std::min(size, received_.size());
    memcpy(out, received_.data(), n);
    received_.consume(n);
    note_read(out, n);
    return static_cast<int>(n);
  }
  if (below_) {
    TlsFailure failure;
    int n = below_->read(out, size, &failure);
    if (n < 0) below_closed_ = true;
    if (n == -2) trouble_below_ = true;
    if (n > 0) note_read(out, static_cast<size_t>(n));
    return n;
  }
  size_t n = std::min(size, chunk_len_);
  if (n == 0) return 0;
  memcpy(out, chunk_, n);
  chunk_ += n;
  chunk_len_ -= n;
  note_read(out, n);
  return static_cast<int>(n);
}

bool TlsLayer::keep_first_flight() {
  first_flight_.reset(new (std::nothrow) std::string());
  return first_flight_ != nullptr;
}

std::string TlsLayer::take_first_flight() {
  if (!first_flight_) return "";
  std::string flight = std::move(*first_flight_);
  first_flight_.reset();
  return flight;
}

// A hello that was not kept whole is not kept at all.
void TlsLayer::keep_flight(const uint8_t *bytes, size_t size) try {
  first_flight_->append(reinterpret_cast<const char *>(bytes), size);
} catch (const std::bad_alloc &) {
  first_flight_.reset();
}

bool TlsLayer::write_below(const uint8_t *bytes, size_t size) {
  if (!handshaken_ && extra_->wants_ech && !extra_->encrypted_hello) {
    extra_->would_be_clear = true;  // BoringSSL goes on without ECH where it cannot be used; we do not
    return false;
  }
  if (first_flight_ && !saw_byte_) keep_flight(bytes, size);
  if (!handshaken_ && !flight_sent_) note_flight(bytes, size);
  const bool written = below_ ? below_->write(bytes, size) : sink_->emit(bytes, size);
  if (!written) short_of_memory_ = below_ ? below_->short_of_memory_ : true;
  return written;
}

TlsLayer::Step TlsLayer::handshake(TlsFailure *out_failure) {
  try {
    return step(out_failure);
  } catch (const std::bad_alloc &) {
    ERR_clear_error();
    out_failure->status = PTL_E_NOMEM;
    out_failure->detail.clear();
    return Step::kFailed;
  }
}

TlsLayer::Step TlsLayer::step(TlsFailure *out_failure) {
  ERR_clear_error();
  int result = SSL_do_handshake(ssl_.get());
  if (result == 1) {
    handshaken_ = true;
    extra_.reset();
    return Step::kDone;
  }
  if (extra_->would_be_clear) {
    ERR_clear_error();
    out_failure->status = PTL_E_ECH_UNUSABLE;
    out_failure->detail = "ECH cannot be used with what is offered: it needs TLS 1.3 and a config of a known kind";
    return Step::kFailed;
  }
  int error = SSL_get_error(ssl_.get(), result);
  if (error == SSL_ERROR_ZERO_RETURN) {
    out_failure->status = PTL_E_CLOSED;
    out_failure->detail = "the other end said goodbye during the handshake";
    return Step::kFailed;
  }
  if (error == SSL_ERROR_WANT_READ && !below_closed_) return Step::kWant;
  if (error == SSL_ERROR_WANT_READ) {
    out_failure->status = trouble_below_ ? PTL_E_TLS : PTL_E_CLOSED;
    out_failure->detail = "the connection below ended during the handshake";
    return Step::kFailed;
  }
  explain(out_failure);
  return Step::kFailed;
}

void TlsLayer::explain(TlsFailure *out) {
  if (short_of_memory_) {
    out->status = PTL_E_NOMEM;
    out->alert = sent_alert_;
    ERR_clear_error();
    return;
  }
  const char *data = nullptr;
  int flags = 0;
  uint32_t error = ERR_peek_error_line_data(nullptr, nullptr, &data, &flags);
  int reason = ERR_GET_LIB(error) == ERR_LIB_SSL ? ERR_GET_REASON(error) : 0;
  const char *text = error != 0 ? ERR_reason_error_string(error) : nullptr;
  if (reason >= kAlertReasons) {
    out->status = PTL_E_ALERT;
    out->alert = reason - kAlertReasons;
    out->detail = SSL_alert_desc_string_long(out->alert);
  } else {
    out->status = out_of_memory() ? PTL_E_NOMEM : status_of_reason(reason, saw_record_);
    out->alert = sent_alert_;
    out->detail = text != nullptr ? text : "TLS failed";
    if ((flags & ERR_FLAG_STRING) != 0 && data[0] != '\0') out->detail += std::string(" (") + data + ")";
    if (out->status == PTL_E_ECH_REJECTED) {
      const uint8_t *configs;
      size_t configs_len;
      SSL_get0_ech_retry_configs(ssl_.get(), &configs, &configs_len);
      out->ech_retry_configs.assign(configs, configs + configs_len);
    }
    if (out->status == PTL_E_VERIFY && extra_) {
      out->verify_error = extra_->verdict.error;
      out->detail = extra_->verdict.detail;
    }
    const bool sent_clear = extra_ && flight_sent_ && !is_client() && extra_->watch.alert() != 0;
    if (out->status == PTL_E_TLS && sent_clear) {
      out->status = PTL_E_ALERT;
      out->alert = extra_->watch.alert();
      out->detail = SSL_alert_desc_string_long(out->alert);
    }
  }
  ERR_clear_error();
}

void TlsLayer::settle() {
  SSL_shed_session(ssl_.get());  // without memory for that it keeps what it has
  ERR_clear_error();
}

void TlsLayer::rest() {
  resting_ = resting_ || (handshaken_ && SSL_rest(ssl_.get()) == 1);
  if (below_) below_->rest();
}

bool TlsLayer::wake() {
  if (!resting_) return true;
  ERR_clear_error();
  resting_ = SSL_wake(ssl_.get()) != 1;
  short_of_memory_ = short_of_memory_ || resting_;
  return !resting_;
}

int TlsLayer::read(uint8_t *out, size_t size, TlsFailure *out_failure) try {
  if (!wake()) throw std::bad_alloc();
  int n = SSL_read(ssl_.get(), out, static_cast<int>(size));
  if (n > 0) return n;
  switch (SSL_get_error(ssl_.get(), n)) {
    case SSL_ERROR_WANT_READ:
      if (!below_closed_) return 0;
      out_failure->detail = "the connection below ended without close_notify";
      out_failure->status = PTL_E_CLOSED;
      return -2;
    case SSL_ERROR_ZERO_RETURN:
      return -1;
    default:
      explain(out_failure);
      return -2;
  }
} catch (const std::bad_alloc &) {  // for its sentence
  ERR_clear_error();
  out_failure->status = PTL_E_NOMEM;
  out_failure->detail.clear();
  return -2;
}

bool TlsLayer::write(const uint8_t *bytes, size_t size) {
  if (!wake()) return false;
  while (size != 0) {
    int n = SSL_write(ssl_.get(), bytes, static_cast<int>(std::min<size_t>(size, 1 << 20)));
    if (n <= 0) {
      short_of_memory_ = short_of_memory_ || out_of_memory();
      ERR_clear_error();
      return false;
    }
    bytes += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

void TlsLayer::close_notify() {
  if (!handshaken_ || said_goodbye_) return;
  said_goodbye_ = true;
  if (!wake()) return;
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

void TlsLayer::fatal_alert(uint8_t alert) {
  said_goodbye_ = true;
  sent_alert_ = alert;
  if (!wake()) return;
  SSL_send_fatal_alert(ssl_.get(), alert);
  ERR_clear_error();
}

}  // namespace ptl
