// A queue of small values in memory that was reserved beforehand: to put one in takes none.
#ifndef POLYTLS_SRC_BASE_RING_H
#define POLYTLS_SRC_BASE_RING_H

#include <stddef.h>

#include <vector>

namespace ptl {

template <typename T>
class Ring {
 public:
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // reserve makes room for |size| values in all. It throws std::bad_alloc, changing nothing, when memory is short.
  void reserve(size_t size) {
    if (size <= slots_.size()) return;
    std::vector<T> wider(size + size / 2 + kLeast);
    for (size_t i = 0; i < size_; i++) wider[i] = slots_[(first_ + i) % slots_.size()];
    slots_.swap(wider);
    first_ = 0;
  }

  // push_back takes |value| where there is room for it.
  void push_back(const T &value) { slots_[(first_ + size_++) % slots_.size()] = value; }

  const T &front() const { return slots_[first_]; }

  void pop_front() {
    first_ = (first_ + 1) % slots_.size();
    size_--;
  }

 private:
  static constexpr size_t kLeast = 16;

  std::vector<T> slots_;
  size_t first_ = 0;
  size_t size_ = 0;
};

}  // namespace ptl

#endif
