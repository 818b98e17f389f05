#include "hello/parse.h"

#include <openssl/bytestring.h>

#include <bitset>

namespace ptl {

namespace {

constexpr uint8_t kRecordHandshake = 22;
constexpr uint8_t kClientHello = 1;
constexpr size_t kRecordHeader = 5;
constexpr size_t kMessageHeader = 4;
constexpr size_t kMaxRecord = 16384;  // RFC 8446 §5.1: plaintext fragments are at most 2^14 bytes
// What BoringSSL takes for a ClientHello. A hello that only the parser accepts would fail after upstream was asked.
constexpr size_t kMaxMessage = 16384;
// Every chunk that comes is parsed from the start. Real clients use one record, careful ones a handful.
constexpr int kMaxRecords = 64;

constexpr uint16_t kTls13 = 0x0304;
constexpr uint16_t kP256 = 0x0017;
constexpr uint16_t kEcdsaP256Sha256 = 0x0403;

constexpr uint16_t kExtServerName = 0;
constexpr uint16_t kExtSupportedGroups = 10;
constexpr uint16_t kExtSignatureAlgorithms = 13;
constexpr uint16_t kExtAlpn = 16;
constexpr uint16_t kExtSupportedVersions = 43;

// TLS 1.2 suites with ECDSA authentication that the server side has.
constexpr uint16_t kEcdsaSuites[] = {0xc009, 0xc00a, 0xc023, 0xc02b, 0xc02c, 0xcca9};

bool is_grease(uint16_t value) {  // RFC 8701 §2
  return (value & 0x0f0f) == 0x0a0a && (value >> 8) == (value & 0xff);
}

struct Offer {
  uint16_t legacy_version = 0;
  bool tls13 = false;
  bool p256 = false;
  bool groups_listed = false;
  bool ecdsa_suite = false;
  bool ecdsa_sigalg = false;
};

bool read_server_name(CBS body, HelloInfo *out) {  // RFC 6066 §3
  CBS names;
  if (!CBS_get_u16_length_prefixed(&body, &names) || CBS_len(&body) != 0) return false;
  while (CBS_len(&names) != 0) {
    uint8_t type;
    CBS name;
    if (!CBS_get_u8(&names, &type) || !CBS_get_u16_length_prefixed(&names, &name)) return false;
    if (type != 0) continue;
    if (out->has_sni || CBS_len(&name) == 0) return false;
    out->has_sni = true;
    out->sni = CBS_data(&name);
    out->sni_len = CBS_len(&name);
  }
  return true;
}

bool read_alpn(CBS body, HelloInfo *out) {  // RFC 7301 §3.1
  CBS list;
  if (!CBS_get_u16_length_prefixed(&body, &list) || CBS_len(&body) != 0 || CBS_len(&list) == 0) {
    return false;
  }
  out->has_alpn = true;
  out->alpn = CBS_data(&list);
  out->alpn_len = CBS_len(&list);
  while (CBS_len(&list) != 0) {
    CBS name;
    if (!CBS_get_u8_length_prefixed(&list, &name) || CBS_len(&name) == 0) return false;
  }
  return true;
}

bool read_versions(CBS body, HelloInfo *out, Offer *offer) {  // RFC 8446 §4.2.1
  CBS list;
  if (!CBS_get_u8_length_prefixed(&body, &list) || CBS_len(&body) != 0) return false;
  uint16_t best = 0;
  while (CBS_len(&list) != 0) {
    uint16_t version;
    if (!CBS_get_u16(&list, &version)) return false;
    if (is_grease(version)) continue;
    if (version == kTls13) offer->tls13 = true;
    if (version > best && version <= kTls13) best = version;
  }
  if (best != 0) out->max_version = best;
  return true;
}

bool list_has(CBS body, uint16_t wanted, bool *found) {
  CBS list;
  if (!CBS_get_u16_length_prefixed(&body, &list) || CBS_len(&body) != 0) return false;
  while (CBS_len(&list) != 0) {
    uint16_t value;
    if (!CBS_get_u16(&list, &value)) return false;
    if (value == wanted) *found = true;
  }
  return true;
}

bool read_extensions(CBS extensions, HelloInfo *out, Offer *offer) {
  std::bitset<1 << 16> seen;
  while (CBS_len(&extensions) != 0) {
    uint16_t type;
    CBS body;
    if (!CBS_get_u16(&extensions, &type) || !CBS_get_u16_length_prefixed(&extensions, &body)) {
      return false;
    }
    if (seen[type]) return false;  // RFC 8446 §4.2: none comes twice
    seen[type] = true;
    bool good = true;
    switch (type) {
      case kExtServerName:
        good = read_server_name(body, out);
        break;
      case kExtSupportedGroups:
        offer->groups_listed = true;
        good = list_has(body, kP256, &offer->p256);
        break;
      case kExtSignatureAlgorithms:
        good = list_has(body, kEcdsaP256Sha256, &offer->ecdsa_sigalg);
        break;
      case kExtAlpn:
        good = read_alpn(body, out);
        break;
      case kExtSupportedVersions:
        good = read_versions(body, out, offer);
        break;
      default:
        break;
    }
    if (!good) return false;
  }
  return true;
}

bool read_message(CBS message, HelloInfo *out) {
  Offer offer;
  CBS random, session, suites, compression, extensions;
  if (!CBS_get_u16(&message, &offer.legacy_version) ||
      !CBS_get_bytes(&message, &random, 32) ||
      !CBS_get_u8_length_prefixed(&message, &session) || CBS_len(&session) > 32 ||
      !CBS_get_u16_length_prefixed(&message, &suites) || CBS_len(&suites) < 2 ||
      !CBS_get_u8_length_prefixed(&message, &compression) || CBS_len(&compression) < 1) {
    return false;
  }
  while (CBS_len(&suites) != 0) {
    uint16_t suite;
    if (!CBS_get_u16(&suites, &suite)) return false;
    for (uint16_t ecdsa : kEcdsaSuites) {
      if (suite == ecdsa) offer.ecdsa_suite = true;
    }
  }
  out->max_version = offer.legacy_version;
  if (CBS_len(&message) != 0) {  // TLS 1.2 and before may leave the extensions out
    if (!CBS_get_u16_length_prefixed(&message, &extensions) || CBS_len(&message) != 0 ||
        !read_extensions(extensions, out, &offer)) {
      return false;
    }
  }
  // TLS 1.3 ties the certificate to signature_algorithms alone (RFC 8446 §4.2.3); TLS 1.2 to the suite and,
  // where groups are listed, to the curve as well (RFC 8422 §5.1).
  bool curve_ok = offer.p256 || !offer.groups_listed;
  out->ecdsa_ok = offer.ecdsa_sigalg && (offer.tls13 || (offer.ecdsa_suite && curve_ok));
  return true;
}

}  // namespace

HelloStatus parse_hello(const uint8_t *in, size_t in_len, std::vector<uint8_t> *scratch,
                        HelloInfo *out) {
  *out = HelloInfo();
  size_t at = 0;
  size_t needed = 0;  // bytes of the message with its header, once known
  const uint8_t *message = nullptr;
  size_t have = 0;
  scratch->clear();
  for (int record = 0;; record++) {
    // Say no as early as the bytes allow: a client that speaks something else may wait for an answer.
    if (in_len > at && in[at] != kRecordHandshake) {
      return record == 0 ? HelloStatus::kNotTls : HelloStatus::kMalformed;
    }
    if (in_len > at + 1 && in[at + 1] != 3) {
      return record == 0 ? HelloStatus::kNotTls : HelloStatus::kMalformed;
    }
    if (record == kMaxRecords) return HelloStatus::kMalformed;
    if (in_len - at < kRecordHeader) return HelloStatus::kMore;
    size_t length = static_cast<size_t>(in[at + 3]) << 8 | in[at + 4];
    if (length == 0 || length > kMaxRecord) return HelloStatus::kMalformed;
    const uint8_t *body = in + at + kRecordHeader;
    size_t there = in_len - at - kRecordHeader;
    if (record == 0 && there >= 1 && body[0] != kClientHello) return HelloStatus::kMalformed;
    if (there < length) return HelloStatus::kMore;
    at += kRecordHeader + length;
    if (record == 0) {
      message = body;
      have = length;
    } else {
      if (record == 1) scratch->assign(message, message + have);
      scratch->insert(scratch->end(), body, body + length);
      message = scratch->data();
      have = scratch->size();
    }
    if (have < kMessageHeader) continue;
    needed = kMessageHeader + (static_cast<size_t>(message[1]) << 16 |
                               static_cast<size_t>(message[2]) << 8 | message[3]);
    if (needed > kMaxMessage) return HelloStatus::kTooLarge;
    if (have < needed) continue;
    // Nothing may follow a ClientHello in its record: the next message is the server's.
    if (have > needed) return HelloStatus::kMalformed;
    CBS cbs;
    CBS_init(&cbs, message + kMessageHeader, needed - kMessageHeader);
    if (!read_message(cbs, out)) return HelloStatus::kMalformed;
    out->records_len = at;
    return HelloStatus::kComplete;
  }
}

}  // namespace ptl
