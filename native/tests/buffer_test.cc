// Bytes that wait: what goes in comes out, and nothing is held while there is nothing.
#include "base/buffer.h"

#include <random>
#include <string>
#include <thread>

#include "check.h"

using ptl::Buffer;

namespace {

bool append(Buffer *buffer, const std::string &text) {
  return buffer->append(reinterpret_cast<const uint8_t *>(text.data()), text.size());
}

std::string content(const Buffer &buffer) {
  return std::string(reinterpret_cast<const char *>(buffer.data()), buffer.size());
}

}  // namespace

TEST(empty_holds_nothing) {
  Buffer buffer;
  CHECK(buffer.empty());
  CHECK_EQ(buffer.size(), 0u);
  CHECK(buffer.append(nullptr, 0));
  CHECK(buffer.empty());
  buffer.clear();
  CHECK_EQ(ptl::buffered_bytes, 0u);
}

TEST(appends_and_consumes) {
  Buffer buffer;
  REQUIRE(append(&buffer, "hello "));
  REQUIRE(append(&buffer, "world"));
  CHECK_EQ(content(buffer), "hello world");
  buffer.consume(6);
  CHECK_EQ(content(buffer), "world");
  REQUIRE(append(&buffer, "!"));
  CHECK_EQ(content(buffer), "world!");
  CHECK(ptl::buffered_bytes >= buffer.size());
  buffer.consume(6);
  CHECK(buffer.empty());
  CHECK_EQ(ptl::buffered_bytes, 0u);  // freed with the last byte, not later
}

TEST(moves_and_swaps) {
  Buffer a;
  REQUIRE(append(&a, "a"));
  Buffer b(std::move(a));
  CHECK(a.empty());
  CHECK_EQ(content(b), "a");
  REQUIRE(append(&a, "second life"));
  a.swap(b);
  CHECK_EQ(content(a), "a");
  CHECK_EQ(content(b), "second life");
  a = std::move(b);
  CHECK_EQ(content(a), "second life");
  CHECK(b.empty());
  a.clear();
  CHECK_EQ(ptl::buffered_bytes, 0u);
}

TEST(destruction_gives_the_bytes_back) {
  {
    Buffer buffer;
    REQUIRE(append(&buffer, std::string(100000, 'x')));
    CHECK(ptl::buffered_bytes >= 100000);
  }
  CHECK_EQ(ptl::buffered_bytes, 0u);
}

TEST(bytes_are_counted_by_thread) {
  Buffer mine;
  REQUIRE(append(&mine, "mine"));
  size_t theirs = 1;
  std::thread([&] { theirs = ptl::buffered_bytes; }).join();
  CHECK_EQ(theirs, 0u);
}

TEST(random_against_a_string) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; round++) {
    Buffer buffer;
    std::string model;
    for (int step = 0; step < 300; step++) {
      if (random() % 2 == 0) {
        std::string more(random() % 5000, static_cast<char>('a' + random() % 26));
        REQUIRE(append(&buffer, more));
        model += more;
      } else if (!model.empty()) {
        size_t size = random() % model.size() + (random() % 8 == 0 ? 1 : 0);
        buffer.consume(size);
        model.erase(0, size);
      }
      REQUIRE_EQ(buffer.size(), model.size());
      CHECK_EQ(ptl::buffered_bytes == 0, model.empty());
      CHECK(ptl::buffered_bytes >= model.size());
    }
    CHECK(content(buffer) == model);
  }
  CHECK_EQ(ptl::buffered_bytes, 0u);
}
