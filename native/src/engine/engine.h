// The engine: its loops, its threads, its queue of completions.
#ifndef POLYTLS_SRC_ENGINE_ENGINE_H
#define POLYTLS_SRC_ENGINE_ENGINE_H

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/completion.h"
#include "engine/loop.h"
#include "polytls/native.h"

namespace ptl {

class Engine {
 public:
  // start returns a running engine, or null with a sentence in |*out_error|.
  static std::unique_ptr<Engine> start(uint32_t num_loops, uint32_t max_streams, std::string *out_error);
  ~Engine();

  void stop();
  CompletionQueue *completions() { return &completions_; }
  uint32_t num_loops() const { return static_cast<uint32_t>(loops_.size()); }

  int listen(const char *ip, uint16_t port, int backlog, uint32_t head_max, uint32_t head_ms,
             uint64_t tag, uint32_t *out_listener, uint16_t *out_port, int *out_errno);
  int listen_on(Fd fd, uint32_t head_max, uint32_t head_ms, uint64_t tag, uint32_t *out_listener,
                int *out_errno);
  void unlisten(uint32_t listener);
  int submit(const ptl_op *ops, size_t num_ops);
  void cancel(ptl_stream stream, uint64_t tag);
  void stats(ptl_stats *out);

  // Room for one more stream, counted over all loops.
  bool take_room();
  void give_room() { open_.fetch_sub(1, std::memory_order_relaxed); }

 private:
  explicit Engine(uint32_t max_streams) : max_streams_(max_streams) {}
  int add_listener(Fd fd, uint32_t head_max, uint32_t head_ms, uint64_t tag, uint32_t *out_listener);

  const uint32_t max_streams_;
  std::atomic<uint32_t> open_{0};
  std::atomic<uint64_t> last_accepts_{0};  // accepted by |unlisten|, not by a loop
  CompletionQueue completions_;
  std::vector<std::unique_ptr<Loop>> loops_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;  // guards what is below
  uint32_t last_listener_ = 0;
  std::map<uint32_t, std::shared_ptr<Listener>> listeners_;
  bool stopped_ = false;
};

}  // namespace ptl

struct ptl_engine {
  std::unique_ptr<ptl::Engine> engine;
};

#endif
