#include "engine/completion.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

namespace ptl {

bool attach_data(ptl_completion *completion, const void *bytes, size_t size) {
  free(const_cast<uint8_t *>(completion->data));
  completion->data = nullptr;
  completion->data_len = 0;
  if (size == 0) return true;
  auto *copy = static_cast<uint8_t *>(malloc(size));
  if (copy == nullptr) return false;
  memcpy(copy, bytes, size);
  completion->data = copy;
  completion->data_len = static_cast<uint32_t>(size);
  return true;
}

CompletionQueue::CompletionQueue() : event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

CompletionQueue::~CompletionQueue() {
  for (ptl_completion &completion : queue_) ptl_release(&completion, 1);
}

bool CompletionQueue::push(Completions *batch, bool urgent) {
  bool wakes;
  bool waits;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.splice(queue_.end(), *batch);
    wakes = (urgent || queue_.size() >= kQuietMax) && !queue_.empty() && !woken_;
    woken_ = woken_ || wakes;
    waits = !queue_.empty() && !woken_;
  }
  if (wakes) signal();
  return waits;
}

void CompletionQueue::wake() {
  Completions nothing;
  push(&nothing, true);
}

void CompletionQueue::signal() { ring(event_); }

size_t CompletionQueue::drain(ptl_completion *out, size_t max) {
  Completions taken;  // freed when nobody waits for the lock any more
  std::lock_guard<std::mutex> lock(mutex_);
  size_t n = 0;
  auto end = queue_.begin();
  while (n < max && end != queue_.end()) out[n++] = *end++;
  taken.splice(taken.end(), queue_, queue_.begin(), end);
  if (queue_.empty()) {
    woken_ = false;
    uint64_t count;
    ssize_t got = read(event_.get(), &count, sizeof(count));
    (void)got;  // EAGAIN: whoever filled the queue has not written yet; it only wakes once in vain
  }
  return n;
}

size_t CompletionQueue::size() {
  std::lock_guard<std::mutex> lock(mutex_);
  return queue_.size();
}

}  // namespace ptl

void ptl_release(ptl_completion *completions, size_t num) {
  for (size_t i = 0; i < num; i++) {
    free(const_cast<uint8_t *>(completions[i].data));
    completions[i].data = nullptr;
    completions[i].data_len = 0;
  }
}
