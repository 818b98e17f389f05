// Whatever happens to a tunnel, whenever it happens: one completion for each operation, and nothing left.
//
// EngineDriver checks the first for every test: a completion too many or too few fails it, as does a stream
// or a byte that outlives its tunnel, and a counter of impossible things that moved.
#include <poll.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "exchange.h"
#include "script.h"
#include "tunnel.h"

using namespace test;

namespace {

constexpr int kRandomRounds = 200;

int steps_of_a_whole_script(uint64_t seed) {
  EngineDriver engine(2);
  Script script(&engine, engine.listen(), seed);
  int steps = 0;
  while (script.step()) steps++;
  CHECK_STATUS(script.relayed(), PTL_OK);
  return steps;
}

bool ends_the_engine(Fate fate) { return fate == Fate::kStop || fate == Fate::kFree; }

}  // namespace

TEST(a_script_that_nothing_happens_to) {
  for (uint64_t seed = 1; seed <= 5; seed++) {
    int steps = steps_of_a_whole_script(seed);
    CHECK(steps > 8 && steps < 500);
  }
}

TEST(every_fate_at_every_step) {
  const int last = steps_of_a_whole_script(1) + 1;
  for (int fate = 0; fate < kNumFates; fate++) {
    auto engine = std::make_unique<EngineDriver>(2);
    uint16_t port = engine->listen();
    for (int at = 0; at <= last; at++) {
      Script script(engine.get(), port, 1);
      for (int i = 0; i < at && script.step(); i++) {
      }
      script.meet(static_cast<Fate>(fate));
      if (!ends_the_engine(static_cast<Fate>(fate))) continue;
      engine = std::make_unique<EngineDriver>(2);
      port = engine->listen();
    }
  }
}

TEST(any_fate_at_any_step) {
  std::mt19937_64 random(4711);
  for (int round = 0; round < kRandomRounds; round++) {
    EngineDriver engine(1 + static_cast<uint32_t>(random() % 2));
    Script script(&engine, engine.listen(), random() % 1000);
    auto fate = static_cast<Fate>(random() % kNumFates);
    for (uint64_t left = random() % 40; left != 0 && script.step(); left--) {
    }
    script.meet(fate);
  }
}

