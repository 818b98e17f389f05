// Request heads: of new connections, and read from a stream later.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "check.h"
#include "exchange.h"
#include "tunnel.h"

using namespace test;

namespace {

// A head of exactly |size| bytes.
std::string head_of(size_t size) {
  std::string start = "CONNECT a.test:443 HTTP/1.1\r\nX: ", end = "\r\n\r\n";
  return start + std::string(size - start.size() - end.size(), 'x') + end;
}

Done accepted(EngineDriver *engine, uint16_t port, const std::string &bytes) {
  Peer client = Peer::connect_to(port);
  client.write(bytes);
  Done done = engine->next_accept();
  engine->run(close_op(done->stream));
  return done;
}

}  // namespace

TEST(limits) {
  EngineDriver engine;
  uint16_t port = engine.listen(100);
  for (size_t size : {size_t{99}, size_t{100}}) {
    Done done = accepted(&engine, port, head_of(size));
    CHECK_STATUS(done, PTL_OK);
    CHECK_EQ(done.data, head_of(size));
  }
  Done done = accepted(&engine, port, head_of(101));
  CHECK_STATUS(done, PTL_E_TOO_LARGE);
  CHECK_EQ(done.data, head_of(101).substr(0, 100));
  // As soon as the limit is reached, without waiting for the rest.
  CHECK_STATUS(accepted(&engine, port, head_of(200).substr(0, 100)), PTL_E_TOO_LARGE);
}

TEST(who_resets_is_told_by_what_came_before) {
  // What came is handed out, and nothing else: an error's text is no part of a head.
  EngineDriver engine;
  uint16_t port = engine.listen(200);
  for (const std::string &bytes : {std::string(), std::string("CONN")}) {
    Peer client = Peer::connect_to(port);
    client.write(bytes);
    engine.await_stats([](const ptl_stats &stats) { return stats.streams == 1; });
    for (int i = 0; i < 5; i++) engine.turn();
    client.reset();
    Done done = engine.next_accept();
    CHECK_STATUS(done, PTL_E_RESET);
    CHECK_EQ(done->sys_errno, ECONNRESET);
    CHECK(done.data == bytes || done.data.empty());  // bytes that were still unread may be lost to the reset
    engine.run(close_op(done->stream));
    engine.await_no_streams();
  }
}

TEST(byte_by_byte) {
  EngineDriver engine;
  uint16_t port = engine.listen(200);
  Peer client = Peer::connect_to(port);
  std::string head = head_of(200);
  for (char c : head) {
    client.write(std::string(1, c));
    engine.turn();
  }
  Done done = engine.next_accept();
  CHECK_STATUS(done, PTL_OK);
  CHECK_EQ(done.data, head);
}

TEST(line_ends) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (const char *head : {"A\r\n\r\n", "A\n\n", "A\r\n\n", "A\n\r\n", "A\tB\r\nC\r\n\r\n"}) {
    Done done = accepted(&engine, port, head);
    CHECK_STATUS(done, PTL_OK);
    CHECK_EQ(done.data, std::string(head));
  }
}

TEST(early_data_stays_in_the_stream) {
  EngineDriver engine;
  uint16_t port = engine.listen(100);
  std::string early = noise(5000, 1);
  Client client = accept_client(&engine, port, early);
  std::string got;
  while (got.size() < early.size()) {
    Done done = engine.run(read_op(client.stream, 700));
    REQUIRE_STATUS(done, PTL_OK);
    CHECK(done.data.size() >= 1 && done.data.size() <= 700);
    got += done.data;
  }
  CHECK(got == early);
}

TEST(a_second_head_on_the_same_stream) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  Client client = accept_client(&engine, port, "GET /1 HTTP/1.1\r\n\r\nGET /2");
  CHECK_EQ(engine.run(head_op(client.stream, 100)).data, std::string("GET /1 HTTP/1.1\r\n\r\n"));
  uint64_t second = engine.submit(head_op(client.stream, 100));
  client.peer.write(" HTTP/1.1\r\n\r\n");
  CHECK_EQ(engine.await(second).data, std::string("GET /2 HTTP/1.1\r\n\r\n"));
  // What had been read and is longer than the limit.
  client.peer.write(head_of(200));
  CHECK_STATUS(engine.run(head_op(client.stream, 150)), PTL_E_TOO_LARGE);
  CHECK_EQ(engine.run(head_op(client.stream, 200)).data, head_of(200));  // it is all still there
}

