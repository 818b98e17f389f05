// Operations, written down shortly. What they point to must live until they are submitted.
#ifndef POLYTLS_TESTS_OPERATIONS_H
#define POLYTLS_TESTS_OPERATIONS_H

#include <string.h>

#include <string>
#include <vector>

#include "polytls/native.h"

namespace test {

inline ptl_op plain_op(uint32_t kind, ptl_stream stream) {
  ptl_op op;
  memset(&op, 0, sizeof(op));
  op.kind = kind;
  op.stream = stream;
  return op;
}

inline ptl_op limited_op(uint32_t kind, ptl_stream stream, uint32_t limit) {
  ptl_op op = plain_op(kind, stream);
  op.limit = limit;
  return op;
}

inline ptl_op head_op(ptl_stream stream, uint32_t limit) {
  return limited_op(PTL_OP_READ_HEAD, stream, limit);
}
inline ptl_op peek_op(ptl_stream stream, uint32_t limit = 65536) {
  return limited_op(PTL_OP_PEEK_HELLO, stream, limit);
}
inline ptl_op read_op(ptl_stream stream, uint32_t limit) {
  return limited_op(PTL_OP_READ, stream, limit);
}

inline ptl_op write_op(ptl_stream stream, const std::string &bytes) {
  ptl_op op = plain_op(PTL_OP_WRITE, stream);
  op.data = reinterpret_cast<const uint8_t *>(bytes.data());
  op.data_len = bytes.size();
  return op;
}

inline ptl_op close_op(ptl_stream stream, uint32_t flags = 0, uint8_t alert = 0) {
  ptl_op op = plain_op(PTL_OP_CLOSE, stream);
  op.flags = flags;
  op.alert = alert;
  return op;
}

inline ptl_op relay_op(ptl_stream stream, ptl_stream other) {
  ptl_op op = plain_op(PTL_OP_RELAY, stream);
  op.other = other;
  return op;
}

inline ptl_address loopback(uint16_t port, uint8_t last_byte = 1) {
  ptl_address address;
  memset(&address, 0, sizeof(address));
  address.ip[0] = 127;
  address.ip[3] = last_byte;
  address.ip_len = 4;
  address.port = port;
  return address;
}

inline ptl_address loopback6(uint16_t port) {
  ptl_address address;
  memset(&address, 0, sizeof(address));
  address.ip[15] = 1;
  address.ip_len = 16;
  address.port = port;
  return address;
}

inline ptl_op connect_op(ptl_stream stream, const std::vector<ptl_address> &addresses,
                         uint32_t stagger_ms = 250) {
  ptl_op op = plain_op(PTL_OP_CONNECT, stream);
  op.addresses = addresses.data();
  op.num_addresses = addresses.size();
  op.stagger_ms = stagger_ms;
  return op;
}

inline ptl_op connect_tls_op(ptl_stream stream, ptl_client_context *context, const char *name,
                             const std::string &alpn = "") {
  ptl_op op = plain_op(PTL_OP_CONNECT_TLS, stream);
  op.client_context = context;
  op.name = name;
  op.port = 443;
  op.data = reinterpret_cast<const uint8_t *>(alpn.data());
  op.data_len = alpn.size();
  return op;
}

inline ptl_op accept_tls_op(ptl_stream stream, ptl_server_context *context,
                            ptl_credential *credential, const std::string &protocol = "") {
  ptl_op op = plain_op(PTL_OP_ACCEPT_TLS, stream);
  op.server_context = context;
  op.credential = credential;
  op.data = reinterpret_cast<const uint8_t *>(protocol.data());
  op.data_len = protocol.size();
  return op;
}

inline ptl_op linked(ptl_op op) {
  op.flags |= PTL_FLAG_LINK;
  return op;
}
inline ptl_op within(uint32_t deadline_ms, ptl_op op) {
  op.deadline_ms = deadline_ms;
  return op;
}

}  // namespace test

#endif
