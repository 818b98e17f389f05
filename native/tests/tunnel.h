// Connections through an engine, set up to where a test becomes interesting.
#ifndef POLYTLS_TESTS_TUNNEL_H
#define POLYTLS_TESTS_TUNNEL_H

#include <stdint.h>

#include <string>

#include "engine_driver.h"
#include "lab.h"
#include "operations.h"
#include "peer.h"

namespace test {

// A client whose head was read.
struct Client {
  Peer peer;
  ptl_stream stream;
};

// accept_client connects to |port|, where |engine| listens. The client sends |after_head| with its head.
Client accept_client(EngineDriver *engine, uint16_t port, const std::string &after_head = "",
                     int receive_bytes = 0);

// A client, an origin, and the engine's streams to both.
struct Tunnel {
  Peer client;
  Peer origin;
  ptl_stream stream = 0;
  ptl_stream other = 0;
};

struct TunnelSpec {
  bool tls = false;
  uint16_t version = TLS1_3_VERSION;  // of both sides, where TLS
  int receive_bytes = 0;              // of both peers' sockets; 0: the kernel's default
  std::string after_head = "";        // plain: what the client sends with its head
};

// open_tunnel connects both sides and, where TLS, shakes hands with both: upstream first, as the proxy does.
Tunnel open_tunnel(EngineDriver *engine, uint16_t port, const TunnelSpec &spec = TunnelSpec());

}  // namespace test

#endif
