#include "engine/engine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>

#include <system_error>

namespace ptl {

namespace {

// By |unlisten|: more than a backlog has by default, and an end where clients come faster than they are accepted.
constexpr int kLastAccepts = 4096;

// A core is left to the thread that decides. With more loops than cores for them, each has less to do at a time, and
// what a tunnel costs goes up by a tenth for the wake-ups (docs/performance.md).
uint32_t default_loops() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    int cores = CPU_COUNT(&set);
    if (cores > 1) return static_cast<uint32_t>(cores - 1);
  }
  return 1;
}

bool is_stream_op(uint32_t kind) { return kind > PTL_OP_ACCEPT && kind <= PTL_OP_CLOSE; }

// wire_pairs says whether |data| is pairs of length-prefixed texts.
bool wire_pairs(const uint8_t *data, size_t size) {
  size_t texts = 0;
  for (size_t at = 0; at < size; at += 1 + data[at], texts++) {
    if (size - at < size_t{1} + data[at]) return false;
  }
  return texts % 2 == 0;
}

bool valid(const ptl_op &op) {
  if (!is_stream_op(op.kind)) return false;
  if (op.kind == PTL_OP_CONNECT_TLS) return op.client_context != nullptr && op.name != nullptr;
  if (op.kind == PTL_OP_ACCEPT_TLS) {
    if (op.server_context == nullptr || op.credential == nullptr) return false;
    return op.other == 0 ? op.data_len < 256 : wire_pairs(op.data, op.data_len);
  }
  bool limited = op.kind == PTL_OP_READ_HEAD || op.kind == PTL_OP_PEEK_HELLO || op.kind == PTL_OP_READ;
  return !limited || op.limit != 0;
}

bool needs_given(const ptl_op &op) {
  switch (op.kind) {
    case PTL_OP_WRITE:
    case PTL_OP_CONNECT:
    case PTL_OP_CONNECT_TLS:
    case PTL_OP_ACCEPT_TLS:
      return true;
    default:
      return op.expect != 0;
  }
}

std::unique_ptr<Given> copy_given(const ptl_op &from) {
  auto given = std::make_unique<Given>();
  if (from.data_len != 0) given->data.assign(from.data, from.data + from.data_len);
  if (from.ech_configs_len != 0) {
    given->ech_configs.assign(from.ech_configs, from.ech_configs + from.ech_configs_len);
  }
  if (from.num_addresses != 0) {
    given->addresses.assign(from.addresses, from.addresses + from.num_addresses);
  }
  if (from.name != nullptr) given->name = from.name;
  given->client_context = Ref<ptl_client_context>::share(from.client_context);
  given->server_context = Ref<ptl_server_context>::share(from.server_context);
  given->credential = Ref<ptl_credential>::share(from.credential);
  return given;
}

std::unique_ptr<Op> copy(const ptl_op &from) {
  auto op = std::make_unique<Op>();
  op->kind = from.kind;
  op->flags = from.flags;
  op->tag = from.tag;
  op->stream = from.stream;
  if (from.kind == PTL_OP_RELAY || from.kind == PTL_OP_ACCEPT_TLS) op->other = from.other;
  op->deadline_ms = from.deadline_ms;
  op->limit = from.limit;
  op->stagger_ms = from.stagger_ms;
  op->idle_ms = from.idle_ms;
  op->half_idle_ms = from.half_idle_ms;
  op->port = from.port;
  op->alert = from.alert;
  op->expect = from.expect;
  if (needs_given(from)) op->given = copy_given(from);
  return op;
}

// copy_chain returns copies of |ops[*i]| and what is linked behind it. |*i| is moved to the last of them.
std::unique_ptr<Op> copy_chain(const ptl_op *ops, size_t *i) {
  std::unique_ptr<Op> first = copy(ops[*i]);
  Op *last = first.get();
  while ((ops[*i].flags & PTL_FLAG_LINK) != 0) {
    last->linked = copy(ops[++*i]);
    last = last->linked.get();
  }
  return first;
}

// closes_alone says whether |op| is a CLOSE of which nobody is told, and nothing follows it.
bool closes_alone(const ptl_op &op) {
  return op.kind == PTL_OP_CLOSE && op.tag == 0 && (op.flags & PTL_FLAG_LINK) == 0;
}