namespace {

// An operation under way that nothing will end but what the test does, on a stream of |tunnel|.
struct Waiting {
  const char *name;
  TunnelSpec spec;
  std::function<void(EngineDriver *, Tunnel *)> start;
};

TunnelSpec small_plain() {
  TunnelSpec spec;
  spec.receive_bytes = 4096;
  return spec;
}

TunnelSpec tls() {
  TunnelSpec spec;
  spec.tls = true;
  return spec;
}

std::vector<Waiting> all_waiting() {
  static const Blackhole nowhere;
  static const std::string much(16 << 20, 'x');
  auto buffered = [](const ptl_stats &stats) { return stats.buffered_bytes != 0; };
  return {
      {"a head of which half is there", TunnelSpec(),
       [](EngineDriver *engine, Tunnel *tunnel) {
         tunnel->client.write("GET /");
         engine->submit(head_op(tunnel->stream, 100));
       }},
      {"a hello of which a byte is there", TunnelSpec(),
       [](EngineDriver *engine, Tunnel *tunnel) {
         tunnel->client.write("\x16");
         engine->submit(peek_op(tunnel->stream));
       }},
      {"a read", tls(),
       [](EngineDriver *engine, Tunnel *tunnel) { engine->submit(read_op(tunnel->stream, 1)); }},
      {"a write that stalls", small_plain(),
       [buffered](EngineDriver *engine, Tunnel *tunnel) {
         engine->submit(write_op(tunnel->stream, much));
         engine->await_stats(buffered);
       }},
      {"a chain", TunnelSpec(),
       [](EngineDriver *engine, Tunnel *tunnel) {
         engine->submit_all({linked(read_op(tunnel->stream, 1)), linked(write_op(tunnel->stream, much)),
                             close_op(tunnel->stream)});
       }},
      {"a connect to nowhere", TunnelSpec(),
       [](EngineDriver *engine, Tunnel *tunnel) {
         ptl_address hole = loopback(nowhere.port());
         engine->submit(within(200, connect_op(tunnel->stream, {hole, hole}, 1)));
       }},
      {"a handshake with a silent server", TunnelSpec(),
       [](EngineDriver *engine, Tunnel *tunnel) {
         engine->submit(connect_tls_op(tunnel->other, lab().client.get(), "origin.test"));
         tunnel->origin.read(10);
       }},
      {"a handshake with a silent client", TunnelSpec(),
       [](EngineDriver *engine, Tunnel *tunnel) {
         tunnel->client.be_client(lab().client_ctx.get());
         tunnel->client.shake_once();
         engine->submit(accept_tls_op(tunnel->stream, lab().server.get(), lab().credential.get()));
         tunnel->client.wait(POLLIN);  // its flight is there, and stays unanswered
       }},
      {"a handshake inside TLS", tls(),
       [](EngineDriver *engine, Tunnel *tunnel) {
         engine->submit(connect_tls_op(tunnel->other, lab().client.get(), "origin.test"));
         tunnel->origin.read(10);
       }},
      {"a relay", TunnelSpec(),
       [](EngineDriver *engine, Tunnel *tunnel) { engine->submit(relay_op(tunnel->stream, tunnel->other)); }},
      {"a relay of TLS", tls(),
       [](EngineDriver *engine, Tunnel *tunnel) { engine->submit(relay_op(tunnel->stream, tunnel->other)); }},
      {"a relay of which half is closed", tls(),
       [](EngineDriver *engine, Tunnel *tunnel) {
         engine->submit(relay_op(tunnel->stream, tunnel->other));
         tunnel->client.say_goodbye();
         tunnel->client.shutdown_write();
         CHECK(tunnel->origin.await_end() == Outcome::kEnd);
       }},
      {"a relay to a reader that stalls", small_plain(),
       [](EngineDriver *engine, Tunnel *tunnel) {
         engine->submit(relay_op(tunnel->stream, tunnel->other));
         bool broken;
         while (engine->stats().buffered_bytes == 0) {
           tunnel->client.write_some(much.data(), much.size(), &broken);
           engine->turn();
         }
       }},
      {"nothing: both streams are closing", small_plain(),
       [](EngineDriver *engine, Tunnel *tunnel) {
         engine->submit_all({close_op(tunnel->stream), close_op(tunnel->other)});
       }},
  };
}

void end_it(EngineDriver *engine, Tunnel *tunnel, Fate fate) {
  const uint32_t flags = fate == Fate::kReset ? PTL_FLAG_RESET : 0;
  switch (fate) {
    case Fate::kCancel:
      for (uint64_t tag : std::set<uint64_t>(engine->outstanding())) engine->cancel(tunnel->stream, tag);
      engine->await_all();
      [[fallthrough]];
    case Fate::kClose:
    case Fate::kReset:
      engine->submit_all({close_op(tunnel->other, flags), close_op(tunnel->stream, flags)});
      break;
    case Fate::kCloseTwice:
      engine->submit_all({close_op(tunnel->stream), close_op(tunnel->stream), close_op(tunnel->other),
                          close_op(tunnel->other)});
      break;
    case Fate::kPeersReset:
      tunnel->client.reset();
      tunnel->origin.reset();
      break;
    case Fate::kPeersClose:
      break;
    case Fate::kStop:
      engine->stop();
      return;
    case Fate::kFree:
      engine->free_undrained();
      return;
  }
  tunnel->client.close();
  tunnel->origin.close();
  engine->await_all();
  for (uint64_t tag : engine->submit_all({close_op(tunnel->stream), close_op(tunnel->other)})) {
    Done done = engine->await(tag);
    CHECK(done->status == PTL_OK || done->status == PTL_E_STALE);
  }
  engine->await_no_streams();
  CHECK_EQ(engine->stats().buffered_bytes, 0u);
  CHECK_EQ(engine->stats().operations, 0u);
}

}  // namespace

TEST(every_fate_of_everything_that_waits) {
  for (const Waiting &waiting : all_waiting()) {
    for (int fate = 0; fate < kNumFates; fate++) {
      EngineDriver engine;
      Tunnel tunnel = open_tunnel(&engine, engine.listen(), waiting.spec);
      try {
        waiting.start(&engine, &tunnel);
        end_it(&engine, &tunnel, static_cast<Fate>(fate));
      } catch (const std::exception &error) {
        throw GaveUp(std::string(waiting.name) + ", fate " + std::to_string(fate) + ": " + error.what());
      }
    }
  }
}
