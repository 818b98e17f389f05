// What the proxy's decision needs of a ClientHello, taken out of the bytes of the first records.
//
// The bytes come from a client and may be anything. Nothing is allocated: results point into the input,
// except where the handshake message spans records, when the caller's |scratch| holds it whole.
#ifndef POLYTLS_SRC_HELLO_PARSE_H
#define POLYTLS_SRC_HELLO_PARSE_H

#include <stddef.h>
#include <stdint.h>

#include <vector>

namespace ptl {

// As ServerHello.sni lengths are bounded by their two length bytes, so is every field here.
struct HelloInfo {
  const uint8_t *sni = nullptr;
  size_t sni_len = 0;
  bool has_sni = false;
  const uint8_t *alpn = nullptr;  // wire form, without the outer length
  size_t alpn_len = 0;
  bool has_alpn = false;
  uint16_t max_version = 0;  // the highest offered that is not GREASE
  bool ecdsa_ok = false;     // an ECDSA P-256 certificate can be used
  size_t records_len = 0;    // bytes of the records that carry the hello
};

enum class HelloStatus {
  kComplete,
  kMore,       // nothing wrong so far, but not all there
  kNotTls,     // does not begin like a TLS handshake
  kMalformed,  // begins like one, and is none
  kTooLarge,   // says that it is longer than any that could be answered
};

// parse_hello reads a ClientHello from the first of |in_len| bytes at |in| (RFC 8446 §4.1.2 and §5.1; the
// message may be cut into several records).
HelloStatus parse_hello(const uint8_t *in, size_t in_len, std::vector<uint8_t> *scratch,
                        HelloInfo *out);

}  // namespace ptl

#endif