TEST(what_can_be_no_head_ends_at_once) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  for (const std::string &bytes :
       {std::string("\x16\x03\x01\x02"), std::string("GET / \x01"), std::string("A\0", 2),
        std::string("\x7f"), std::string("\x05\x01")}) {
    Done done = accepted(&engine, port, bytes);
    CHECK_STATUS(done, PTL_E_MALFORMED);
    CHECK_EQ(done.data, bytes);
  }
}

TEST(the_deadline_cuts_a_slow_head) {
  EngineDriver engine;
  uint16_t port = engine.listen(kHeadMax, 30);
  Peer client = Peer::connect_to(port);
  client.write("CONNECT a");
  Done done = engine.next_accept();
  CHECK_STATUS(done, PTL_E_TIMEOUT);
  CHECK_EQ(done.data, std::string("CONNECT a"));
  // To the tick: 29 of 30 ms may have passed for a clock that counts in whole ones.
  CHECK(done->ended_ns - done->started_ns >= 29000000);
  // The stream is there, so that the client can be answered.
  CHECK_STATUS(engine.run(write_op(done->stream, "HTTP/1.1 408\r\n\r\n")), PTL_OK);
  CHECK_STATUS(engine.run(close_op(done->stream)), PTL_OK);
  Outcome end;
  CHECK_EQ(client.read_to_end(&end), std::string("HTTP/1.1 408\r\n\r\n"));
  CHECK(end == Outcome::kEnd);
}

TEST(a_head_that_was_cut_off) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  Peer client = Peer::connect_to(port);
  client.write("CONNECT a");
  client.shutdown_write();
  Done done = engine.next_accept();
  CHECK_STATUS(done, PTL_E_CLOSED);
  CHECK_EQ(done.data, std::string("CONNECT a"));
  Peer silent = Peer::connect_to(port);
  silent.shutdown_write();
  CHECK_STATUS(engine.next_accept(), PTL_E_CLOSED);
  Peer rude = Peer::connect_to(port);
  rude.write("CONNECT");
  rude.reset();
  Done reset = engine.next_accept();
  CHECK(reset->status == PTL_E_RESET || reset->status == PTL_E_CLOSED);
}

TEST(unlisten_accepts_who_waits_in_the_backlog) {
  for (int round = 0; round < 20; round++) {
    EngineDriver engine(2, 1);
    uint16_t port = engine.listen();
    Client first = accept_client(&engine, port);  // there is no room for more
    std::vector<Peer> waiting;
    waiting.push_back(Peer::connect_to(port));
    waiting.back().write("GET / HTTP/1.1\r\n\r\n");
    CHECK_STATUS(engine.run(close_op(first.stream)), PTL_OK);
    first.peer.close();
    // There is room, for whoever takes it first: a loop, or the end of listening.
    engine.await_stats([](const ptl_stats &stats) { return stats.streams == 0 || stats.accepted == 2; });
    ptl_unlisten(engine.get(), engine.last_listener());
    CHECK_STATUS(engine.next_accept(), PTL_OK);
    CHECK_EQ(engine.stats().accepted, 2u);
  }
}

