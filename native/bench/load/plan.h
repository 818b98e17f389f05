// What the load generator was asked for, and what each tunnel of it shall do.
//
// A tunnel's plan follows from the seed and the tunnel's number alone, so a run can be repeated, and a failure
// found in it looked for again.
#ifndef POLYTLS_BENCH_LOAD_PLAN_H
#define POLYTLS_BENCH_LOAD_PLAN_H

#include <netinet/in.h>
#include <stdint.h>

#include <string>
#include <utility>
#include <vector>

#include "common/options.h"

namespace bench {

// How a tunnel behaves. Each ends "as meant" or has failed; a reset that was meant is no failure.
enum class Behaviour {
  kGet,          // requests one after another, then a close
  kPost,         // an upload; the origin says what it got
  kEcho,         // an upload and a download at once
  kPingpong,     // small messages, to and fro
  kHold,         // one request, then open until all are; another request, then a close
  kHalfClose,    // a request, then the client's end; the answer still has to come whole
  kSlowRead,     // a small receive buffer, read in small pieces with pauses
  kSlowWrite,    // an upload in small pieces with pauses
  kReset,        // RST by the client while a body comes
  kResetEarly,   // RST by the client somewhere between connecting and the handshake's end
  kHelloCut,     // part of a ClientHello, then the client's end
  kGarbage,      // after CONNECT, bytes that are no TLS
  kRejectLeaf,   // the client refuses the certificate that it is shown
  kOriginClose,  // a body that the origin's end delimits
  kOriginCut,    // the origin ends in the middle, without close_notify
  kOriginReset,  // the origin resets in the middle
  kBadChain,     // the origin's certificate is not to be trusted: the proxy has to refuse
  kSniMismatch,  // the hello names another host than the CONNECT: an alert has to come
  kAlpnMismatch, // the hello offers a protocol that nobody else speaks: an alert has to come
  kOriginAlert,  // the origin answers the hello with an alert: the proxy has to say so
  kOriginPlain,  // the origin speaks no TLS (--plain-port): the proxy has to say so
  kOriginHangup, // the origin resets instead of a handshake (--rude-port): the proxy has to say so
  kNotConnect,   // another method: 405 has to come
  kBadHead,      // no request head: 400 has to come
  kNoName,       // a name without an address: 502 has to come
  kRefused,      // a port where nobody listens (--refusing-port): 502 has to come
  kHole,         // a port that does not answer (--hole-port): 504 has to come
  kLeave,        // RST by the client while the proxy connects to --hole-port
};

// behaviours returns all of them with their names, in the order above.
const std::vector<std::pair<Behaviour, std::string>> &behaviours();
const std::string &name_of(Behaviour behaviour);
// upstream_fails: the proxy has to refuse, by an alert or by a page that says why.
bool upstream_fails(Behaviour behaviour);

struct Settings {
  bool through_proxy = true, compare_direct = false;
  sockaddr_in proxy{}, origin{};
  std::string origin_text;
  bool connect_by_name = false;
  std::string name;      // server name; %d is replaced by a number
  int64_t names = 0;     // so many different ones; 0: each tunnel another
  int64_t first_name = 0;
  std::vector<std::pair<Behaviour, int64_t>> mix;  // with weights
  int64_t total_weight = 0;
  std::vector<uint64_t> sizes;
  std::vector<std::string> connect_fields;
  int64_t requests = 1, streams = 1, rounds = 100, message = 1024, slow_bytes = 4096, slow_ms = 5;
  int64_t count = 0, at_once = 1, warmup = 0;
  double seconds = 0, max_seconds = 0, timeout = 0, hold_seconds = 0;
  bool hold_stdin = false, h2 = false, no_alpn = false, tls12 = false, resume = false;
  std::string groups, ca;
  uint64_t seed = 1;
  int64_t body_seed = -1;  // of every body; below 0: each tunnel another
  bool label = false;      // names begin with the behaviour's
  int64_t plain_port = 0, rude_port = 0, refusing_port = 0, hole_port = 0;
};

// read_settings takes all of the command line. It answers --help, and dies with a sentence on what cannot be.
Settings read_settings(Options *options);

struct Plan {
  int64_t number = 0;
  Behaviour behaviour = Behaviour::kGet;
  bool through_proxy = true;
  std::string name, connect_to;
  uint64_t size = 0, seed = 0;
  uint64_t chance = 0;  // whatever else has to be chosen
  std::string status;   // the first digits of the answer to CONNECT that is meant
};

Plan plan_of(const Settings &settings, int64_t number);

}  // namespace bench

#endif
