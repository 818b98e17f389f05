#include "origin/route.h"

#include <stdlib.h>

#include <map>
#include <vector>

#include "common/options.h"

namespace bench {

Route route_of(const std::string &path) {
  static const std::map<std::string, Route::Kind> kinds = {
      {"bytes", Route::kBytes}, {"close", Route::kClose}, {"cut", Route::kCut},       {"reset", Route::kReset},
      {"sink", Route::kSink},   {"echo", Route::kEcho},   {"mirror", Route::kMirror},
  };
  std::vector<std::string> parts = split(path, '/');
  Route route;
  auto found = parts.empty() ? kinds.end() : kinds.find(parts[0]);
  if (found == kinds.end()) return route;
  route.kind = found->second;
  size_t next = 1;
  auto number = [&] { return next < parts.size() ? strtoull(parts[next++].c_str(), nullptr, 10) : 0; };
  if (route.kind != Route::kSink && route.kind != Route::kEcho) route.size = number();
  route.seed = number();
  return route;
}

}  // namespace bench
