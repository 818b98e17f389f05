#include "load/plan.h"

#include <stdlib.h>

#include "common/net.h"
#include "common/pattern.h"

namespace bench {
namespace {

uint64_t read_size(const std::string &text) {
  char *end = nullptr;
  uint64_t size = strtoull(text.c_str(), &end, 10);
  const std::string unit = end;
  if (unit == "k") size <<= 10;
  else if (unit == "m") size <<= 20;
  else if (!unit.empty() || end == text.c_str()) die("--sizes takes numbers of bytes, as 1024,64k,16m, not " + text);
  return size;
}

void read_mix(const std::string &text, Settings *settings) {
  for (const std::string &part : split(text, ',')) {
    size_t equals = part.find('=');
    std::string name = part.substr(0, equals);
    int64_t weight = equals == std::string::npos ? 1 : atoll(part.c_str() + equals + 1);
    bool known = false;
    for (const auto &[behaviour, its_name] : behaviours()) {
      if (its_name != name) continue;
      settings->mix.emplace_back(behaviour, weight);
      settings->total_weight += weight;
      known = true;
    }
    if (!known || weight < 1) die("--mix takes behaviours with weights, as get=70,reset=5, not " + part);
  }
  if (settings->mix.empty()) die("--mix needs a behaviour");
}

std::string all_names() {
  std::string all;
  for (const auto &[behaviour, name] : behaviours()) all += (all.empty() ? "" : ", ") + name;
  return all;
}

// The names of behaviours that the origin, or who resolves names, knows by their domain; null: --name.
const char *own_domain(Behaviour behaviour) {
  switch (behaviour) {
    case Behaviour::kBadChain: return ".bad.test";
    case Behaviour::kOriginAlert: return ".alert.test";
    case Behaviour::kNoName: return ".nowhere.test";
    default: return nullptr;
  }
}

int64_t own_port(const Settings &settings, Behaviour behaviour) {
  switch (behaviour) {
    case Behaviour::kOriginPlain: return settings.plain_port;
    case Behaviour::kOriginHangup: return settings.rude_port;
    case Behaviour::kRefused: return settings.refusing_port;
    case Behaviour::kHole:
    case Behaviour::kLeave: return settings.hole_port;
    default: return 0;
  }
}

const char *meant_status(Behaviour behaviour) {
  switch (behaviour) {
    case Behaviour::kNotConnect: return "405";
    case Behaviour::kBadHead: return "400";
    case Behaviour::kNoName:
    case Behaviour::kRefused: return "502";
    case Behaviour::kHole: return "504";
    default: return "2";
  }
}

}  // namespace

const std::vector<std::pair<Behaviour, std::string>> &behaviours() {
  static const std::vector<std::pair<Behaviour, std::string>> all = {
      {Behaviour::kGet, "get"},
      {Behaviour::kPost, "post"},
      {Behaviour::kEcho, "echo"},
      {Behaviour::kPingpong, "pingpong"},
      {Behaviour::kHold, "hold"},
      {Behaviour::kHalfClose, "half-close"},
      {Behaviour::kSlowRead, "slow-read"},
      {Behaviour::kSlowWrite, "slow-write"},
      {Behaviour::kReset, "reset"},
      {Behaviour::kResetEarly, "reset-early"},
      {Behaviour::kHelloCut, "hello-cut"},
      {Behaviour::kGarbage, "garbage"},
      {Behaviour::kRejectLeaf, "reject-leaf"},
      {Behaviour::kOriginClose, "origin-close"},
      {Behaviour::kOriginCut, "origin-cut"},
      {Behaviour::kOriginReset, "origin-reset"},
      {Behaviour::kBadChain, "bad-chain"},
      {Behaviour::kSniMismatch, "sni-mismatch"},
      {Behaviour::kAlpnMismatch, "alpn-mismatch"},
      {Behaviour::kOriginAlert, "origin-alert"},
      {Behaviour::kOriginPlain, "origin-plain"},
      {Behaviour::kOriginHangup, "origin-hangup"},
      {Behaviour::kNotConnect, "not-connect"},
      {Behaviour::kBadHead, "bad-head"},
      {Behaviour::kNoName, "no-name"},
      {Behaviour::kRefused, "refused"},
      {Behaviour::kHole, "hole"},
      {Behaviour::kLeave, "leave"},
  };
  return all;
}

const std::string &name_of(Behaviour behaviour) { return behaviours()[static_cast<size_t>(behaviour)].second; }

bool upstream_fails(Behaviour behaviour) {
  return behaviour == Behaviour::kBadChain || behaviour == Behaviour::kOriginAlert ||
         behaviour == Behaviour::kOriginPlain || behaviour == Behaviour::kOriginHangup;
}

Settings read_settings(Options *options) {
  Settings made;
  std::string proxy = options->text("proxy", "none", "IPV4:PORT of the proxy, or none");
  made.origin_text = options->text("origin", "", "IPV4:PORT of the origin");
  made.compare_direct = options->flag("compare-direct", "every second tunnel goes past the proxy");
  made.connect_by_name = options->flag("connect-by-name", "CONNECT names the server name, not the address");
  std::string fields = options->text("connect-field", "", "a header field for CONNECT, as Name: value");
  made.name = options->text("name", "origin.test", "server name; %d in it becomes a number");
  made.names = options->number("names", 0, "how many different numbers; 0: a new one for each tunnel");
  made.first_name = options->number("first-name", 0, "the first number");
  std::string mix =
      options->text("mix", "get", "behaviours with weights, as get=70,reset=5; there are " + all_names());
  std::string sizes = options->text("sizes", "1024", "body sizes to choose from, as 0,1024,64k,16m");
  made.requests = options->number("requests", 1, "requests of a tunnel, one after another");
  made.streams = options->number("streams", 1, "HTTP/2: streams of a tunnel, at once");
  made.rounds = options->number("rounds", 100, "pingpong: messages of a tunnel");
  made.message = options->number("message", 1024, "pingpong: bytes of a message");
  made.slow_bytes = options->number("slow-bytes", 4096, "slow-read, slow-write: bytes of a piece");
  made.slow_ms = options->number("slow-ms", 5, "slow-read, slow-write: pause after a piece");
  made.count = options->number("count", 1000000000, "tunnels in all");
  made.at_once = options->number("at-once", 1, "tunnels at a time");
  made.warmup = options->number("warmup", 0, "tunnels before that are not counted");
  made.seconds = options->real("seconds", 0, "begin no tunnel after so many; 0: until the count is reached");
  made.max_seconds = options->real("max-seconds", 600, "what is open then has failed");
  made.timeout = options->real("timeout", 30, "without progress for so long, a tunnel has failed");
  made.hold_seconds = options->real("hold-seconds", 2, "hold: how long all are held");
  made.hold_stdin = options->flag("hold-stdin", "hold: until a line on standard input instead");
  std::string alpn = options->text("alpn", "h1", "h1, h2 or none");
  made.tls12 = options->flag("tls12", "TLS 1.2 at most");
  made.resume = options->flag("resume", "offer the session of the same name before");
  made.groups = options->text("groups", "X25519", "key exchange groups of the client");
  made.ca = options->text("ca", "", "certificates to trust; without, the client takes any");
  made.body_seed = options->number("body-seed", -1, "of every body; below 0: each tunnel another");
  made.label = options->flag("label", "names begin with the behaviour's: get-17.origin.test");
  made.plain_port = options->number("plain-port", 0, "origin-plain: where the origin speaks no TLS");
  made.rude_port = options->number("rude-port", 0, "origin-hangup: where the origin resets");
  made.refusing_port = options->number("refusing-port", 0, "refused: where nobody listens");
  made.hole_port = options->number("hole-port", 0, "hole, leave: where nobody answers");
  made.seed = static_cast<uint64_t>(options->number("seed", 1, "of everything that is chosen"));

  options->finish("The load generator. The report is one JSON object, the last line of standard output.");
  made.through_proxy = proxy != "none";
  if (made.through_proxy) made.proxy = parse_address("proxy", proxy);
  made.origin = parse_address("origin", made.origin_text);
  if (!fields.empty()) made.connect_fields.push_back(fields);
  read_mix(mix, &made);
  for (const std::string &size : split(sizes, ',')) made.sizes.push_back(read_size(size));
  if (made.sizes.empty() || made.at_once < 1 || made.streams < 1)
    die("--sizes, --at-once and --streams need at least one");
  if (alpn != "h1" && alpn != "h2" && alpn != "none") die("--alpn is h1, h2 or none, not " + alpn);
  made.h2 = alpn == "h2";
  made.no_alpn = alpn == "none";
  return made;
}

Plan plan_of(const Settings &settings, int64_t number) {
  uint64_t state = settings.seed * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(number);
  Plan plan;
  plan.number = number;
  int64_t at = static_cast<int64_t>(mix(&state) % static_cast<uint64_t>(settings.total_weight));
  for (const auto &[behaviour, weight] : settings.mix) {
    plan.behaviour = behaviour;
    if ((at -= weight) < 0) break;
  }
  plan.size = settings.sizes[mix(&state) % settings.sizes.size()];
  plan.seed = mix(&state) % kPeriod;
  if (settings.body_seed >= 0) plan.seed = static_cast<uint64_t>(settings.body_seed);
  plan.chance = mix(&state);
  plan.through_proxy = settings.through_proxy && !(settings.compare_direct && number % 2 == 0);
  plan.name = settings.name;
  size_t mark = plan.name.find("%d");
  if (mark != std::string::npos) {
    int64_t which = settings.names > 0 ? number % settings.names : number;
    plan.name.replace(mark, 2, std::to_string(settings.first_name + which));
  }
  if (const char *domain = own_domain(plan.behaviour)) plan.name = std::to_string(number % 64) + domain;
  if (settings.label) plan.name = name_of(plan.behaviour) + "-" + plan.name;
  plan.connect_to = settings.origin_text;
  if (settings.connect_by_name) plan.connect_to = plan.name + settings.origin_text.substr(settings.origin_text.rfind(':'));
  if (int64_t port = own_port(settings, plan.behaviour)) plan.connect_to = plan.name + ":" + std::to_string(port);
  plan.status = meant_status(plan.behaviour);
  return plan;
}

}  // namespace bench
