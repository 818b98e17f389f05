// Reading, writing, linking and closing plain streams.
#include <poll.h>

#include <string>
#include <vector>

#include "check.h"
#include "engine/slab.h"
#include "exchange.h"
#include "tunnel.h"

using namespace test;

TEST(reads_and_writes) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  client.peer.write("hello");
  CHECK_EQ(engine.run(read_op(client.stream, 3)).data, std::string("hel"));
  CHECK_EQ(engine.run(read_op(client.stream, 3)).data, std::string("lo"));
  CHECK_STATUS(engine.run(write_op(client.stream, "world")), PTL_OK);
  CHECK_EQ(client.peer.read(5), std::string("world"));
  CHECK_STATUS(engine.run(write_op(client.stream, "")), PTL_OK);
}

TEST(a_large_write_is_done_when_the_kernel_has_it) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen(), "", 65536);
  std::string much = noise(16 << 20, 5);  // more than all the buffers between
  uint64_t tag = engine.submit(write_op(client.stream, much));
  engine.await_stats([](const ptl_stats &stats) { return stats.buffered_bytes != 0; });
  CHECK(!engine.has(tag));
  CHECK(client.peer.read(much.size()) == much);
  CHECK_STATUS(engine.await(tag), PTL_OK);
  CHECK_EQ(engine.stats().buffered_bytes, 0u);
}

TEST(the_end_of_reading) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  Client client = accept_client(&engine, port);
  client.peer.write("last");
  client.peer.shutdown_write();
  CHECK_EQ(engine.run(read_op(client.stream, 100)).data, std::string("last"));
  CHECK_STATUS(engine.run(read_op(client.stream, 100)), PTL_E_CLOSED);
  CHECK_STATUS(engine.run(write_op(client.stream, "still")), PTL_OK);  // the other direction is open
  CHECK_EQ(client.peer.read(5), std::string("still"));
  Client rude = accept_client(&engine, port);
  uint64_t waiting = engine.submit(read_op(rude.stream, 100));
  engine.turn();
  rude.peer.reset();
  Done done = engine.await(waiting);
  CHECK_STATUS(done, PTL_E_RESET);
  CHECK(done->sys_errno != 0);
  CHECK_STATUS(engine.run(write_op(rude.stream, "x")), PTL_E_RESET);
}

TEST(deadlines_and_cancellation) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Done late = engine.run(within(20, read_op(client.stream, 1)));
  CHECK_STATUS(late, PTL_E_TIMEOUT);
  CHECK(late->ended_ns - late->started_ns >= 19000000);
  uint64_t waiting = engine.submit(read_op(client.stream, 1));
  engine.cancel(client.stream, waiting);
  engine.cancel(client.stream, 424242);  // nobody's
  engine.cancel(0, waiting);             // not that stream's loop, or gone: nothing
  CHECK_STATUS(engine.await(waiting), PTL_E_CANCELLED);
  client.peer.write("x");  // nothing of it was lost
  CHECK_EQ(engine.run(read_op(client.stream, 1)).data, std::string("x"));
}

TEST(one_operation_at_a_time) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  uint64_t waiting = engine.submit(read_op(client.stream, 1));
  CHECK_STATUS(engine.run(write_op(client.stream, "x")), PTL_E_BUSY);
  CHECK_STATUS(engine.run(relay_op(client.stream, client.stream)), PTL_E_BUSY);
  CHECK_STATUS(engine.run(close_op(client.stream)), PTL_OK);
  CHECK_STATUS(engine.await(waiting), PTL_E_CANCELLED);
}

TEST(stale_handles) {
  EngineDriver engine(2);
  uint16_t port = engine.listen();
  Client client = accept_client(&engine, port);
  CHECK_STATUS(engine.run(close_op(client.stream)), PTL_OK);
  ptl_client_context *context = lab().client.get();
  for (ptl_stream stream : {client.stream, ptl_stream{0}, UINT64_MAX, client.stream + (uint64_t{1} << 32)}) {
    uint64_t before = engine.stats().stale_handles;
    std::vector<ptl_address> addresses = {loopback(port)};
    CHECK_STATUS(engine.run(read_op(stream, 1)), PTL_E_STALE);
    CHECK_STATUS(engine.run(head_op(stream, 1)), PTL_E_STALE);
    CHECK_STATUS(engine.run(peek_op(stream)), PTL_E_STALE);
    CHECK_STATUS(engine.run(write_op(stream, "x")), PTL_E_STALE);
    Done connect = engine.run(connect_op(stream, addresses));
    CHECK_STATUS(connect, PTL_E_STALE);
    CHECK_EQ(connect->stream, 0u);  // no new one
    CHECK_STATUS(engine.run(connect_tls_op(stream, context, "a.test")), PTL_E_STALE);
    CHECK_STATUS(engine.run(relay_op(stream, stream)), PTL_E_STALE);
    CHECK_STATUS(engine.run(close_op(stream)), PTL_E_STALE);  // double close
    engine.turn(0);
    engine.turn(uint64_t{1} << ptl::kIndexBits);
    CHECK(engine.stats().stale_handles >= before + 8);
  }
}

