// Completions on their way from loop threads to whoever drains them.
#ifndef POLYTLS_SRC_ENGINE_COMPLETION_H
#define POLYTLS_SRC_ENGINE_COMPLETION_H

#include <stddef.h>
#include <stdint.h>

#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "base/fd.h"
#include "polytls/native.h"

namespace ptl {

// attach_data gives |completion| a copy of its own of |size| bytes at |bytes|.
void attach_data(ptl_completion *completion, const void *bytes, size_t size);
inline void attach_text(ptl_completion *completion, const std::string &text) {
  attach_data(completion, text.data(), text.size());
}

class CompletionQueue {
 public:
  CompletionQueue();
  ~CompletionQueue();

  bool ok() const { return event_.ok(); }
  int eventfd() const { return event_.get(); }

  // push hands over |batch|, leaving it empty, and wakes the drainer if it may be asleep.
  void push(std::vector<ptl_completion> *batch);
  size_t drain(ptl_completion *out, size_t max);
  size_t size();

 private:
  Fd event_;
  std::mutex mutex_;
  std::deque<ptl_completion> queue_;
};

}  // namespace ptl

#endif
