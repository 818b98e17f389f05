// Connecting: the first address that answers, and what is said when none does.
#include <errno.h>

#include <string>
#include <vector>

#include "check.h"
#include "engine/slab.h"
#include "tunnel.h"

using namespace test;

namespace {

std::string text_of(uint16_t port) { return "127.0.0.1:" + std::to_string(port); }

constexpr uint32_t kNever = 3600000;  // a stagger that does not come while a test runs

}  // namespace

TEST(connects) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Origin origin;
  Done done = engine.run(connect_op(client.stream, {loopback(origin.port())}));
  REQUIRE_STATUS(done, PTL_OK);
  CHECK_EQ(std::string(done->peer), text_of(origin.port()));
  CHECK_EQ(done->address_index, 0u);
  CHECK(done->stream != 0 && done->stream != client.stream);
  CHECK_EQ(engine.stats().connected, 1u);
  Peer peer = origin.accept();
  CHECK_STATUS(engine.run(write_op(done->stream, "hello")), PTL_OK);
  CHECK_EQ(peer.read(5), std::string("hello"));
}

TEST(connects_over_ipv6) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Origin origin(64, 0, true);
  Done done = engine.run(connect_op(client.stream, {loopback6(origin.port())}));
  REQUIRE_STATUS(done, PTL_OK);
  CHECK_EQ(std::string(done->peer), "[::1]:" + std::to_string(origin.port()));
}

TEST(the_client_stays_free_meanwhile) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Blackhole nowhere;
  uint64_t connecting = engine.submit(connect_op(client.stream, {loopback(nowhere.port())}));
  CHECK_STATUS(engine.run(write_op(client.stream, "wait")), PTL_OK);
  CHECK(!engine.has(connecting));
  engine.cancel(client.stream, connecting);
  CHECK_STATUS(engine.await(connecting), PTL_E_CANCELLED);
}

TEST(no_room_for_one_more_is_our_own_lack) {
  EngineDriver engine(1, 1);
  Client client = accept_client(&engine, engine.listen());
  Origin origin;
  // Whatever the other address says: this one might have answered.
  Done done = engine.run(connect_op(client.stream, {loopback(origin.port()), loopback(refusing_port())}));
  CHECK_STATUS(done, PTL_E_NO_SOCKET);
  CHECK_EQ(done->sys_errno, EAGAIN);
  CHECK(done.data.find(text_of(origin.port()) + ": as many connections are open as may be") == 0);
}

TEST(a_refusal_goes_on_to_the_next_at_once) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Origin origin;
  ptl_address bad = loopback(refusing_port());
  Done done = engine.run(connect_op(client.stream, {bad, bad, loopback(origin.port())}, kNever));
  REQUIRE_STATUS(done, PTL_OK);
  CHECK_EQ(done->address_index, 2u);
  CHECK_EQ(std::string(done->peer), text_of(origin.port()));
}

TEST(every_address_refuses) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  ptl_address bad = loopback(refusing_port());
  Done done = engine.run(connect_op(client.stream, {bad, bad}));
  CHECK_STATUS(done, PTL_E_REFUSED);
  CHECK_EQ(done->stream, 0u);
  CHECK_EQ(done->sys_errno, ECONNREFUSED);
  std::string each = text_of(refusing_port()) + ": Connection refused";
  CHECK_EQ(done.data, each + ", " + each);
  CHECK_EQ(engine.stats().streams, 1u);
}

TEST(addresses_of_which_some_cannot_be_reached) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  ptl_address unreachable = loopback(9);
  memset(unreachable.ip + 1, 255, 3);  // the broadcast address of 127.0.0.0/8: no stream goes there
  Done done = engine.run(connect_op(client.stream, {unreachable, loopback(refusing_port())}));
  CHECK_STATUS(done, PTL_E_UNREACHABLE);
  CHECK(done->sys_errno != 0);
  CHECK(done.data.find("127.255.255.255:9: ") == 0);
  CHECK(done.data.find("Connection refused") != std::string::npos);
}

TEST(no_address) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Done done = engine.run(connect_op(client.stream, {}));
  CHECK_STATUS(done, PTL_E_INVALID);
  CHECK_EQ(done->stream, 0u);
}

TEST(the_stagger_gives_the_next_its_chance) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Blackhole nowhere;
  Origin origin;
  Done done =
      engine.run(connect_op(client.stream, {loopback(nowhere.port()), loopback(origin.port())}, 20));
  REQUIRE_STATUS(done, PTL_OK);
  CHECK_EQ(done->address_index, 1u);
  CHECK(done->ended_ns - done->started_ns >= 19000000);  // not before its turn
  CHECK_EQ(engine.stats().streams, 2u);                  // who lost is closed
  CHECK_EQ(engine.stats().connected, 1u);
}

