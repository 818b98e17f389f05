// Completions on their way from loop threads to whoever drains them.
#ifndef POLYTLS_SRC_ENGINE_COMPLETION_H
#define POLYTLS_SRC_ENGINE_COMPLETION_H

#include <stddef.h>
#include <stdint.h>

#include <list>
#include <mutex>
#include <string_view>

#include "base/fd.h"
#include "polytls/native.h"

namespace ptl {

// A list, so that what there was memory for once can be handed on without any more.
using Completions = std::list<ptl_completion>;

// attach_data gives |completion| a copy of its own of |size| bytes at |bytes|. It returns false, and the completion has
// none, when memory is short; where the bytes are the result, that is PTL_E_NOMEM.
bool attach_data(ptl_completion *completion, const void *bytes, size_t size);
inline void attach_text(ptl_completion *completion, std::string_view text) {
  attach_data(completion, text.data(), text.size());
}

class CompletionQueue {
 public:
  CompletionQueue();
  ~CompletionQueue();

  bool ok() const { return event_.ok(); }
  int eventfd() const { return event_.get(); }

  // push hands over |batch|, leaving it empty; it takes no memory. An |urgent| one wakes the drainer if it may be asleep; others wait for
  // the next that is, or for |wake|. It returns whether anything waits for a wake-up that is still to come.
  bool push(Completions *batch, bool urgent);
  // wake wakes the drainer if completions wait of which it does not know.
  void wake();
  size_t drain(ptl_completion *out, size_t max);
  size_t size();

 private:
  // How many quiet completions may wait: a bound on memory, and on what one wake-up brings.
  static constexpr size_t kQuietMax = 64;

  void signal();

  Fd event_;
  std::mutex mutex_;
  Completions queue_;
  bool woken_ = false;  // the drainer knows that there is something
};

}  // namespace ptl

#endif
