// One tunnel, from connect to close: CONNECT where there is a proxy, TLS, what it talks.
#ifndef POLYTLS_BENCH_LOAD_TUNNEL_H
#define POLYTLS_BENCH_LOAD_TUNNEL_H

#include <memory>
#include <string>

#include "common/channel.h"
#include "common/loop.h"
#include "load/plan.h"
#include "load/runner.h"
#include "load/tally.h"
#include "load/talk.h"

namespace bench {

class Tunnel : public Handler {
 public:
  Tunnel(Runner *runner, Plan plan);  // begin is called next

  void begin();
  void on_event(uint32_t events) override;
  void wake();         // after a pause
  void ask_again();    // of a held one: another request
  void fail(const std::string &why);
  const char *where() const;  // for timeouts

  const Plan &plan() const { return plan_; }
  uint64_t progress_ns() const { return progress_ns_; }
  bool paused() const { return paused_; }

 private:
  enum class Step { kConnect, kAsk, kShake, kTalk, kAwaitEnd, kHeld };

  void go_on();
  bool connected();
  bool ask();
  bool begin_tls();
  bool shake();
  bool talk();
  bool await_end();
  bool held();
  bool reset_here(int stage);
  void end_well();

  Runner *runner_;
  Plan plan_;
  Channel channel_;
  Step step_ = Step::kConnect;
  Times times_;
  uint64_t progress_ns_ = 0;
  bool asked_ = false, paused_ = false, held_before_ = false, is_h2_ = false, resumed_ = false;
  std::string in_;
  std::unique_ptr<Talk> talk_;
};

}  // namespace bench

#endif
