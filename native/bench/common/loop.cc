#include "common/loop.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <string>

#include "common/net.h"

namespace bench {
namespace {

constexpr int kEventsAtOnce = 512;

}  // namespace

Loop::Loop() : fd_(epoll_create1(EPOLL_CLOEXEC)) {
  if (fd_ < 0) die(std::string("epoll_create1: ") + strerror(errno));
}

Loop::~Loop() { close(fd_); }

void Loop::add(int fd, Handler *handler, bool listening) {
  epoll_event event{};
  event.events = listening ? static_cast<uint32_t>(EPOLLIN) : EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.ptr = handler;
  if (epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &event) < 0) die(std::string("epoll_ctl: ") + strerror(errno));
}

void Loop::again(Handler *handler) {
  if (handler->again_ || handler->buried_) return;
  handler->again_ = true;
  again_.push_back(handler);
}

void Loop::silence(Handler *handler) { handler->buried_ = true; }

void Loop::bury(Handler *handler) {
  if (!handler->buried_) graves_.push_back(handler);
  handler->buried_ = true;
}

void Loop::poll(int milliseconds) {
  epoll_event events[kEventsAtOnce];
  int count = epoll_wait(fd_, events, kEventsAtOnce, again_.empty() ? milliseconds : 0);
  for (int i = 0; i < count; i++) {
    auto *handler = static_cast<Handler *>(events[i].data.ptr);
    if (!handler->buried_) handler->on_event(events[i].events);
  }
  std::vector<Handler *> turn;
  turn.swap(again_);
  for (Handler *handler : turn) {
    handler->again_ = false;
    if (!handler->buried_) handler->on_event(0);
  }
  // A buried one may still wait for its turn.
  size_t kept = 0;
  for (Handler *handler : again_) {
    if (!handler->buried_) again_[kept++] = handler;
  }
  again_.resize(kept);
  for (Handler *handler : graves_) delete handler;
  graves_.clear();
}

}  // namespace bench
