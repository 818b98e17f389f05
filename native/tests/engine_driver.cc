#include "engine_driver.h"

#include <poll.h>
#include <string.h>

#include <utility>

#include "check.h"
#include "engine/slab.h"
#include "operations.h"

namespace test {

namespace {

constexpr size_t kDrainBatch = 16;  // small, so that draining in parts happens

// No stream, on the loop of |stream|: an operation on it completes at once as stale.
ptl_stream nobody_beside(ptl_stream stream) {
  return uint64_t{ptl::handle_loop(stream)} << ptl::kIndexBits | (ptl::kMaxStreamsPerLoop - 1);
}

}  // namespace

EngineDriver::EngineDriver(uint32_t num_loops, uint32_t max_streams) {
  char error[200] = "";
  engine_ = ptl_engine_new(num_loops, max_streams, error, sizeof(error));
  if (engine_ == nullptr) throw GaveUp(error);
}

EngineDriver::~EngineDriver() {
  if (engine_ == nullptr) return;
  stop();
  ptl_engine_free(engine_);
}

uint16_t EngineDriver::listen(uint32_t head_max, uint32_t head_ms, const char *ip) {
  uint16_t port = 0;
  int error = 0;
  int status =
      ptl_listen(engine_, ip, 0, 512, head_max, head_ms, kAcceptTag, &listener_, &port, &error);
  if (status != PTL_OK) throw GaveUp(std::string("ptl_listen: ") + strerror(error));
  return port;
}

uint64_t EngineDriver::submit(ptl_op op) { return submit_all({op})[0]; }

std::vector<uint64_t> EngineDriver::submit_all(std::vector<ptl_op> ops) {
  std::vector<uint64_t> tags;
  for (ptl_op &op : ops) {
    op.tag = op.tag == kUntagged ? 0 : ++last_tag_;
    tags.push_back(op.tag);
    if (op.tag != 0) outstanding_.insert(op.tag);
  }
  REQUIRE_EQ(ptl_submit(engine_, ops.data(), ops.size()), PTL_OK);
  return tags;
}

void EngineDriver::keep(ptl_completion *completion) {
  if (completion->tag != kAcceptTag && outstanding_.erase(completion->tag) == 0) {
    failed(__FILE__, __LINE__, "a completion nobody waits for, kind " + shown(completion->kind));
  }
  CHECK(completion->ended_ns >= completion->started_ns && completion->started_ns != 0);
  Done done{*completion, std::string(reinterpret_cast<const char *>(completion->data), completion->data_len)};
  ptl_release(completion, 1);
  done.raw.data = nullptr;
  arrived_[done->tag].push_back(std::move(done));
}

void EngineDriver::drain() {
  ptl_completion batch[kDrainBatch];
  while (size_t n = ptl_drain(engine_, batch, kDrainBatch)) {
    for (size_t i = 0; i < n; i++) keep(&batch[i]);
  }
}

void EngineDriver::wait_for_completions() {
  pollfd event{ptl_engine_eventfd(engine_), POLLIN, 0};
  if (poll(&event, 1, kPatienceMs) == 0) throw GaveUp("no completion came");
}

bool EngineDriver::has(uint64_t tag) {
  drain();
  auto found = arrived_.find(tag);
  return found != arrived_.end() && !found->second.empty();
}

Done EngineDriver::await(uint64_t tag) {
  while (!has(tag)) wait_for_completions();
  std::deque<Done> &queue = arrived_[tag];
  Done done = std::move(queue.front());
  queue.pop_front();
  if (queue.empty()) arrived_.erase(tag);
  return done;
}

void EngineDriver::await_all() {
  drain();
  while (!outstanding_.empty()) {
    wait_for_completions();
    drain();
  }
}

void EngineDriver::turn(ptl_stream stream) {
  CHECK_STATUS(run(read_op(nobody_beside(stream), 1)), PTL_E_STALE);
}

ptl_stats EngineDriver::stats() const {
  ptl_stats stats;
  ptl_engine_stats(engine_, &stats);
  return stats;
}

void EngineDriver::await_stats(const std::function<bool(const ptl_stats &)> &good) {
  uint64_t give_up_ns = 0;
  while (!good(stats())) {
    for (uint64_t loop = 0; loop < ptl_engine_num_loops(engine_); loop++) {
      Done done = run(read_op(nobody_beside(loop << ptl::kIndexBits), 1));
      if (give_up_ns == 0) give_up_ns = done->ended_ns + kPatienceMs * uint64_t{1000000};
      if (done->ended_ns > give_up_ns) throw GaveUp("the counters did not become what they should");
    }
  }
}

void EngineDriver::await_no_streams() {
  await_stats([](const ptl_stats &stats) { return stats.streams == 0; });
}

void EngineDriver::stop() {
  ptl_engine_stop(engine_);
  drain();
  CHECK_EQ(outstanding_.size(), 0u);
  outstanding_.clear();
  ptl_stats last = stats();
  CHECK_EQ(last.streams, 0u);
  CHECK_EQ(last.operations, 0u);
  CHECK_EQ(last.relays, 0u);
  CHECK_EQ(last.buffered_bytes, 0u);
  CHECK_EQ(last.completions, 0u);
  CHECK_EQ(last.impossible, 0u);
}

void EngineDriver::free_undrained() {
  CHECK_EQ(stats().impossible, 0u);
  ptl_engine_free(engine_);
  engine_ = nullptr;
}

bool status_is(const char *file, int line, const Done &done, int status) {
  if (done->status == status) return true;
  failed(file, line,
         std::string(ptl_status_name(done->status)) + " is not " + ptl_status_name(status) + ": " +
             shown(done.data));
  return false;
}

}  // namespace test
