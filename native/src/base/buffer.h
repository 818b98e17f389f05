// Bytes that wait: appended at the back, consumed at the front, no memory while empty.
//
// Buffers belong to streams, and streams to one loop thread; the bytes that a thread's buffers hold are
// counted in |buffered_bytes|, which its loop publishes.
#ifndef POLYTLS_SRC_BASE_BUFFER_H
#define POLYTLS_SRC_BASE_BUFFER_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <utility>

namespace ptl {

inline thread_local size_t buffered_bytes = 0;

class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer &&other) noexcept { swap(other); }
  Buffer &operator=(Buffer &&other) noexcept {
    clear();
    swap(other);
    return *this;
  }
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  ~Buffer() { clear(); }

  const uint8_t *data() const { return memory_ + begin_; }
  size_t size() const { return end_ - begin_; }
  bool empty() const { return begin_ == end_; }

  // append copies |size| bytes to the back. It returns false, changing nothing, when memory is short.
  bool append(const uint8_t *bytes, size_t size) {
    if (size == 0) return true;
    if (capacity_ - end_ < size && !make_room(size)) return false;
    memcpy(memory_ + end_, bytes, size);
    end_ += size;
    return true;
  }

  // consume drops |size| bytes from the front, freeing the memory with the last one.
  void consume(size_t size) {
    begin_ += size;
    if (begin_ == end_) clear();
  }

  void clear() {
    free(memory_);
    buffered_bytes -= capacity_;
    memory_ = nullptr;
    begin_ = end_ = capacity_ = 0;
  }

  void swap(Buffer &other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(begin_, other.begin_);
    std::swap(end_, other.end_);
    std::swap(capacity_, other.capacity_);
  }

 private:
  bool make_room(size_t size) {
    size_t held = end_ - begin_;
    size_t wanted = held + size;
    // Nothing is reserved beyond the first write: most buffers are written once and then drained.
    size_t capacity = held == 0 ? wanted : wanted + wanted / 2;
    auto *memory = static_cast<uint8_t *>(malloc(capacity));
    if (memory == nullptr) return false;
    if (held != 0) memcpy(memory, memory_ + begin_, held);
    free(memory_);
    buffered_bytes += capacity - capacity_;
    memory_ = memory;
    begin_ = 0;
    end_ = held;
    capacity_ = capacity;
    return true;
  }

  uint8_t *memory_ = nullptr;
  size_t begin_ = 0, end_ = 0, capacity_ = 0;
};

}  // namespace ptl

#endif
