// The timing wheel, against a sorted list of what is due when.
#include "base/timer_wheel.h"

#include <map>
#include <memory>
#include <random>
#include <vector>

#include "check.h"

using ptl::Timer;
using ptl::TimerWheel;

namespace {

constexpr uint64_t kLongestDelay = UINT32_MAX;  // what the ABI's durations can ask for

// A wheel, its timers and the model beside it: when each armed timer is due.
class Model {
 public:
  explicit Model(size_t num_timers) {
    for (size_t i = 0; i < num_timers; i++) {
      slots_.push_back(std::make_unique<Slot>());
      slots_.back()->model = this;
      slots_.back()->timer.callback = fired;
      slots_.back()->timer.argument = slots_.back().get();
    }
  }

  void arm(size_t i, uint64_t delay) {
    wheel.arm(&slots_[i]->timer, now, delay);
    due_[slots_[i].get()] = now + delay;
  }
  void disarm(size_t i) {
    wheel.disarm(&slots_[i]->timer);
    due_.erase(slots_[i].get());
  }
  Timer *timer(size_t i) { return &slots_[i]->timer; }
  bool armed(size_t i) const { return slots_[i]->timer.armed(); }
  size_t num_armed() const { return due_.size(); }
  uint64_t earliest() const {
    uint64_t best = UINT64_MAX;
    for (const auto &entry : due_) best = entry.second < best ? entry.second : best;
    return best;
  }

  void expire_at(uint64_t when) {
    now = when;
    last_due_ = 0;
    wheel.expire(now);
    for (const auto &entry : due_) CHECK(entry.second > now);  // nothing due was left
  }

  TimerWheel wheel;
  uint64_t now = 0;
  size_t num_fired = 0;

 private:
  struct Slot {
    Model *model;
    Timer timer;
  };

  static void fired(void *argument) {
    auto *slot = static_cast<Slot *>(argument);
    Model *model = slot->model;
    auto found = model->due_.find(slot);
    REQUIRE(found != model->due_.end());
    CHECK(found->second <= model->now);         // never early
    CHECK(found->second >= model->last_due_);   // in order
    CHECK(!slot->timer.armed());
    model->last_due_ = found->second;
    model->due_.erase(found);
    model->num_fired++;
  }

  uint64_t last_due_ = 0;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::map<const Slot *, uint64_t> due_;
};

// Delays of every scale: as many from each level as from any other.
uint64_t any_delay(std::mt19937_64 *random, uint64_t longest) {
  int bits = static_cast<int>((*random)() % 33);
  uint64_t delay = 1 + ((*random)() & ((uint64_t{1} << bits) - 1));
  return delay < longest ? delay : longest;
}

// Follows |sleep| exactly, as the loop does, until nothing is armed; returns how often it woke.
size_t run_out(Model *model) {
  size_t wakes = 0;
  while (model->num_armed() != 0) {
    int64_t ticks = model->wheel.sleep(model->now);
    REQUIRE(ticks >= 0);
    REQUIRE(model->now + static_cast<uint64_t>(ticks) <= model->earliest());  // never late
    model->expire_at(model->now + static_cast<uint64_t>(ticks));
    wakes++;
  }
  CHECK_EQ(model->wheel.sleep(model->now), -1);
  return wakes;
}

}  // namespace

TEST(empty_wheel_never_wants_to_wake) {
  TimerWheel wheel;
  CHECK_EQ(wheel.sleep(0), -1);
  wheel.expire(1000000);
  CHECK_EQ(wheel.sleep(1000000), -1);
}

TEST(fires_at_its_tick_and_not_before) {
  for (uint64_t start : {uint64_t{0}, uint64_t{63}, uint64_t{64}, uint64_t{4095}, (uint64_t{1} << 36) - 3}) {
    for (uint64_t delay : {1, 2, 62, 63, 64, 65, 127, 128, 4095, 4096, 4097, 262144}) {
      Model model(1);
      model.expire_at(start);
      model.arm(0, delay);
      model.expire_at(start + delay - 1);
      CHECK_EQ(model.num_fired, 0u);
      model.expire_at(start + delay);
      CHECK_EQ(model.num_fired, 1u);
    }
  }
}

TEST(no_delay_is_the_next_tick) {
  Model model(1);
  model.expire_at(10);
  model.wheel.arm(model.timer(0), 10, 0);
  CHECK_EQ(model.wheel.sleep(10), 1);
  model.wheel.disarm(model.timer(0));
}

TEST(cascades_over_all_levels) {
  Model model(TimerWheel::kLevels * 3);
  for (int level = 0; level < TimerWheel::kLevels; level++) {
    uint64_t width = uint64_t{1} << (level * TimerWheel::kBits);
    for (uint64_t i = 0; i < 3; i++) {
      model.arm(static_cast<size_t>(level) * 3 + i, width + i * (width / 2 + 1));
    }
  }
  size_t wakes = run_out(&model);
  CHECK_EQ(model.num_fired, TimerWheel::kLevels * 3u);
  // Each timer costs its own wake and at most one a level that it comes down.
  CHECK(wakes <= TimerWheel::kLevels * 3u * TimerWheel::kLevels);
}