TEST(a_late_refusal_waits_for_who_is_still_trying) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Blackhole nowhere;
  std::vector<ptl_address> addresses = {loopback(nowhere.port()), loopback(refusing_port())};
  Done done = engine.run(within(100, connect_op(client.stream, addresses, 5)));
  CHECK_STATUS(done, PTL_E_TIMEOUT);
  CHECK_EQ(done->stream, 0u);
  CHECK_EQ(done.data, text_of(nowhere.port()) + ": no answer, " + text_of(refusing_port()) +
                          ": Connection refused");
}

TEST(the_deadline_ends_it) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Blackhole nowhere;
  Done done = engine.run(within(30, connect_op(client.stream, {loopback(nowhere.port())})));
  CHECK_STATUS(done, PTL_E_TIMEOUT);
  CHECK(done->ended_ns - done->started_ns >= 29000000);
  CHECK_EQ(engine.stats().streams, 1u);
}

TEST(cancellation_ends_every_attempt) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Blackhole nowhere;
  ptl_address hole = loopback(nowhere.port());
  uint64_t connecting = engine.submit(connect_op(client.stream, {hole, hole, hole, hole}, 1));
  engine.await_stats([](const ptl_stats &stats) { return stats.streams == 5; });
  engine.cancel(client.stream, connecting);
  CHECK_STATUS(engine.await(connecting), PTL_E_CANCELLED);
  CHECK_EQ(engine.stats().streams, 1u);
}

TEST(who_it_is_for_resets_meanwhile) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  Client client = accept_client(&engine, port);
  Blackhole nowhere;
  ptl_address hole = loopback(nowhere.port());
  std::vector<ptl_address> holes = {hole, hole};
  uint64_t first = engine.submit(connect_op(client.stream, holes, 1));
  std::string answer = "never";
  std::vector<uint64_t> second =
      engine.submit_all({linked(connect_op(client.stream, holes, 1)), write_op(client.stream, answer)});
  engine.await_stats([](const ptl_stats &stats) { return stats.streams == 5; });
  client.peer.reset();
  for (uint64_t tag : {first, second[0], second[1]}) {
    Done done = engine.await(tag);
    CHECK_STATUS(done, PTL_E_RESET);
    CHECK(done.data.find("reset meanwhile") != std::string::npos);
  }
  CHECK_EQ(engine.stats().streams, 1u);
  // One that begins when it has happened already.
  CHECK_STATUS(engine.run(connect_op(client.stream, holes)), PTL_E_RESET);
  engine.run(close_op(client.stream));
  engine.await_no_streams();
}

TEST(who_it_is_for_may_stop_sending) {
  // A FIN is no farewell: the client may have sent all it has to say, and wait for the answer.
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Blackhole nowhere;
  Origin origin;
  client.peer.shutdown_write();
  Done done =
      engine.run(connect_op(client.stream, {loopback(nowhere.port()), loopback(origin.port())}, 20));
  REQUIRE_STATUS(done, PTL_OK);
  CHECK_STATUS(engine.run(write_op(client.stream, "answer")), PTL_OK);
  CHECK_EQ(client.peer.read(6), std::string("answer"));
}

TEST(it_outlives_the_stream_it_was_asked_beside) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  Blackhole nowhere;
  Origin origin;
  uint64_t connecting = engine.submit(
      connect_op(client.stream, {loopback(nowhere.port()), loopback(origin.port())}, 20));
  engine.run(close_op(client.stream, PTL_FLAG_RESET));
  Done done = engine.await(connecting);
  REQUIRE_STATUS(done, PTL_OK);
  CHECK_STATUS(engine.run(close_op(done->stream, PTL_FLAG_RESET)), PTL_OK);
  engine.await_no_streams();
}

TEST(the_engine_stops_meanwhile) {
  EngineDriver engine(2);
  Client client = accept_client(&engine, engine.listen());
  Blackhole nowhere;
  ptl_address hole = loopback(nowhere.port());
  uint64_t connecting = engine.submit(connect_op(client.stream, {hole, hole}, 1));
  engine.await_stats([](const ptl_stats &stats) { return stats.streams == 3; });
  engine.stop();
  Done done = engine.await(connecting);
  CHECK_STATUS(done, PTL_E_SHUTDOWN);
  CHECK_EQ(done->stream, 0u);
}

TEST(many_at_once) {
  EngineDriver engine(2);
  Client client = accept_client(&engine, engine.listen());
  Origin origin(256);
  std::vector<ptl_address> addresses = {loopback(refusing_port()), loopback(origin.port())};
  std::vector<uint64_t> tags;
  for (int i = 0; i < 100; i++) tags.push_back(engine.submit(connect_op(client.stream, addresses)));
  for (uint64_t tag : tags) {
    Done done = engine.await(tag);
    REQUIRE_STATUS(done, PTL_OK);
    CHECK_EQ(ptl::handle_loop(done->stream), ptl::handle_loop(client.stream));  // as it is promised
  }
  CHECK_EQ(engine.stats().streams, 101u);
}
