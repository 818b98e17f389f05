#include "base/timer_wheel.h"

namespace ptl {

namespace {

constexpr uint64_t kSlotMask = TimerWheel::kSlots - 1;
constexpr uint64_t kHorizon = uint64_t{1} << (TimerWheel::kBits * TimerWheel::kLevels);

void unlink(TimerLink *link) {
  link->prev->next = link->next;
  link->next->prev = link->prev;
  link->prev = link->next = nullptr;
}

void push_back(TimerLink *head, TimerLink *link) {
  link->prev = head->prev;
  link->next = head;
  head->prev->next = link;
  head->prev = link;
}

bool alone(const TimerLink &head) { return head.next == &head; }

}  // namespace

TimerWheel::TimerWheel() {
  for (auto &level : slots_) {
    for (TimerLink &head : level) head.prev = head.next = &head;
  }
}

// The level is that of the highest digit (base 64) in which |due| differs from now: everything on a lower
// level is due before anything on a higher one.
void TimerWheel::insert(Timer *timer) {
  uint64_t due = timer->due;
  if (due - now_ >= kHorizon) due = now_ + kHorizon - 1;  // it is spread again when it comes near
  uint64_t differs = (due ^ now_) | kSlotMask;
  int level = (63 - __builtin_clzll(differs)) / kBits;
  if (level >= kLevels) level = kLevels - 1;
  int slot = static_cast<int>((due >> (level * kBits)) & kSlotMask);
  timer->level = static_cast<uint8_t>(level);
  timer->slot = static_cast<uint8_t>(slot);
  push_back(&slots_[level][slot], timer);
  occupied_[level] |= uint64_t{1} << slot;
}

void TimerWheel::arm(Timer *timer, uint64_t now, uint64_t delay) {
  disarm(timer);
  // |now| may be a little ahead of the wheel, which moves in expire only.
  timer->due = now + delay;
  if (timer->due <= now_) timer->due = now_ + 1;
  insert(timer);
}

void TimerWheel::disarm(Timer *timer) {
  if (!timer->armed()) return;
  unlink(timer);
  if (alone(slots_[timer->level][timer->slot])) {
    occupied_[timer->level] &= ~(uint64_t{1} << timer->slot);
  }
}

bool TimerWheel::next(Next *out) const {
  for (int level = 0; level < kLevels; level++) {
    uint64_t bits = occupied_[level];
    if (bits == 0) continue;
    int shift = level * kBits;
    // The slot that |now_| is in comes last: what is due in it is on a lower level, or a whole turn away.
    int first = static_cast<int>((now_ >> shift) + 1) & static_cast<int>(kSlotMask);
    uint64_t turned = first == 0 ? bits : (bits >> first) | (bits << (kSlots - first));
    int slot = (first + __builtin_ctzll(turned)) & static_cast<int>(kSlotMask);
    uint64_t width = uint64_t{1} << shift;
    uint64_t start = now_ & ~(width * kSlots - 1);
    uint64_t at = start + static_cast<uint64_t>(slot) * width;
    // Only the top level can hold slots of its next turn.
    if (at <= now_ && level == kLevels - 1) at += width * kSlots;
    *out = {level, slot, at};
    return true;
  }
  return false;
}

void TimerWheel::expire(uint64_t now) {
  Next at;
  while (next(&at) && at.at <= now) {
    if (at.at > now_) now_ = at.at;
    TimerLink *head = &slots_[at.level][at.slot];
    TimerLink taken;
    taken.next = head->next;
    taken.prev = head->prev;
    taken.next->prev = &taken;
    taken.prev->next = &taken;
    head->prev = head->next = head;
    occupied_[at.level] &= ~(uint64_t{1} << at.slot);
    while (!alone(taken)) {
      auto *timer = static_cast<Timer *>(taken.next);
      unlink(timer);
      if (timer->due <= now_) {
        timer->callback(timer->argument);
      } else {
        insert(timer);
      }
    }
  }
  if (now > now_) now_ = now;
}

int64_t TimerWheel::sleep(uint64_t now) const {
  Next at;
  if (!next(&at)) return -1;
  return at.at <= now ? 0 : static_cast<int64_t>(at.at - now);
}

}  // namespace ptl