TEST(a_large_jump_fires_everything_in_order) {
  Model model(500);
  std::mt19937_64 random(11);
  for (size_t i = 0; i < 500; i++) model.arm(i, any_delay(&random, kLongestDelay));
  model.expire_at(kLongestDelay + 1);
  CHECK_EQ(model.num_fired, 500u);
}

TEST(beyond_the_horizon) {
  // Longer than the wheel is round: clamped to its far end and spread again.
  Model model(3);
  model.expire_at((uint64_t{1} << 30) * 3 + 5);
  model.arm(0, uint64_t{1} << 37);
  model.arm(1, (uint64_t{1} << 36) - 1);
  model.arm(2, uint64_t{1} << 31);
  run_out(&model);
  CHECK_EQ(model.num_fired, 3u);
}

TEST(moving_and_disarming) {
  Model model(3);
  model.arm(0, 10);
  model.arm(1, 10);
  model.arm(2, 5000);
  model.arm(0, 70);  // an armed one is moved
  model.disarm(1);
  model.disarm(1);   // twice does nothing
  CHECK(!model.armed(1));
  model.expire_at(69);
  CHECK_EQ(model.num_fired, 0u);
  model.expire_at(70);
  CHECK_EQ(model.num_fired, 1u);
  model.disarm(2);
  CHECK_EQ(model.wheel.sleep(70), -1);
}

namespace {

// Two timers of one tick, of which the first disarms the second, and itself again while it is at it.
struct Killer {
  TimerWheel wheel;
  Timer killer, victim, bystander;
  int num_killed = 0, num_bystanders = 0;
};

}  // namespace

TEST(disarming_inside_a_call) {
  Killer test;
  test.killer.callback = [](void *argument) {
    auto *self = static_cast<Killer *>(argument);
    self->wheel.disarm(&self->killer);
    self->wheel.disarm(&self->victim);
  };
  test.victim.callback = [](void *argument) { static_cast<Killer *>(argument)->num_killed++; };
  test.bystander.callback = [](void *argument) { static_cast<Killer *>(argument)->num_bystanders++; };
  for (Timer *timer : {&test.killer, &test.victim, &test.bystander}) {
    timer->argument = &test;
    test.wheel.arm(timer, 0, 100);
  }
  test.wheel.expire(100);
  CHECK_EQ(test.num_killed, 0);
  CHECK_EQ(test.num_bystanders, 1);
  CHECK_EQ(test.wheel.sleep(100), -1);
}

namespace {

struct Ticker {
  TimerWheel wheel;
  Timer timer;
  uint64_t now = 0;
  uint64_t delay = 0;
  int num_fired = 0;
};

}  // namespace

TEST(rearming_inside_a_call) {
  for (uint64_t delay : {0, 1, 63, 64, 100}) {
    Ticker test;
    test.delay = delay;
    test.timer.argument = &test;
    test.timer.callback = [](void *argument) {
      auto *self = static_cast<Ticker *>(argument);
      self->num_fired++;
      self->wheel.arm(&self->timer, self->now, self->delay);
    };
    test.wheel.arm(&test.timer, 0, delay);
    for (test.now = 1; test.now <= 1000; test.now++) test.wheel.expire(test.now);
    CHECK_EQ(test.num_fired, delay == 0 ? 1000 : static_cast<int>(1000 / delay));
    if (delay == 0) continue;
    // A jump fires it once: what is armed in a call counts from the time of the call.
    int before = test.num_fired;
    test.now = 50000;
    test.wheel.expire(test.now);
    CHECK_EQ(test.num_fired, before + 1);
  }
}

TEST(arming_ahead_of_the_wheel) {
  // The loop's clock moves before the wheel does; a delay still counts from the clock.
  Model model(2);
  model.arm(0, 1000);
  model.now = 500;
  model.arm(1, 10);
  model.expire_at(509);
  CHECK_EQ(model.num_fired, 0u);
  model.expire_at(510);
  CHECK_EQ(model.num_fired, 1u);
}

TEST(random_against_the_model) {
  for (uint64_t seed = 1; seed <= 20; seed++) {
    std::mt19937_64 random(seed);
    const size_t kTimers = 64;
    Model model(kTimers);
    model.expire_at(any_delay(&random, UINT64_MAX));
    for (int step = 0; step < 3000; step++) {
      size_t which = random() % kTimers;
      switch (random() % 8) {
        case 0:
          model.disarm(which);
          break;
        case 1:
        case 2:
        case 3:
          model.arm(which, any_delay(&random, kLongestDelay));
          break;
        case 4:  // the clock moves, the wheel does not yet
          model.now += any_delay(&random, 1000);
          break;
        case 5:
          model.expire_at(model.now + any_delay(&random, kLongestDelay));
          break;
        default: {
          int64_t ticks = model.wheel.sleep(model.now);
          REQUIRE_EQ(ticks < 0, model.num_armed() == 0);
          if (ticks < 0) break;
          // Due is due even when the clock has run past it.
          uint64_t wake = model.now + static_cast<uint64_t>(ticks);
          REQUIRE(ticks == 0 || wake <= model.earliest());
          model.expire_at(wake);
        }
      }
    }
    run_out(&model);
  }
}
