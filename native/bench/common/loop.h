// An event loop of one thread.
//
// Events are edge-triggered. A handler that stops before it has to wait, so that others get their turn, asks to
// be called again. One that is done is buried, and deleted once no event of this round can name it.
#ifndef POLYTLS_BENCH_COMMON_LOOP_H
#define POLYTLS_BENCH_COMMON_LOOP_H

#include <stdint.h>
#include <sys/epoll.h>

#include <vector>

namespace bench {

constexpr uint32_t kEnding = EPOLLRDHUP | EPOLLHUP | EPOLLERR;

class Handler {
 public:
  virtual ~Handler() = default;
  // |events| is what epoll says, 0 when the handler is called again.
  virtual void on_event(uint32_t events) = 0;

 private:
  friend class Loop;
  bool again_ = false, buried_ = false;
};

class Loop {
 public:
  Loop();
  ~Loop();
  Loop(const Loop &) = delete;
  Loop &operator=(const Loop &) = delete;

  // add dies when the kernel does not take it. A listening descriptor is level-triggered.
  void add(int fd, Handler *handler, bool listening = false);
  void again(Handler *handler);
  void silence(Handler *handler);  // no more events; whoever holds it deletes it
  void bury(Handler *handler);     // no more events, and deleted at the end of the round

  // poll waits at most |milliseconds| (-1: without limit) for events and handles them.
  void poll(int milliseconds);

 private:
  int fd_;
  std::vector<Handler *> again_, graves_;
};

}  // namespace bench

#endif
