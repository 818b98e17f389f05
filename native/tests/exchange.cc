#include "exchange.h"

#include <poll.h>

#include <random>

#include "check.h"
#include "engine_driver.h"

namespace test {

namespace {

void send_a_piece(End *end, std::mt19937_64 *random) {
  if (end->done_sending) return;
  size_t left = end->to_send.size() - end->sent;
  if (left == 0) {
    if (end->peer->ssl() != nullptr && end->goodbye == Goodbye::kClean) end->peer->say_goodbye();
    end->peer->shutdown_write();
    end->done_sending = true;
    return;
  }
  size_t piece = 1 + (*random)() % (left < 100000 ? left : 100000);
  bool broken;
  end->sent += end->peer->write_some(end->to_send.data() + end->sent, piece, &broken);
  if (broken) throw GaveUp("an end could not send");
}

void read_a_piece(End *end) {
  if (end->outcome != Outcome::kWait && end->outcome != Outcome::kBytes) return;
  end->outcome = end->peer->read_some(&end->received, SIZE_MAX);
}

bool finished(const End &end) {
  return end.done_sending && end.outcome != Outcome::kWait && end.outcome != Outcome::kBytes;
}

// What |end| waits for, if it can do nothing now.
pollfd interest(const End &end) {
  pollfd event{end.peer->fd(), 0, 0};
  bool reading = end.outcome == Outcome::kWait || end.outcome == Outcome::kBytes;
  if (reading) event.events |= POLLIN;
  if (!end.done_sending) event.events |= POLLOUT;
  if (event.events == 0) event.fd = -1;
  return event;
}

}  // namespace

std::string noise(size_t size, uint64_t seed) {
  std::string bytes((size + 7) & ~size_t{7}, '\0');
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (size_t i = 0; i < bytes.size(); i += 8) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    for (size_t k = 0; k < 8; k++) bytes[i + k] = static_cast<char>(state >> (8 * k));
  }
  bytes.resize(size);
  return bytes;
}

void exchange(End *a, End *b, uint64_t seed) {
  std::mt19937_64 random(seed);
  while (!finished(*a) || !finished(*b)) {
    for (End *end : {a, b}) {
      send_a_piece(end, &random);
      read_a_piece(end);
    }
    if (a->outcome == Outcome::kBytes || b->outcome == Outcome::kBytes) continue;
    pollfd events[2] = {interest(*a), interest(*b)};
    if (events[0].fd < 0 && events[1].fd < 0) break;
    if (poll(events, 2, kPatienceMs) == 0) throw GaveUp("an exchange came to a standstill");
  }
}

}  // namespace test
