#include "engine/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>

#include "base/clock.h"
#include "engine/completion.h"
#include "engine/engine.h"

namespace ptl {

namespace {

constexpr int kEventsATurn = 256;
constexpr uint64_t kWakeMark = ~uint64_t{0};

// has_tag says whether the chain that begins with |op| holds |tag|.
bool has_tag(const Op *op, uint64_t tag) {
  while (op != nullptr && op->tag != tag) op = op->linked.get();
  return op != nullptr;
}

}  // namespace

Loop::Loop(Engine *engine, uint32_t index)
    : engine_(engine),
      index_(index),
      origin_ns_(now_ns()),
      now_ns_(origin_ns_),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      slab_(index),
      spare_(kSpareCompletions),
      chunk_(new uint8_t[kChunkBytes]),
      plain_(new uint8_t[SSL3_RT_MAX_PLAIN_LENGTH]),
      closes_(index) {
  quiet_.callback = quiet_over;
  quiet_.argument = this;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeMark;
  if (ok()) epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event);
}

Loop::~Loop() = default;

bool Loop::post(Command command) {
  bool was_empty;
  {
    std::lock_guard<std::mutex> lock(inbox_mutex_);
    if (stopped_) return false;
    was_empty = inbox_.empty();
    inbox_.push_back(std::move(command));
  }
  if (was_empty) ring(wake_);
  return true;
}

bool Loop::ask_close(const Closes::Close &close) {
  {
    std::lock_guard<std::mutex> lock(inbox_mutex_);
    if (stopped_) return false;
    closes_.put(close);
  }
  ring(wake_);
  return true;
}

void Loop::stop() {
  stopping_.store(true, std::memory_order_release);
  ring(wake_);
}

int Loop::sleep_ms() const {
  if (!ready_.empty() || !starts_.empty()) return 0;
  int64_t ticks = wheel_.sleep(now_ms());
  if (ticks < 0) return -1;
  // One tick more than asked: a tick that has begun is not over.
  return static_cast<int>(std::min<int64_t>(ticks + 1, 60 * 60 * 1000));
}

void Loop::run() {
  pthread_setname_np(pthread_self(), ("polytls-" + std::to_string(index_)).c_str());
  epoll_event events[kEventsATurn];
  while (!stopping_.load(std::memory_order_acquire)) {
    int n = epoll_wait(epoll_.get(), events, kEventsATurn, sleep_ms());
    now_ns_ = now_ns();
    if (crowd_ != 0) crowd_--;
    // Who gives way in this turn of the loop waits for the next: what epoll has to say by then goes first.
    const size_t waiting = ready_.size();
    for (int i = 0; i < n; i++) on_event(events[i].data.u64, events[i].events);
    wheel_.expire(now_ms());
    run_ready(std::min(waiting, static_cast<size_t>(std::max(n, 1))));
    run_starts();
    sweep();  // first: what is freed is no longer held, and the counters say so
    publish();
  }
  shut_down();
}

void Loop::on_event(uint64_t data, uint32_t events) {
  if (data == kWakeMark) {
    crowd_ = kCrowdTurns;
    take_inbox();
    return;
  }
  if (data >= kListenerMark) {
    on_acceptable(static_cast<uint32_t>(data));
    return;
  }
  Stream *stream = slab_.find(data);
  if (stream == nullptr) return;  // it ended earlier in this turn
  if ((events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) stream->readable = true;
  if ((events & EPOLLPRI) != 0) stream->urgent = true;
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) stream->hung_up = true;
  if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) stream->writable = true;
  if (stream->op == nullptr || !stream->op->relay || !stream->op->relay->is_bulk()) crowd_ = kCrowdTurns;
  if (stream->connecting) {
    attempt_ready(stream, events);
    return;
  }
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    stream->gone = true;
    if (stream->connects != 0) near_end_gone(stream);
  }
  if ((events & EPOLLERR) != 0) note_error(stream);
  advance(stream);
}

// Streams that gave way get another turn, and may queue themselves again: as many of them as there were events, and one
// at least. So many downloads do not add up to what each step of a handshake waits for, nor do many handshakes starve a
// download.
void Loop::run_ready(size_t turns) {
  for (; turns != 0; turns--) {
    ptl_stream handle = ready_.front();
    ready_.pop_front();
    Stream *stream = slab_.find(handle);
    if (stream == nullptr) continue;
    stream->queued = false;
    advance(stream);
  }
}

