// Handles to streams: an index and a generation, so that what outlived its stream names none.
#ifndef POLYTLS_SRC_ENGINE_SLAB_H
#define POLYTLS_SRC_ENGINE_SLAB_H

#include <stdint.h>

#include <memory>
#include <vector>

#include "engine/stream.h"

namespace ptl {

// A handle, from the highest bit: 32 bits of generation, 8 of loop, 24 of index. Generations begin with 1, so
// that no handle is 0.
constexpr int kIndexBits = 24;
constexpr int kLoopBits = 8;
constexpr uint32_t kMaxLoops = 1u << kLoopBits;
constexpr uint32_t kMaxStreamsPerLoop = 1u << kIndexBits;
constexpr uint32_t kLastGeneration = UINT32_MAX - 1;  // the highest marks what is no stream, in epoll's data
constexpr uint64_t kListenerMark = uint64_t{UINT32_MAX} << 32;  // and the listener's number below it
constexpr uint32_t kLastListener = UINT32_MAX - 1;               // the highest would be the mark of a wake-up

inline uint32_t handle_index(ptl_stream handle) {
  return static_cast<uint32_t>(handle) & (kMaxStreamsPerLoop - 1);
}
inline uint32_t handle_loop(ptl_stream handle) {
  return (static_cast<uint32_t>(handle) >> kIndexBits) & (kMaxLoops - 1);
}
inline uint32_t handle_generation(ptl_stream handle) { return static_cast<uint32_t>(handle >> 32); }
inline ptl_stream make_handle(uint32_t generation, uint32_t loop, uint32_t index) {
  return static_cast<uint64_t>(generation) << 32 | loop << kIndexBits | index;
}

class Slab {
 public:
  // |first_generation| is what handles begin with; tests begin near the end.
  explicit Slab(uint32_t loop, uint32_t first_generation = 1)
      : loop_(loop), first_generation_(first_generation) {}

  // add takes |stream| over and gives it a handle; it returns null when the loop has no more room. It throws
  // std::bad_alloc, changing nothing, when memory is short.
  Stream *add(std::unique_ptr<Stream> stream) {
    uint32_t index;
    if (!free_.empty()) {
      index = free_.back();
      free_.pop_back();
    } else {
      if (slots_.size() >= kMaxStreamsPerLoop) return nullptr;
      index = static_cast<uint32_t>(slots_.size());
      free_.reserve(slots_.size() + 1);  // so that |remove| cannot fail
      slots_.emplace_back();
      slots_.back().generation = first_generation_;
    }
    Slot &slot = slots_[index];
    slot.stream = std::move(stream);
    slot.stream->handle = make_handle(slot.generation, loop_, index);
    count_++;
    return slot.stream.get();
  }

  // find returns the stream of |handle|, or null when it is gone.
  Stream *find(ptl_stream handle) const {
    uint32_t index = handle_index(handle);
    if (index >= slots_.size() || handle_loop(handle) != loop_) return nullptr;
    const Slot &slot = slots_[index];
    return slot.generation == handle_generation(handle) ? slot.stream.get() : nullptr;
  }

  // remove gives |stream| back; its handle is stale from then on.
  std::unique_ptr<Stream> remove(Stream *stream) {
    uint32_t index = handle_index(stream->handle);
    Slot &slot = slots_[index];
    slot.generation = slot.generation == kLastGeneration ? 1 : slot.generation + 1;
    free_.push_back(index);
    count_--;
    return std::move(slot.stream);
  }

  uint32_t count() const { return count_; }
  // places counts the indices that there have been: no stream has a higher one.
  size_t places() const { return slots_.size(); }

  // each calls |visit| for every stream; it may remove the one that it was given.
  template <typename F>
  void each(F visit) {
    for (size_t i = 0; i < slots_.size(); i++) {
      if (slots_[i].stream) visit(slots_[i].stream.get());
    }
  }

 private:
  struct Slot {
    std::unique_ptr<Stream> stream;
    uint32_t generation;
  };

  const uint32_t loop_;
  const uint32_t first_generation_;
  uint32_t count_ = 0;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
};

}  // namespace ptl

#endif
