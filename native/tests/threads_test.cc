// Many threads at once: submitting, cancelling, draining, counting, stopping.
//
// A tag says which thread submitted it and as what number, so that completions can be counted without sharing
// anything: every tag that was taken comes back exactly once, whatever the others did meanwhile.
#include <poll.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "exchange.h"
#include "tunnel.h"

using namespace test;

namespace {

constexpr int kThreads = 4;
constexpr uint64_t kOperations = 4000;  // each
constexpr size_t kStreams = 24;
constexpr int kOutstanding = 6;  // operations of a thread at a time, so that few find their stream busy

uint64_t tag_of(int thread, uint64_t number) { return uint64_t(thread + 1) << 32 | number; }

// Streams that all threads use at once, some of them closed under the others' hands.
struct Shared {
  ptl_engine *engine;
  std::vector<Peer> peers;
  std::vector<ptl_stream> streams;
  uint16_t origin_port;
  // By thread and number: was it taken, and how often has it come back?
  std::vector<std::vector<uint8_t>> taken, came{kThreads, std::vector<uint8_t>(kOperations, 0)};

  std::mutex mutex;  // guards what is below
  std::condition_variable fewer;
  int outstanding[kThreads] = {};
};

ptl_op random_op(const Shared &shared, std::mt19937_64 *random, const std::vector<ptl_address> &addresses,
                 const std::string &bytes) {
  ptl_stream stream = shared.streams[(*random)() % kStreams];
  ptl_stream other = shared.streams[(*random)() % kStreams];
  const uint32_t soon_ms = 1 + static_cast<uint32_t>((*random)() % 5);
  switch ((*random)() % 1500) {
    case 0: return close_op(stream, PTL_FLAG_RESET);
    case 1: return close_op(stream);
    case 2: return within(soon_ms, accept_tls_op(stream, lab().server.get(), lab().credential.get()));
    case 3: return within(soon_ms, connect_tls_op(stream, lab().client.get(), "origin.test"));
    case 4: return within(soon_ms, relay_op(stream, other));
    default: break;
  }
  switch ((*random)() % 8) {
    case 0: return within(soon_ms, connect_op(stream, addresses));
    case 1: return within(soon_ms, peek_op(stream));
    case 2: return within(soon_ms, head_op(stream, 100));
    case 3: return write_op(stream, bytes);
    default: return within(soon_ms, read_op(stream, 3));
  }
}

// Submits operations of every kind in batches, links some, cancels some; notes what was taken.
void submit_at_random(Shared *shared, int thread) {
  std::mt19937_64 random(static_cast<uint64_t>(thread) + 1);
  const std::vector<ptl_address> addresses = {loopback(shared->origin_port)};
  const std::string bytes = "some bytes";
  for (uint64_t number = 0; number < kOperations;) {
    std::vector<ptl_op> batch;
    uint64_t first = number;
    for (uint64_t left = 1 + random() % 4; left != 0 && number < kOperations; left--) {
      batch.push_back(random_op(*shared, &random, addresses, bytes));
      batch.back().tag = tag_of(thread, number++);
    }
    if (batch.size() >= 2 && random() % 2 == 0) {
      batch[1].stream = batch[0].stream;
      batch[0].flags |= PTL_FLAG_LINK;
    }
    {
      std::unique_lock<std::mutex> lock(shared->mutex);
      shared->fewer.wait(lock, [&] { return shared->outstanding[thread] < kOutstanding; });
      shared->outstanding[thread] += static_cast<int>(batch.size());
    }
    int status = ptl_submit(shared->engine, batch.data(), batch.size());
    for (uint64_t i = first; i < number; i++) shared->taken[thread][i] = status == PTL_OK;
    if (status != PTL_OK) {
      std::lock_guard<std::mutex> lock(shared->mutex);
      shared->outstanding[thread] -= static_cast<int>(batch.size());
    }
    if (random() % 3 == 0) {
      ptl_cancel(shared->engine, batch[0].stream, tag_of(thread, random() % number));
      int other = static_cast<int>(random() % kThreads);
      ptl_cancel(shared->engine, batch[0].stream, tag_of(other, random() % kOperations));
    }
    if (random() % 8 == 0) {
      ptl_stats stats;
      ptl_engine_stats(shared->engine, &stats);
    }
  }
}

// Drains until told that nothing more will come, closing what was connected.
void drain(Shared *shared, const std::atomic<bool> *over) {
  ptl_completion batch[32];
  for (;;) {
    bool last = *over;
    size_t n;
    while ((n = ptl_drain(shared->engine, batch, 32)) != 0) {
      for (size_t i = 0; i < n; i++) {
        uint64_t thread = (batch[i].tag >> 32) - 1;
        REQUIRE(thread < kThreads && (batch[i].tag & UINT32_MAX) < kOperations);
        shared->came[thread][batch[i].tag & UINT32_MAX]++;
        {
          std::lock_guard<std::mutex> lock(shared->mutex);
          shared->outstanding[thread]--;
        }
        shared->fewer.notify_all();
        if (batch[i].kind != PTL_OP_CONNECT || batch[i].stream == 0) continue;
        ptl_op close = close_op(batch[i].stream, PTL_FLAG_RESET);
        ptl_submit(shared->engine, &close, 1);  // or the engine has stopped, which closes it as well
      }
      ptl_release(batch, n);
    }
    if (last) return;
    pollfd event{ptl_engine_eventfd(shared->engine), POLLIN, 0};
    poll(&event, 1, 10);  // |over| has no event of its own
  }
}

void open_streams(EngineDriver *engine, uint16_t origin_port, Shared *out) {
  Shared &shared = *out;
  shared.engine = engine->get();
  shared.origin_port = origin_port;
  shared.taken.assign(kThreads, std::vector<uint8_t>(kOperations, 0));
  uint16_t port = engine->listen();
  for (size_t i = 0; i < kStreams; i++) {
    Client client = accept_client(engine, port, "some bytes that came early");
    shared.peers.push_back(std::move(client.peer));
    shared.streams.push_back(client.stream);
  }
}

void check_counts(const Shared &shared, bool stopped_meanwhile) {
  for (int thread = 0; thread < kThreads; thread++) {
    for (uint64_t i = 0; i < kOperations; i++) {
      int came = shared.came[thread][i];
      if (shared.taken[thread][i] != 0) {
        CHECK_EQ(came, 1);
      } else {
        // A batch of which a stop came in between may have been taken in part.
        CHECK(came == 0 || (came == 1 && stopped_meanwhile));
      }
    }
  }
}

void run(bool stop_meanwhile) {
  lab();  // made before there are threads to time it
  Origin origin(1024);
  EngineDriver engine(2);
  Shared shared;
  open_streams(&engine, origin.port(), &shared);
  std::atomic<bool> over{false};
  std::vector<std::thread> submitters;
  std::thread drainer(drain, &shared, &over);
  for (int i = 0; i < kThreads; i++) submitters.emplace_back(submit_at_random, &shared, i);
  if (stop_meanwhile) {
    std::vector<std::thread> stoppers;
    for (int i = 0; i < 2; i++) {
      stoppers.emplace_back([&] {
        ptl_stats stats;
        do {
          ptl_engine_stats(shared.engine, &stats);
        } while (stats.connected < 50 && stats.stale_handles < 500);
        ptl_engine_stop(shared.engine);
      });
    }
    for (std::thread &thread : stoppers) thread.join();
  }
  for (std::thread &thread : submitters) thread.join();
  ptl_engine_stop(shared.engine);
  over = true;
  drainer.join();
  check_counts(shared, stop_meanwhile);
}

}  // namespace