TEST(a_socket_that_listens_already) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  // The first has the kernel choose a port. The second asks for that one, and so keeps it when it listens no more.
  int sockets[2], one = 1;
  for (int &each : sockets) {
    each = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(each, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    REQUIRE_EQ(bind(each, reinterpret_cast<sockaddr *>(&address), length), 0);
    REQUIRE_EQ(getsockname(each, reinterpret_cast<sockaddr *>(&address), &length), 0);
  }
  close(sockets[0]);
  const int listening = sockets[1];
  EngineDriver engine(2);
  uint32_t listener = 0;
  int error = 0;
  CHECK_EQ(ptl_listen_on(engine.get(), dup(listening), kHeadMax, 0, kAcceptTag, &listener, &error), PTL_E_IO);
  CHECK_EQ(error, EINVAL);  // it does not listen
  CHECK_EQ(ptl_listen_on(engine.get(), -1, kHeadMax, 0, kAcceptTag, &listener, &error), PTL_E_IO);
  CHECK_EQ(error, EBADF);
  CHECK_EQ(ptl_listen_on(engine.get(), dup(listening), 0, 0, kAcceptTag, &listener, &error), PTL_E_INVALID);
  for (int round = 0; round < 2; round++) {  // it can listen again, for the next engine's sake
    REQUIRE_EQ(listen(listening, 16), 0);
    Peer early = Peer::connect_to(ntohs(address.sin_port));
    early.write("GET / HTTP/1.1\r\n\r\n");
    CHECK_EQ(ptl_listen_on(engine.get(), dup(listening), kHeadMax, 0, kAcceptTag, &listener, &error), PTL_OK);
    Done done = engine.next_accept();
    CHECK_STATUS(done, PTL_OK);
    CHECK_STATUS(engine.run(close_op(done->stream)), PTL_OK);
    ptl_unlisten(engine.get(), listener);
  }
  close(listening);
}

TEST(unlisten_stops_accepting_and_heads_go_on) {
  EngineDriver engine(2);
  uint16_t port = engine.listen();
  Peer client = Peer::connect_to(port);
  client.write("CONNECT a");
  engine.await_stats([](const ptl_stats &stats) { return stats.accepted == 1; });
  ptl_unlisten(engine.get(), engine.last_listener());
  ptl_unlisten(engine.get(), engine.last_listener());
  ptl_unlisten(engine.get(), 77);
  client.write("\r\n\r\n");
  CHECK_STATUS(engine.next_accept(), PTL_OK);
}

TEST(a_listener_closed_twice_closes_no_other) {
  EngineDriver engine;
  engine.listen();
  uint32_t first = engine.last_listener();
  for (int i = 0; i < 300; i++) {  // more than there are numbers in a byte
    ptl_unlisten(engine.get(), first);
    uint16_t port = engine.listen();
    ptl_unlisten(engine.get(), first);
    first = engine.last_listener();
    if (i % 50 == 0) engine.run(close_op(accept_client(&engine, port).stream));
  }
}

TEST(listening_on_ipv6_and_where_one_cannot) {
  EngineDriver engine;
  engine.listen(kHeadMax, 0, "::1");
  uint32_t listener;
  uint16_t port;
  int error = 0;
  CHECK_EQ(ptl_listen(engine.get(), "not an address", 0, 1, 100, 0, 1, &listener, &port, &error), PTL_E_IO);
  CHECK_EQ(error, EINVAL);
  Origin taken;
  CHECK_EQ(ptl_listen(engine.get(), "127.0.0.1", taken.port(), 1, 100, 0, 1, &listener, &port, &error),
           PTL_E_IO);
  CHECK_EQ(error, EADDRINUSE);
  CHECK_EQ(ptl_listen(engine.get(), "127.0.0.1", 0, 1, 100, 0, 0, &listener, &port, &error), PTL_E_INVALID);
}

TEST(full_engines_leave_clients_in_the_backlog) {
  EngineDriver engine(2, 4);  // two loops compete for the room
  uint16_t port = engine.listen();
  std::vector<Peer> clients;
  for (int i = 0; i < 24; i++) {
    clients.push_back(Peer::connect_to(port));
    clients.back().write("A\r\n\r\n");
  }
  for (int served = 0; served < 24; served++) {
    Done done = engine.next_accept();
    REQUIRE_STATUS(done, PTL_OK);
    CHECK(engine.stats().streams <= 4);
    engine.run(close_op(done->stream, PTL_FLAG_RESET));
  }
  // Everybody was served: nobody was accepted and then dropped for want of room.
  CHECK_EQ(engine.stats().accepted, 24u);
  CHECK_EQ(engine.stats().accept_errors, 0u);
}
