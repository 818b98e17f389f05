// Closes that were asked for when there was no memory to make a command of them. There is room for one of each stream
// of a loop, taken before the stream is made: closing cannot fail. That room is eight bytes a stream; it is used when
// everything else was refused, and then looked through from one end to the other.
//
// Nothing here is locked: the loop's inbox is, and this is a part of it.
#ifndef POLYTLS_SRC_ENGINE_CLOSES_H
#define POLYTLS_SRC_ENGINE_CLOSES_H

#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "engine/slab.h"
#include "polytls/native.h"

namespace ptl {

class Closes {
 public:
  struct Close {
    ptl_stream stream;
    uint8_t alert;
    bool reset;
  };

  explicit Closes(uint32_t loop) : loop_(loop) {}

  bool empty() const { return count_ == 0; }
  size_t room() const { return wishes_.size(); }

  // reserve makes room for the first |num| streams of a slab. It throws std::bad_alloc, changing nothing, when memory
  // is short.
  void reserve(size_t num) {
    if (num > wishes_.size()) wishes_.resize((num / kStep + 1) * kStep);
  }

  // put remembers |close|. What never was a stream has no room, and nothing to close. Of two for one stream the first
  // counts; of two streams that have had the same place, the later one: the other is gone.
  void put(const Close &close) {
    const uint32_t index = handle_index(close.stream);
    const uint32_t generation = handle_generation(close.stream);
    if (generation == 0 || handle_loop(close.stream) != loop_ || index >= wishes_.size()) return;
    Wish &wish = wishes_[index];
    if (wish.generation != 0 && static_cast<int32_t>(generation - wish.generation) <= 0) return;
    count_ += wish.generation == 0;
    wish = {generation, close.alert, close.reset};
  }

  // take moves one of them to |*out|, looking from |*at| on, which it moves behind it. It returns false when there is
  // none.
  bool take(size_t *at, Close *out) {
    for (; count_ != 0 && *at < wishes_.size(); ++*at) {
      Wish &wish = wishes_[*at];
      if (wish.generation == 0) continue;
      *out = {make_handle(wish.generation, loop_, static_cast<uint32_t>(*at)), wish.alert, wish.reset};
      wish = {};
      count_--;
      return true;
    }
    return false;
  }

 private:
  static constexpr size_t kStep = 64;  // the lock is not taken for each stream that is made

  struct Wish {
    uint32_t generation = 0;  // 0: none
    uint8_t alert = 0;
    bool reset = false;
  };
  static_assert(sizeof(Wish) == 8, "every idle tunnel pays for two");

  const uint32_t loop_;
  std::vector<Wish> wishes_;
  size_t count_ = 0;
};

}  // namespace ptl

#endif
