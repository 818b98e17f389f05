// Handles to streams: what outlived its stream names none.
#include "engine/slab.h"

#include <random>
#include <set>
#include <vector>

#include "check.h"

using ptl::Fd;
using ptl::Slab;
using ptl::Stream;

namespace {

Stream *add(Slab *slab) { return slab->add(std::make_unique<Stream>(nullptr, Fd())); }

}  // namespace

TEST(handles_hold_loop_index_and_generation) {
  Slab slab(200);
  Stream *first = add(&slab);
  Stream *second = add(&slab);
  CHECK_EQ(ptl::handle_loop(first->handle), 200u);
  CHECK_EQ(ptl::handle_index(first->handle), 0u);
  CHECK_EQ(ptl::handle_index(second->handle), 1u);
  CHECK_EQ(ptl::handle_generation(first->handle), 1u);
  CHECK(slab.find(first->handle) == first);
  CHECK(slab.find(second->handle) == second);
  CHECK_EQ(slab.count(), 2u);
}

TEST(what_is_no_handle_names_nothing) {
  Slab slab(3);
  Stream *stream = add(&slab);
  CHECK(slab.find(0) == nullptr);
  CHECK(slab.find(UINT64_MAX) == nullptr);
  CHECK(slab.find(stream->handle + 1) == nullptr);                              // no such index
  CHECK(slab.find(stream->handle ^ (uint64_t{1} << ptl::kIndexBits)) == nullptr);  // another loop's
  CHECK(slab.find(stream->handle + (uint64_t{1} << 32)) == nullptr);            // another generation's
}

TEST(a_stale_handle_never_names_the_next_stream) {
  Slab slab(0);
  Stream *stream = add(&slab);
  ptl_stream old = stream->handle;
  slab.remove(stream);
  CHECK(slab.find(old) == nullptr);
  Stream *next = add(&slab);
  CHECK_EQ(ptl::handle_index(next->handle), ptl::handle_index(old));
  CHECK(next->handle != old);
  CHECK(slab.find(old) == nullptr);
  CHECK(slab.find(next->handle) == next);
}

TEST(generations_wrap_past_what_is_reserved) {
  Slab slab(1, ptl::kLastGeneration - 1);
  std::set<ptl_stream> seen;
  for (uint32_t wanted : {ptl::kLastGeneration - 1, ptl::kLastGeneration, 1u, 2u}) {
    Stream *stream = add(&slab);
    CHECK_EQ(ptl::handle_generation(stream->handle), wanted);
    CHECK(stream->handle != 0);
    CHECK(stream->handle < ptl::kListenerMark);  // epoll's data above it means something else
    CHECK(seen.insert(stream->handle).second);
    slab.remove(stream);
  }
  for (ptl_stream handle : seen) CHECK(slab.find(handle) == nullptr);
}

TEST(each_visits_the_living) {
  Slab slab(0);
  std::vector<Stream *> streams;
  for (int i = 0; i < 10; i++) streams.push_back(add(&slab));
  for (size_t i = 0; i < 10; i += 2) slab.remove(streams[i]);
  std::set<Stream *> visited;
  slab.each([&](Stream *stream) { visited.insert(stream); });
  CHECK_EQ(visited.size(), 5u);
  for (size_t i = 1; i < 10; i += 2) CHECK_EQ(visited.count(streams[i]), 1u);
}

TEST(random_adds_and_removes) {
  std::mt19937 random(3);
  Slab slab(5);
  std::vector<Stream *> living;
  std::vector<ptl_stream> dead;
  for (int step = 0; step < 5000; step++) {
    if (living.empty() || random() % 2 == 0) {
      living.push_back(add(&slab));
    } else {
      size_t i = random() % living.size();
      dead.push_back(living[i]->handle);
      slab.remove(living[i]);
      living[i] = living.back();
      living.pop_back();
    }
    CHECK_EQ(slab.count(), living.size());
  }
  for (Stream *stream : living) CHECK(slab.find(stream->handle) == stream);
  for (ptl_stream handle : dead) CHECK(slab.find(handle) == nullptr);
}