// open_listener returns a listening socket, or an error number in |*out_errno|.
Fd open_listener(const char *ip, uint16_t port, int backlog, uint16_t *out_port, int *out_errno) {
  sockaddr_storage address{};
  socklen_t length;
  auto *in = reinterpret_cast<sockaddr_in *>(&address);
  auto *in6 = reinterpret_cast<sockaddr_in6 *>(&address);
  if (inet_pton(AF_INET, ip, &in->sin_addr) == 1) {
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    length = sizeof(*in);
  } else if (inet_pton(AF_INET6, ip, &in6->sin6_addr) == 1) {
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    length = sizeof(*in6);
  } else {
    *out_errno = EINVAL;
    return Fd();
  }
  Fd fd(socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  int one = 1;
  if (!fd.ok() || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
      bind(fd.get(), reinterpret_cast<sockaddr *>(&address), length) != 0 ||
      ::listen(fd.get(), backlog) != 0 ||
      getsockname(fd.get(), reinterpret_cast<sockaddr *>(&address), &length) != 0) {
    *out_errno = errno;
    return Fd();
  }
  *out_port = ntohs(address.ss_family == AF_INET ? in->sin_port : in6->sin6_port);
  return fd;
}

}  // namespace

std::unique_ptr<Engine> Engine::start(uint32_t num_loops, uint32_t max_streams,
                                      std::string *out_error) {
  std::unique_ptr<Engine> engine(new Engine(max_streams));
  if (num_loops == 0) num_loops = default_loops();
  if (num_loops > kMaxLoops) num_loops = kMaxLoops;
  bool ok = engine->completions_.ok();
  for (uint32_t i = 0; ok && i < num_loops; i++) {
    engine->loops_.push_back(std::make_unique<Loop>(engine.get(), i));
    ok = engine->loops_.back()->ok();
  }
  if (!ok) {
    *out_error = std::string("the engine cannot start: ") + strerror(errno);
    engine->loops_.clear();
    return nullptr;
  }
  for (auto &loop : engine->loops_) {
    try {
      engine->threads_.emplace_back([running = loop.get()] { running->run(); });
    } catch (const std::system_error &error) {
      *out_error = std::string("a loop thread cannot start: ") + error.what();
      engine->stop();
      return nullptr;
    }
  }
  return engine;
}

Engine::~Engine() { stop(); }

void Engine::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_) return;
    stopped_ = true;
  }
  for (auto &loop : loops_) loop->stop();
  for (auto &thread : threads_) thread.join();
}

bool Engine::take_room() {
  uint32_t open = open_.fetch_add(1, std::memory_order_relaxed);
  if (max_streams_ == 0 || open < max_streams_) return true;
  open_.fetch_sub(1, std::memory_order_relaxed);
  return false;
}

int Engine::listen(const char *ip, uint16_t port, int backlog, uint32_t head_max, uint32_t head_ms,
                   uint64_t tag, uint32_t *out_listener, uint16_t *out_port, int *out_errno) {
  if (tag == 0 || head_max == 0) return PTL_E_INVALID;
  Fd fd = open_listener(ip, port, backlog, out_port, out_errno);
  if (!fd.ok()) return PTL_E_IO;
  return add_listener(std::move(fd), head_max, head_ms, tag, out_listener);
}

int Engine::listen_on(Fd fd, uint32_t head_max, uint32_t head_ms, uint64_t tag, uint32_t *out_listener,
                      int *out_errno) {
  if (tag == 0 || head_max == 0) return PTL_E_INVALID;
  int listens = 0;
  socklen_t length = sizeof(listens);
  // A loop that accepts must never wait for a connection that another process has taken.
  int flags = fcntl(fd.get(), F_GETFL);
  if (flags < 0 || fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0 ||
      getsockopt(fd.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) != 0) {
    *out_errno = errno;
    return PTL_E_IO;
  }
  if (listens == 0) {
    *out_errno = EINVAL;
    return PTL_E_IO;
  }
  return add_listener(std::move(fd), head_max, head_ms, tag, out_listener);
}