void Loop::run_starts() {
  while (!starts_.empty()) {
    start(starts_.pop_front());
  }
}

void Loop::take_inbox() {
  uint64_t count;
  ssize_t got = read(wake_.get(), &count, sizeof(count));
  (void)got;
  std::vector<Command> commands;
  bool closes;
  {
    std::lock_guard<std::mutex> lock(inbox_mutex_);
    commands.swap(inbox_);
    closes = !closes_.empty();
  }
  for (Command &command : commands) execute(&command);
  if (closes) take_closes();
}

// What was submitted before a close comes before it: where there is some by now, the closes wait for the next turn.
void Loop::take_closes() {
  for (size_t at = 0;;) {
    Closes::Close close;
    {
      std::lock_guard<std::mutex> lock(inbox_mutex_);
      if (!inbox_.empty() || !closes_.take(&at, &close)) return;
    }
    if (Stream *stream = find_open(close.stream)) {
      close_as_asked(stream, close.alert, close.reset);
    } else {
      counters_.stale_handles.fetch_add(1, std::memory_order_relaxed);
    }
  }
}

void Loop::execute(Command *command) {
  switch (command->kind) {
    case Command::Kind::kStart:
      start(std::move(command->op));
      break;
    case Command::Kind::kCancel: {
      auto found = under_way_.find(command->tag);
      if (found != under_way_.end()) {
        end_early(found->second.get(), PTL_E_CANCELLED);
        break;
      }
      if (cancel_linked(command->tag)) break;
      // It, or what it is linked to, may still wait for its turn behind an operation that has just ended.
      auto named = [command](const Op *op) { return has_tag(op, command->tag); };
      if (std::unique_ptr<Op> op = starts_.take_if(named)) refuse(std::move(op), PTL_E_CANCELLED, "cancelled");
      break;
    }
    case Command::Kind::kListen:
      listeners_.splice(listeners_.end(), command->listens);
      if (!watch_listener(listeners_.back().first, listeners_.back().second->fd.get())) accept_failed();
      break;
    case Command::Kind::kAccepted:
      begin_head(*command->listener, std::move(command->fd), std::move(command->peer));
      break;
    case Command::Kind::kUnlisten: {
      auto found = find_listener(command->listener_id);
      if (found == listeners_.end()) break;
      epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second->fd.get(), nullptr);
      listeners_.erase(found);
      break;
    }
  }
}

// cancel_linked ends the chain that holds |tag| behind an operation under way. It returns whether there is one.
bool Loop::cancel_linked(uint64_t tag) {
  for (auto &entry : under_way_) {
    if (!has_tag(entry.second->linked.get(), tag)) continue;
    end_early(entry.second.get(), PTL_E_CANCELLED);
    return true;
  }
  return false;
}

// A wake-up of whoever drains costs more than what it brings: quiet completions wait for one that is worth it.
void Loop::publish() {
  counters_.operations.store(under_way_.size(), std::memory_order_relaxed);
  counters_.buffered_bytes.store(buffered_bytes, std::memory_order_relaxed);
  if (!untold_.empty() || spare_.size() < kSpareCompletions) tell_untold();
  if (completions_.empty()) return;
  const bool waits = engine_->completions()->push(&completions_, urgent_);
  urgent_ = false;
  if (waits && !quiet_.armed()) wheel_.arm(&quiet_, now_ms(), kQuietMs);
}

void Loop::quiet_over(void *loop) { static_cast<Loop *>(loop)->engine_->completions()->wake(); }

void Loop::sweep() {
  graves_.clear();
  ended_.clear();
}

// The end: what is under way is told so, what is open is closed at once.
void Loop::shut_down() {
  std::vector<Command> commands;
  {
    std::lock_guard<std::mutex> lock(inbox_mutex_);
    stopped_ = true;
    commands.swap(inbox_);
  }
  for (Command &command : commands) {
    if (command.op) refuse(std::move(command.op), PTL_E_SHUTDOWN, "the engine is stopping");
  }
  while (!starts_.empty()) {
    refuse(starts_.pop_front(), PTL_E_SHUTDOWN, "the engine is stopping");
  }
  while (!under_way_.empty()) end_early(under_way_.begin()->second.get(), PTL_E_SHUTDOWN);
  slab_.each([this](Stream *stream) { destroy(stream); });
  wheel_.disarm(&accept_pause_);
  wheel_.disarm(&quiet_);
  listeners_.clear();
  sweep();
  publish();
  engine_->completions()->wake();
}

}  // namespace ptl
