// An owned file descriptor.
#ifndef POLYTLS_SRC_BASE_FD_H
#define POLYTLS_SRC_BASE_FD_H

#include <errno.h>
#include <stdint.h>
#include <unistd.h>

#include <utility>

namespace ptl {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd &operator=(Fd &&other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd &) = delete;
  Fd &operator=(const Fd &) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  void reset() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

// ring makes an eventfd readable. EAGAIN is no failure: its counter is full, so that it is readable anyway.
inline void ring(const Fd &event) {
  const uint64_t one = 1;
  while (write(event.get(), &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}

}  // namespace ptl

#endif
