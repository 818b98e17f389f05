// Deadlines in constant time: a hierarchical timing wheel (Varghese and Lauck, 1987) of six levels of 64
// slots. One tick is a millisecond; level n's slots are 64^n ticks wide. A bitmap a level tells which slots
// hold timers, so that an idle loop knows how long it may sleep and never ticks for nothing.
//
// Timers are intrusive: arming and disarming allocate nothing and may happen inside a timer's own call.
// A timer fires at or up to one tick after its due time, never before.
#ifndef POLYTLS_SRC_BASE_TIMER_WHEEL_H
#define POLYTLS_SRC_BASE_TIMER_WHEEL_H

#include <stdint.h>

namespace ptl {

struct TimerLink {
  TimerLink *prev = nullptr;
  TimerLink *next = nullptr;
};

struct Timer : TimerLink {
  using Callback = void (*)(void *);

  uint64_t due = 0;  // ticks
  Callback callback = nullptr;
  void *argument = nullptr;
  uint8_t level = 0, slot = 0;

  Timer() = default;
  Timer(const Timer &) = delete;
  Timer &operator=(const Timer &) = delete;

  bool armed() const { return next != nullptr; }
};

class TimerWheel {
 public:
  static constexpr int kLevels = 6;
  static constexpr int kBits = 6;
  static constexpr int kSlots = 1 << kBits;

  TimerWheel();
  TimerWheel(const TimerWheel &) = delete;
  TimerWheel &operator=(const TimerWheel &) = delete;

  // arm sets |timer| to fire |delay| ticks after |now|; an armed one is moved.
  void arm(Timer *timer, uint64_t now, uint64_t delay);

  // disarm makes sure that |timer| will not fire.
  void disarm(Timer *timer);

  // expire fires everything due by |now|, in order of due time up to a tick.
  void expire(uint64_t now);

  // sleep returns how many ticks after |now| the wheel next wants |expire| (0: at once), or -1: never.
  // It may be early, where a far slot must be spread over nearer ones, but not late.
  int64_t sleep(uint64_t now) const;

 private:
  struct Next {
    int level;
    int slot;
    uint64_t at;
  };

  void insert(Timer *timer);
  bool next(Next *out) const;

  uint64_t now_ = 0;
  uint64_t occupied_[kLevels] = {};
  TimerLink slots_[kLevels][kSlots];
};

}  // namespace ptl

#endif
