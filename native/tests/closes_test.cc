// The room for closes: one for each stream, the first, and never another stream's.
#include <string>

#include "check.h"
#include "engine/closes.h"

using namespace test;

namespace {

constexpr uint32_t kLoop = 3;

ptl_stream handle(uint32_t generation, uint32_t index, uint32_t loop = kLoop) {
  return ptl::make_handle(generation, loop, index);
}

// What is in |closes|, which is empty afterwards.
std::string taken(ptl::Closes *closes) {
  std::string all;
  ptl::Closes::Close close;
  for (size_t at = 0; closes->take(&at, &close);) {
    CHECK_EQ(ptl::handle_loop(close.stream), kLoop);
    all += std::to_string(ptl::handle_generation(close.stream)) + ":" + std::to_string(ptl::handle_index(close.stream)) +
           (close.reset ? " reset" : " alert " + std::to_string(close.alert)) + ",";
  }
  CHECK(closes->empty());
  return all;
}

}  // namespace

TEST(each_is_taken_once) {
  ptl::Closes closes(kLoop);
  closes.reserve(200);
  CHECK(closes.empty());
  closes.put({handle(1, 199), 0, true});
  closes.put({handle(7, 0), 40, false});
  closes.put({handle(2, 65), 0, false});
  CHECK(!closes.empty());
  CHECK_EQ(taken(&closes), std::string("7:0 alert 40,2:65 alert 0,1:199 reset,"));
  CHECK_EQ(taken(&closes), std::string());
  closes.put({handle(7, 0), 41, false});
  CHECK_EQ(taken(&closes), std::string("7:0 alert 41,"));
}

TEST(room_is_for_all_and_grows_with_what_it_holds) {
  ptl::Closes closes(kLoop);
  for (uint32_t i = 0; i < 1000; i++) {
    closes.reserve(i + 1);
    CHECK(closes.room() > i && closes.room() <= i + 64);
    closes.put({handle(1, i), 0, true});
  }
  size_t count = 0, at = 0;
  for (ptl::Closes::Close close; closes.take(&at, &close); count++) CHECK_EQ(ptl::handle_index(close.stream), count);
  CHECK_EQ(count, 1000u);
}

TEST(the_first_of_two_counts) {
  ptl::Closes closes(kLoop);
  closes.reserve(1);
  closes.put({handle(5, 0), 40, false});
  closes.put({handle(5, 0), 0, true});
  CHECK_EQ(taken(&closes), std::string("5:0 alert 40,"));
}

TEST(a_stream_that_is_gone_stands_before_none) {
  ptl::Closes closes(kLoop);
  closes.reserve(1);
  for (uint32_t later : {6u, 1u}) {  // after the last generation comes the first
    const uint32_t gone = later == 1 ? ptl::kLastGeneration : later - 1;
    closes.put({handle(gone, 0), 0, true});
    closes.put({handle(later, 0), 40, false});
    closes.put({handle(gone, 0), 0, true});
    CHECK_EQ(taken(&closes), std::to_string(later) + ":0 alert 40,");
  }
}

TEST(what_is_no_stream_is_not_put) {
  ptl::Closes closes(kLoop);
  closes.put({handle(1, 0), 0, true});  // there was none yet
  closes.reserve(1);
  for (ptl_stream stream : {ptl_stream{0}, handle(0, 0), handle(1, 64), handle(1, 0, kLoop + 1), PTL_STREAM_CONNECTED}) {
    closes.put({stream, 0, true});
    CHECK(closes.empty());
  }
}
