// Queues that take no memory: of objects linked by a member of their own, and of values in room made beforehand.
#include <memory>
#include <string>
#include <vector>

#include "base/queue.h"
#include "base/ring.h"
#include "check.h"

using namespace test;

namespace {

struct Link {
  explicit Link(int number) : value(number) {}
  int value;
  std::unique_ptr<Link> next;
};

std::string drained(ptl::Queue<Link> *queue) {
  std::string values;
  while (!queue->empty()) values += std::to_string(queue->pop_front()->value);
  return values;
}

}  // namespace

TEST(a_queue_keeps_the_order) {
  ptl::Queue<Link> queue;
  CHECK(queue.empty());
  for (int i = 1; i <= 3; i++) queue.push_back(std::make_unique<Link>(i));
  CHECK_EQ(queue.pop_front()->value, 1);
  queue.push_back(std::make_unique<Link>(4));
  CHECK_EQ(drained(&queue), std::string("234"));
  queue.push_back(std::make_unique<Link>(5));
  CHECK_EQ(drained(&queue), std::string("5"));
}

TEST(a_queue_gives_from_anywhere) {
  for (int wanted : {1, 2, 3, 4}) {
    ptl::Queue<Link> queue;
    for (int i = 1; i <= 3; i++) queue.push_back(std::make_unique<Link>(i));
    std::unique_ptr<Link> taken = queue.take_if([wanted](const Link *link) { return link->value == wanted; });
    CHECK_EQ(taken != nullptr, wanted <= 3);
    CHECK(!taken || (taken->value == wanted && !taken->next));
    queue.push_back(std::make_unique<Link>(9));
    std::string rest = "1239";
    if (wanted <= 3) rest.erase(static_cast<size_t>(wanted) - 1, 1);
    CHECK_EQ(drained(&queue), rest);
  }
}

TEST(a_long_queue_takes_no_deep_stack) {
  ptl::Queue<Link> queue;
  for (int i = 0; i < 1000000; i++) queue.push_back(std::make_unique<Link>(i));
}

TEST(a_ring_keeps_the_order_as_it_grows) {
  ptl::Ring<int> ring;
  int in = 0, out = 0;
  for (size_t most = 1; most < 100; most++) {
    ring.reserve(most);
    while (ring.size() < most) ring.push_back(in++);
    for (size_t left = most / 2; left != 0; left--) {
      CHECK_EQ(ring.front(), out++);
      ring.pop_front();
    }
  }
  while (!ring.empty()) {
    CHECK_EQ(ring.front(), out++);
    ring.pop_front();
  }
  CHECK_EQ(in, out);
}
