// What a path asks the origin for. Numbers in it are sizes and seeds (see pattern.h).
//
//   GET  /bytes/SIZE/SEED   a body with Content-Length
//   GET  /close/SIZE/SEED   a body that the end of the connection delimits
//   GET  /cut/SIZE/SEED     half the announced body, then FIN without close_notify
//   GET  /reset/SIZE/SEED   half the announced body, then RST
//   POST /sink/SEED         takes a body; answers "SIZE ok", or "SIZE wrong" when a byte differs
//   POST /echo/SEED         answers with the body while it comes
//   GET  /mirror            101, then every byte comes back
#ifndef POLYTLS_BENCH_ORIGIN_ROUTE_H
#define POLYTLS_BENCH_ORIGIN_ROUTE_H

#include <stdint.h>

#include <string>

namespace bench {

struct Route {
  enum Kind { kUnknown, kBytes, kClose, kCut, kReset, kSink, kEcho, kMirror } kind = kUnknown;
  uint64_t size = 0, seed = 0;
};

Route route_of(const std::string &path);

}  // namespace bench

#endif
