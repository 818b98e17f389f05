// Shared, immutable objects: an intrusive, atomic reference count, since they cross threads.
#ifndef POLYTLS_SRC_BASE_REF_H
#define POLYTLS_SRC_BASE_REF_H

#include <stdint.h>

#include <atomic>
#include <utility>

namespace ptl {

template <typename T>
class RefCounted {
 public:
  RefCounted() = default;
  RefCounted(const RefCounted &) = delete;
  RefCounted &operator=(const RefCounted &) = delete;

  void up_ref() { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete static_cast<T *>(this);
  }

 protected:
  ~RefCounted() = default;

 private:
  std::atomic<uint32_t> references_{1};
};

// A Ref shares a RefCounted object.
template <typename T>
class Ref {
 public:
  Ref() = default;
  // share returns a Ref of its own beside whoever holds |object|, which may be null.
  static Ref share(T *object) {
    if (object != nullptr) object->up_ref();
    Ref ref;
    ref.object_ = object;
    return ref;
  }
  Ref(const Ref &other) : Ref(share(other.object_)) {}
  Ref(Ref &&other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref &operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_ != nullptr) object_->release();
  }

  T *get() const { return object_; }
  T *operator->() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  T *object_ = nullptr;
};

}  // namespace ptl

#endif
