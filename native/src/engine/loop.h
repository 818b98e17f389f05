// One epoll loop and everything that lives on it. Nothing is shared with other loops but the engine's queue of
// completions and its counters; commands come in through one locked inbox.
#ifndef POLYTLS_SRC_ENGINE_LOOP_H
#define POLYTLS_SRC_ENGINE_LOOP_H

#include <stdint.h>

#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "base/queue.h"
#include "base/ring.h"
#include "base/timer_wheel.h"
#include "engine/closes.h"
#include "engine/completion.h"
#include "engine/operation.h"
#include "engine/slab.h"
#include "engine/stream.h"
#include "hello/parse.h"
#include "polytls/native.h"
#include "relay/relay.h"

namespace ptl {

class Engine;

// What one loop counts; read by other threads.
struct Counters {
  std::atomic<uint64_t> streams{0}, operations{0}, relays{0}, buffered_bytes{0};
  std::atomic<uint64_t> accepted{0}, connected{0}, handshakes{0}, relayed_bytes{0};
  std::atomic<uint64_t> accept_errors{0}, stale_handles{0}, sessions_offered{0}, impossible{0}, rests{0};
};

// A listening socket, shared by all loops: whoever wakes accepts.
struct Listener {
  Fd fd;
  uint64_t tag;
  uint32_t head_max;
  uint32_t head_ms;
};

// Those that a loop watches, by number: few. A list, so that one that is handed over takes no memory.
using Listeners = std::list<std::pair<uint32_t, std::shared_ptr<Listener>>>;

struct Command {
  enum class Kind { kStart, kCancel, kListen, kUnlisten, kAccepted };
  explicit Command(Kind what) : kind(what) {}

  Kind kind;
  std::unique_ptr<Op> op;              // kStart
  uint64_t tag = 0;                    // kCancel
  Listeners listens;                   // kListen: one
  std::shared_ptr<Listener> listener;  // kAccepted
  uint32_t listener_id = 0;            // kUnlisten
  Fd fd;                               // kAccepted, with room taken for it
  std::string peer;                    // kAccepted
};

// What came of accepting: a connection, for which room was taken; none that waits; one whose client went away before
// it was accepted; no room in the engine; or not enough descriptors or memory.
enum class Accepted { kOne, kNone, kGone, kNoRoom, kShort };
Accepted accept_one(Engine *engine, int listener, Fd *out_fd, std::string *out_peer);

class Loop {
 public:
  // Bytes that one direction moves before others get their turn. Each transfer wakes both ends, which costs more than
  // the copy: in pieces of 128 KiB a plain GB took a sixth more CPU. Memory held for a stalled reader is in proportion.
  static constexpr size_t kChunkBytes = 256 << 10;
  // The same while others want their turn: about 40 us with TLS on both sides, less than a step of a handshake takes.
  static constexpr size_t kSmallChunkBytes = 64 << 10;
  // Turns of the loop for which others are expected back: some milliseconds beside a download, a handshake's flight.
  static constexpr uint32_t kCrowdTurns = 64;
  // How many completions a turn can have when there is no memory at all; those beyond wait for some.
  static constexpr size_t kSpareCompletions = 64;
  // How long a quiet completion may wait for company: nobody notices.
  static constexpr uint64_t kQuietMs = 5;

  Loop(Engine *engine, uint32_t index);
  ~Loop();
  bool ok() const { return epoll_.ok() && wake_.ok(); }

  // post hands |command| to the loop, from any thread. It returns false when the loop has stopped.
  bool post(Command command);
  // ask_close has a stream closed as by a CLOSE of which nobody is told, behind what was posted before. It takes no
  // memory. It returns false when the loop has stopped.
  bool ask_close(const Closes::Close &close);
  // stop makes |run| end; |run| ends every operation and stream before it returns.
  void stop();
  void run();

  const Counters &counters() const { return counters_; }

 private:
  friend struct Stream;

  // loop.cc: the loop itself
  void take_inbox();
  void take_closes();
  bool cancel_linked(uint64_t tag);
  void execute(Command *command);
  void on_event(uint64_t data, uint32_t events);
  void run_ready(size_t turns);
  void run_starts();
  void sweep();
  void publish();
  static void quiet_over(void *loop);
  void shut_down();
  int sleep_ms() const;
  uint64_t now_ms() const { return (now_ns_ - origin_ns_) / 1000000u; }

  // accept.cc
  void on_acceptable(uint32_t id);
  void accept_failed();
  void pause_accepting();
  static void resume_accepting(void *loop);
  void begin_head(const Listener &listener, Fd fd, std::string peer);
  bool watch_listener(uint32_t id, int fd);
  Listeners::iterator find_listener(uint32_t id);

  // io.cc: sockets. These two return null, with an errno, when there is no room (EAGAIN) or no memory (ENOMEM)
  Stream *new_stream(Fd fd);
  Stream *place_stream(Fd fd);  // in room that was taken; given back when there is no stream
  bool watch(Stream *stream, bool writability);
  void await_writable(Stream *stream);
  // receive reads once into |scratch|. It returns the bytes read, or 0 when there are none: then |fin|,
  // |broken| or neither of the stream says which.
  size_t receive(Stream *stream, uint8_t *scratch, size_t size);
  // send_now hands |bytes| to the socket as far as it takes them, and keeps the rest in |out|. It returns
  // false when the stream broke.
  bool send_now(Stream *stream, const uint8_t *bytes, size_t size);
  // flush sends what waits. |more|: a FIN comes right behind, and shares a segment with the last of it.
  bool flush(Stream *stream, bool more = false);
  void stage(Stream *stream);
  bool unstage();
  void mark_broken(Stream *stream, int error);
  void mark_deaf(Stream *stream, int error);
  void reserve_close();
  void close_stream(Stream *stream, uint8_t alert, bool reset, bool say_goodbye);
  void advance_close(Stream *stream);
  void destroy(Stream *stream);
  static void linger_over(void *stream);