int Engine::add_listener(Fd fd, uint32_t head_max, uint32_t head_ms, uint64_t tag,
                         uint32_t *out_listener) {
  auto listener = std::make_shared<Listener>();
  listener->fd = std::move(fd);
  listener->tag = tag;
  listener->head_max = head_max;
  listener->head_ms = head_ms;
  uint32_t id;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_) return PTL_E_SHUTDOWN;
    if (last_listener_ == kLastListener) return PTL_E_INVALID;
    id = ++last_listener_;  // never one that was used before: who closes twice must not close another's
    listeners_[id] = listener;
  }
  for (auto &loop : loops_) {
    Command command(Command::Kind::kListen);
    command.listens.emplace_back(id, listener);
    loop->post(std::move(command));
  }
  *out_listener = id;
  return PTL_OK;
}

void Engine::unlisten(uint32_t listener) {
  std::shared_ptr<Listener> ending;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = listeners_.find(listener);
    if (found == listeners_.end()) return;
    ending = std::move(found->second);
    listeners_.erase(found);
  }
  // Who waits in the backlog believes to be connected, and would be reset.
  size_t next = 0;
  for (int tries = 0; tries < kLastAccepts; tries++) {
    Command command(Command::Kind::kAccepted);
    Accepted accepted = accept_one(this, ending->fd.get(), &command.fd, &command.peer);
    if (accepted == Accepted::kGone) continue;
    if (accepted != Accepted::kOne) break;
    last_accepts_.fetch_add(1, std::memory_order_relaxed);
    command.listener = ending;
    try {
      loops_[next++ % loops_.size()]->post(std::move(command));
    } catch (const std::bad_alloc &) {
      give_room();
      break;
    }
  }
  // Who connects from here on is refused, although the loops let go of the socket a moment later.
  shutdown(ending->fd.get(), SHUT_RDWR);
  for (auto &loop : loops_) {
    Command command(Command::Kind::kUnlisten);
    command.listener_id = listener;
    loop->post(std::move(command));
  }
}

int Engine::submit(const ptl_op *ops, size_t num_ops) {
  for (size_t i = 0, first = 0; i < num_ops; i++) {
    bool links = (ops[i].flags & PTL_FLAG_LINK) != 0;
    if (!valid(ops[i]) || (links && i + 1 == num_ops)) return PTL_E_INVALID;
    // What is yet to be connected will be on the loop of who asks for it.
    const bool known = ops[i].stream != PTL_STREAM_CONNECTED;
    if (known && handle_loop(ops[i].stream) != handle_loop(ops[first].stream)) return PTL_E_INVALID;
    if (!links) first = i + 1;
  }
  for (size_t i = 0; i < num_ops; i++) {
    const ptl_op &op = ops[i];
    // A handle that names no loop is stale; any loop can say so.
    const size_t at = handle_loop(op.stream);
    Loop *loop = loops_[at < loops_.size() ? at : 0].get();
    bool taken;
    try {
      Command command(Command::Kind::kStart);
      command.op = copy_chain(ops, &i);
      taken = loop->post(std::move(command));
    } catch (const std::bad_alloc &) {
      if (!closes_alone(op)) throw;
      taken = loop->ask_close({op.stream, op.alert, (op.flags & PTL_FLAG_RESET) != 0});
    }
    if (!taken) return PTL_E_SHUTDOWN;
  }
  return PTL_OK;
}

void Engine::cancel(ptl_stream stream, uint64_t tag) {
  size_t loop = handle_loop(stream);
  Command command(Command::Kind::kCancel);
  command.tag = tag;
  if (loop < loops_.size()) loops_[loop]->post(std::move(command));
}

void Engine::stats(ptl_stats *out) {
  memset(out, 0, sizeof(*out));
  auto get = [](const std::atomic<uint64_t> &counter) {
    return counter.load(std::memory_order_relaxed);
  };
  for (auto &loop : loops_) {
    const Counters &from = loop->counters();
    out->streams += get(from.streams);
    out->operations += get(from.operations);
    out->relays += get(from.relays);
    out->buffered_bytes += get(from.buffered_bytes);
    out->accepted += get(from.accepted);
    out->connected += get(from.connected);
    out->handshakes += get(from.handshakes);
    out->relayed_bytes += get(from.relayed_bytes);
    out->accept_errors += get(from.accept_errors);
    out->stale_handles += get(from.stale_handles);
    out->sessions_offered += get(from.sessions_offered);
    out->rests += get(from.rests);
    out->impossible += get(from.impossible);
  }
  out->accepted += get(last_accepts_);
  out->completions = completions_.size();
}

}  // namespace ptl