TEST(everybody_at_once) { run(false); }

TEST(and_a_stop_in_between) {
  for (int round = 0; round < 3; round++) run(true);
}

TEST(a_stop_takes_nothing_with_it) {
  // What was taken before the stop, even a moment before, is told.
  for (int round = 0; round < 40; round++) {
    EngineDriver engine;
    std::atomic<uint64_t> num_taken{0};
    std::thread submitter([&] {
      ptl_op op = read_op(0, 1);
      for (;;) {
        op.tag = num_taken + 1;
        if (ptl_submit(engine.get(), &op, 1) != PTL_OK) return;
        num_taken++;
      }
    });
    while (num_taken < 100) std::this_thread::yield();
    ptl_engine_stop(engine.get());
    submitter.join();
    CHECK_EQ(engine.stats().completions, num_taken.load());
    ptl_completion batch[64];
    uint64_t num_drained = 0;
    while (size_t n = ptl_drain(engine.get(), batch, 64)) {
      for (size_t i = 0; i < n; i++) CHECK_EQ(batch[i].tag, ++num_drained);  // in order, too
      ptl_release(batch, n);
    }
    CHECK_EQ(num_drained, num_taken.load());
  }
}

TEST(listening_and_unlistening) {
  EngineDriver engine(2);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; i++) {
    threads.emplace_back([&engine] {
      for (int round = 0; round < 50; round++) {
        uint32_t listener;
        uint16_t port;
        int error;
        CHECK_EQ(ptl_listen(engine.get(), "127.0.0.1", 0, 4, 100, 0, kAcceptTag, &listener, &port, &error),
                 PTL_OK);
        Peer peer = Peer::connect_to(port);
        ptl_unlisten(engine.get(), listener);
        ptl_unlisten(engine.get(), listener);
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
}

TEST(engines_come_and_go) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; i++) {
    threads.emplace_back([] {
      for (int round = 0; round < 10; round++) {
        EngineDriver engine(2);
        uint16_t port = engine.listen();
        Tunnel tunnel = open_tunnel(&engine, port);
        engine.submit(relay_op(tunnel.stream, tunnel.other));
        tunnel.client.write("x");
        CHECK_EQ(tunnel.origin.read(1), std::string("x"));
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
}