TEST(a_relay_to_a_stale_stream) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  CHECK_STATUS(engine.run(relay_op(client.stream, client.stream + (uint64_t{1} << 32))), PTL_E_STALE);
  client.peer.write("x");  // the stream itself is as it was
  CHECK_EQ(engine.run(read_op(client.stream, 1)).data, std::string("x"));
}

TEST(links_run_in_order) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  std::string a = "a", b = "b";
  std::vector<uint64_t> tags =
      engine.submit_all({linked(write_op(client.stream, a)), linked(write_op(client.stream, b)),
                         linked(read_op(client.stream, 10)), close_op(client.stream)});
  CHECK_EQ(client.peer.read(2), std::string("ab"));
  client.peer.write("c");
  for (uint64_t tag : tags) CHECK_STATUS(engine.await(tag), PTL_OK);
  CHECK(client.peer.await_end() == Outcome::kEnd);
}

TEST(a_failure_fails_the_rest_of_its_chain) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  client.peer.shutdown_write();
  std::vector<uint64_t> tags =
      engine.submit_all({linked(read_op(client.stream, 10)), linked(write_op(client.stream, "never")),
                         write_op(client.stream, "never")});
  for (uint64_t tag : tags) CHECK_STATUS(engine.await(tag), PTL_E_CLOSED);
  CHECK_STATUS(engine.run(close_op(client.stream)), PTL_OK);
  CHECK(client.peer.await_end() == Outcome::kEnd);  // and nothing was written
}

TEST(an_untagged_failure_is_told_by_the_next_tagged) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  ptl_op first = linked(within(10, read_op(client.stream, 10)));
  first.tag = EngineDriver::kUntagged;
  std::string never = "never", once = "quiet";
  ptl_op second = linked(write_op(client.stream, never));
  second.tag = EngineDriver::kUntagged;
  std::vector<uint64_t> tags = engine.submit_all({first, second, close_op(client.stream)});
  Done told = engine.await(tags[2]);
  CHECK_STATUS(told, PTL_E_TIMEOUT);
  CHECK_EQ(told->kind, uint32_t{PTL_OP_CLOSE});
  // Untagged and successful: nothing is told, and what is linked runs.
  ptl_op quiet = linked(write_op(client.stream, once));
  quiet.tag = EngineDriver::kUntagged;
  tags = engine.submit_all({quiet, close_op(client.stream)});
  CHECK_STATUS(engine.await(tags[1]), PTL_OK);
  CHECK_EQ(client.peer.read(5), std::string("quiet"));
}

TEST(cancelling_what_waits_in_a_chain) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  std::vector<uint64_t> tags =
      engine.submit_all({linked(read_op(client.stream, 10)), write_op(client.stream, "x")});
  engine.cancel(client.stream, tags[0]);
  CHECK_STATUS(engine.await(tags[0]), PTL_E_CANCELLED);
  CHECK_STATUS(engine.await(tags[1]), PTL_E_CANCELLED);
}

TEST(invalid_operations_take_nothing) {
  EngineDriver engine(2);
  Client client = accept_client(&engine, engine.listen());
  ptl_stream elsewhere = client.stream ^ (uint64_t{1} << ptl::kIndexBits);  // on the other loop
  std::string never = "never";
  ptl_op good = write_op(client.stream, never);
  auto refused = [&](std::vector<ptl_op> ops) {
    for (ptl_op &op : ops) op.tag = 7;
    CHECK_EQ(ptl_submit(engine.get(), ops.data(), ops.size()), PTL_E_INVALID);
  };
  refused({good, linked(good)});                               // a link to nothing
  refused({good, linked(good), read_op(elsewhere, 1)});        // a chain over loops
  refused({good, plain_op(PTL_OP_ACCEPT, client.stream)});
  refused({good, plain_op(0, client.stream)});
  refused({good, plain_op(99, client.stream)});
  refused({good, read_op(client.stream, 0)});
  refused({good, head_op(client.stream, 0)});
  refused({good, connect_tls_op(client.stream, nullptr, "a.test")});
  refused({good, connect_tls_op(client.stream, lab().client.get(), nullptr)});
  refused({good, accept_tls_op(client.stream, nullptr, lab().credential.get())});
  refused({good, accept_tls_op(client.stream, lab().server.get(), nullptr)});
  CHECK_EQ(ptl_submit(engine.get(), nullptr, 0), PTL_OK);
  CHECK_STATUS(engine.run(close_op(client.stream)), PTL_OK);
  CHECK(client.peer.await_end() == Outcome::kEnd);
}

