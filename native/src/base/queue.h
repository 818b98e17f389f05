// A queue of objects that are linked by a member |next| of their own: to put one in takes no memory, so that what must
// be remembered when memory is short can be.
#ifndef POLYTLS_SRC_BASE_QUEUE_H
#define POLYTLS_SRC_BASE_QUEUE_H

#include <memory>
#include <utility>

namespace ptl {

// T has a |std::unique_ptr<T> next|, which is null while the object is in no queue.
template <typename T>
class Queue {
 public:
  Queue() = default;
  Queue(const Queue &) = delete;
  Queue &operator=(const Queue &) = delete;
  ~Queue() { clear(); }

  bool empty() const { return !first_; }

  T *front() const { return first_.get(); }

  void push_back(std::unique_ptr<T> one) {
    T *last = one.get();
    *end_ = std::move(one);
    end_ = &last->next;
  }

  // pop_front returns the first, of at least one.
  std::unique_ptr<T> pop_front() { return take(&first_); }

  // take_if returns the first of which |fits| is true, or null.
  template <typename F>
  std::unique_ptr<T> take_if(F fits) {
    for (std::unique_ptr<T> *at = &first_; *at; at = &(*at)->next) {
      if (fits(at->get())) return take(at);
    }
    return nullptr;
  }

  // One after the other: a queue that owned its way down to the last would take a stack as deep as it is long.
  void clear() {
    while (!empty()) pop_front();
  }

 private:
  std::unique_ptr<T> take(std::unique_ptr<T> *at) {
    std::unique_ptr<T> one = std::move(*at);
    *at = std::move(one->next);
    if (!*at) end_ = at;
    return one;
  }

  std::unique_ptr<T> first_;
  std::unique_ptr<T> *end_ = &first_;  // where the next one goes
};

}  // namespace ptl

#endif