  // operation_steps.cc
  void start(std::unique_ptr<Op> op);
  void start_on_stream(Op *op, Stream *stream);
  void advance(Stream *stream);
  void close_as_asked(Stream *stream, uint8_t alert, bool reset);
  Stream *find_open(ptl_stream handle);
  Op *enlist(std::unique_ptr<Op> op);  // null, and |op| is refused, when memory is short
  void try_head(Stream *stream);
  void try_peek(Stream *stream);
  void try_read(Stream *stream);
  void try_write(Stream *stream);
  bool top_up(Stream *stream);

  // operation_ends.cc
  ptl_completion completion_of(const Op *op, int status) const;
  // Each of these ends |op|: nobody may touch it afterwards.
  void complete(Op *op, ptl_completion completion);
  void fail(Op *op, int status, std::string_view detail, int sys_errno = 0);
  void fail_with_input(Op *op, Stream *stream, int status, int sys_errno = 0);
  void fail_gone(Op *op, Stream *stream);
  void end_early(Op *op, int status);
  void out_of_memory(Stream *stream, Op *op);
  void refuse(std::unique_ptr<Op> op, int status, const char *detail);
  void tell_with_rest(std::unique_ptr<Op> op, std::unique_ptr<Op> rest, const ptl_completion &because);
  void attach_hello(const Op *op, ptl_completion *completion);
  // These two return false where there is no memory to tell it; then |op| is to be put into |untold_|.
  bool keep(Op *op, ptl_completion completion, Completions *in);
  bool tell(Op *op, ptl_completion completion, bool quiet = false);
  void tell_untold();
  void be_done_with(std::unique_ptr<Op> op, bool told);
  static void deadline_passed(void *op);

  // handshake.cc
  void start_tls(Op *op, Stream *stream);
  void try_handshake(Stream *stream);
  void handshake_done(Op *op, Stream *stream);

  // connect.cc
  void start_connect(Op *op);
  void next_attempt(Op *op);
  void attempt_failed(Op *op, size_t address, int error);
  void attempt_ready(Stream *stream, uint32_t events);
  void connect_over(Op *op, Stream *winner, int status);
  void near_end_gone(Stream *near);
  static void stagger_over(void *op);

  // relay.cc
  void note_error(Stream *stream);
  void lose(Relay *relay, Direction *direction);
  void start_relay(Op *op, Stream *stream);
  void turn(Stream *stream);
  void pump(Relay *relay, Direction *direction);
  void move(Relay *relay, Direction *direction);
  size_t chunk_bytes() const { return crowd_ != 0 ? kSmallChunkBytes : kChunkBytes; }
  bool pump_plain(Relay *relay, Direction *direction, size_t *budget);
  bool pump_tls(Relay *relay, Direction *direction, size_t *budget);
  bool forward(Relay *relay, Direction *direction, const uint8_t *bytes, size_t size);
  void note_moved(Relay *relay, Direction *direction, size_t size);
  void cut_off(Relay *relay, Direction *direction);
  void finish(Relay *relay, Direction *direction);
  void relay_broken(Relay *relay, Stream *whose);
  void both_done(Relay *relay);
  void relay_over(Relay *relay, int status, Stream *whose, std::string_view detail, int sys_errno);
  void relay_tls_failed(Relay *relay, Stream *whose, const TlsFailure &failure);
  void arm_idle(Relay *relay);
  static void idle_over(void *relay);
  void make_ready(Stream *stream);

  Engine *const engine_;
  const uint32_t index_;
  const uint64_t origin_ns_;
  uint64_t now_ns_;
  Fd epoll_, wake_;
  Counters counters_;
  TimerWheel wheel_;
  Slab slab_;
  Queue<Stream> graves_;    // freed at the end of a turn: somebody may be looking at them
  Queue<Op> ended_;         // likewise
  Ring<ptl_stream> ready_;  // streams that gave up their turn; with room for every one there is
  uint32_t crowd_ = 0;      // turns since others than bulk relays wanted one, down to 0
  Queue<Op> starts_;        // operations whose turn has come
  std::unordered_map<uint64_t, std::unique_ptr<Op>> under_way_;
  uint64_t last_key_ = 0;
  Completions completions_;
  Completions spare_;   // room for those that there is no memory for
  Queue<Op> untold_;    // what ended when there was none left: told as soon as there is
  bool urgent_ = false;  // one of |completions_| must be told at the end of this turn
  Timer quiet_;          // armed when some were left to wait for company
  Listeners listeners_;
  Timer accept_pause_;

  // Scratch memory, one for all streams of the loop.
  std::unique_ptr<uint8_t[]> chunk_;
  std::unique_ptr<uint8_t[]> plain_;
  std::vector<uint8_t> staged_;
  Stream *on_stage_ = nullptr;
  std::vector<uint8_t> hello_scratch_;

  std::mutex inbox_mutex_;  // guards the three below; room for closes is made by this loop alone
  std::vector<Command> inbox_;
  Closes closes_;
  bool stopped_ = false;
  std::atomic<bool> stopping_{false};
};

}  // namespace ptl

#endif