TEST(close_in_order) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  CHECK_STATUS(engine.run(close_op(client.stream)), PTL_OK);
  CHECK(client.peer.await_end() == Outcome::kEnd);
  client.peer.close();
  engine.await_no_streams();
}

TEST(close_with_reset) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  CHECK_STATUS(engine.run(close_op(client.stream, PTL_FLAG_RESET)), PTL_OK);
  CHECK(client.peer.await_end() == Outcome::kReset);
  engine.await_no_streams();
}

TEST(close_with_an_alert_in_the_clear) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  CHECK_STATUS(engine.run(close_op(client.stream, 0, 112)), PTL_OK);
  Outcome end;
  CHECK_EQ(client.peer.read_to_end(&end), std::string("\x15\x03\x03\x00\x02\x02\x70", 7));
  CHECK(end == Outcome::kEnd);
}

TEST(an_answer_arrives_although_the_client_keeps_sending) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  std::string answer = "HTTP/1.1 413 too much\r\n\r\n" + noise(200000, 9);
  std::string flood = noise(1 << 20, 10);
  bool broken;
  size_t sent = client.peer.write_some(flood.data(), flood.size(), &broken);
  std::vector<uint64_t> tags =
      engine.submit_all({linked(write_op(client.stream, answer)), close_op(client.stream)});
  std::string got;
  while (got.size() < answer.size()) {
    if (sent < flood.size()) {
      sent += client.peer.write_some(flood.data() + sent, flood.size() - sent, &broken);
      CHECK(!broken);
    }
    Outcome outcome = client.peer.read_some(&got, 10000);
    REQUIRE(outcome == Outcome::kBytes || outcome == Outcome::kWait);
    if (outcome == Outcome::kWait) client.peer.wait(POLLIN);
  }
  CHECK(got == answer);
  CHECK(client.peer.await_end() == Outcome::kEnd);
  for (uint64_t tag : tags) CHECK_STATUS(engine.await(tag), PTL_OK);
  client.peer.close();
  engine.await_no_streams();
}

TEST(a_closed_stream_holds_nothing) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (uint32_t flags : {0u, uint32_t{PTL_FLAG_RESET}}) {
    Client client = accept_client(&engine, port, "early data that nobody reads", 4096);
    uint64_t stalled = engine.submit(write_op(client.stream, std::string(16 << 20, 'x')));
    engine.await_stats([](const ptl_stats &stats) { return stats.buffered_bytes != 0; });
    CHECK_STATUS(engine.run(close_op(client.stream, flags)), PTL_OK);
    CHECK_STATUS(engine.await(stalled), PTL_E_CANCELLED);
    if (flags != 0) CHECK_EQ(engine.stats().buffered_bytes, 0u);  // at once, not when the loop next wakes
    client.peer.reset();
    engine.await_no_streams();
    CHECK_EQ(engine.stats().buffered_bytes, 0u);
  }
}

TEST(bytes_in_the_queue_of_completions_outlive_their_stream) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  client.peer.write("kept");
  uint64_t tag = engine.submit(read_op(client.stream, 10));
  engine.await_stats([](const ptl_stats &stats) { return stats.operations == 0; });
  engine.run(close_op(client.stream, PTL_FLAG_RESET));
  CHECK_EQ(engine.await(tag).data, std::string("kept"));
}

TEST(after_the_stop) {
  EngineDriver engine(2);
  Client client = accept_client(&engine, engine.listen());
  uint64_t waiting = engine.submit(read_op(client.stream, 1));
  engine.turn(client.stream);
  ptl_engine_stop(engine.get());
  ptl_engine_stop(engine.get());
  CHECK_STATUS(engine.await(waiting), PTL_E_SHUTDOWN);
  ptl_op late = read_op(client.stream, 1);
  late.tag = 5;
  CHECK_EQ(ptl_submit(engine.get(), &late, 1), PTL_E_SHUTDOWN);
  uint32_t listener;
  uint16_t port;
  int error;
  CHECK_EQ(ptl_listen(engine.get(), "127.0.0.1", 0, 1, 100, 0, 1, &listener, &port, &error), PTL_E_SHUTDOWN);
  Outcome end = client.peer.await_end();
  CHECK(end == Outcome::kEnd || end == Outcome::kReset);
}
