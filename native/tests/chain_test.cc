// What a chain can do that single operations cannot: name the stream that it connects, agree with the client on what
// upstream chose, and say nothing of what need not be told at once.
#include <openssl/ssl.h>

#include <string>
#include <vector>

#include "check.h"
#include "tunnel.h"

using namespace test;

namespace {

ptl_op quiet(ptl_op op) {
  op.flags |= PTL_FLAG_QUIET;
  return op;
}

ptl_op untagged(ptl_op op) {
  op.tag = EngineDriver::kUntagged;
  return op;
}

ptl_op like(ptl_op accept, ptl_stream other, const std::string &pairs) {
  accept.other = other;
  accept.data = reinterpret_cast<const uint8_t *>(pairs.data());
  accept.data_len = pairs.size();
  return accept;
}

// An engine between a client that has said nothing yet and an origin of which it knows.
struct Between {
  Between() : client(accept_client(&engine, engine.listen())) {}
  Done connect() {
    Done done = engine.run(connect_op(client.stream, {loopback(listening.port())}));
    origin = listening.accept();
    return done;
  }
  EngineDriver engine;
  Client client;
  Origin listening;
  Peer origin;
};

// Upstream agrees on |chosen| (empty: on nothing), then the client may agree by |pairs|.
struct Agreed {
  Done upstream, client;
  std::string protocol;  // the client's
};
Agreed agree(const std::string &chosen, const std::string &pairs) {
  Between between;
  ptl_stream other = between.connect()->stream;
  bssl::UniquePtr<SSL_CTX> origin = peer_server(lab().origin);
  if (!chosen.empty()) choose_alpn(origin.get(), &chosen);
  bssl::UniquePtr<SSL_CTX> client = peer_client();
  offer_alpn(client.get(), "\x02h2\x08http/1.1");
  const std::string alpn = "\x02h2\x08http/1.1";
  std::vector<uint64_t> tags = between.engine.submit_all(
      {quiet(linked(connect_tls_op(other, lab().client.get(), "origin.test", alpn))),
       like(accept_tls_op(between.client.stream, lab().server.get(), lab().credential.get()), other, pairs)});
  between.client.peer.be_client(client.get(), "origin.test");
  between.client.peer.shake_once();  // the hello is there, whoever answers it
  between.origin.be_server(origin.get());
  REQUIRE(between.origin.handshake());
  Agreed agreed;
  agreed.upstream = between.engine.await(tags[0]);
  if (pairs.find(std::string(1, static_cast<char>(chosen.size())) + chosen) == 0) {
    REQUIRE(between.client.peer.handshake());
    const uint8_t *protocol;
    unsigned size;
    SSL_get0_alpn_selected(between.client.peer.ssl(), &protocol, &size);
    agreed.protocol.assign(reinterpret_cast<const char *>(protocol), size);
  }
  agreed.client = between.engine.await(tags[1]);
  if (agreed.client->status != PTL_OK) {
    // Nothing was said to the client: it can still be told in the clear what is wrong.
    CHECK_STATUS(between.engine.run(peek_op(between.client.stream)), PTL_OK);
  }
  return agreed;
}

// A tunnel from connect to relay, submitted at once for a hello that begins so.
struct WholeChain {
  WholeChain(const std::string &alpn, uint8_t ecdsa, const char *name = "origin.test")
      : expected(alpn), origin(peer_server(lab().origin)) {
    ptl_op peek = peek_op(between.client.stream);
    peek.expect = PTL_EXPECT_HELLO | ecdsa;
    peek.name = name;
    peek.data = reinterpret_cast<const uint8_t *>(expected.data());
    peek.data_len = expected.size();
    const std::string answer = "200";
    tags = between.engine.submit_all(
        {quiet(linked(connect_op(between.client.stream, {loopback(between.listening.port())}))),
         untagged(linked(write_op(between.client.stream, answer))), quiet(linked(peek)),
         quiet(linked(connect_tls_op(PTL_STREAM_CONNECTED, lab().client.get(), "origin.test", "\x02h2"))),
         quiet(linked(like(accept_tls_op(between.client.stream, lab().server.get(), lab().credential.get()),
                           PTL_STREAM_CONNECTED, pairs))),
         quiet(relay_op(between.client.stream, PTL_STREAM_CONNECTED))});
    between.origin = between.listening.accept();
    CHECK_EQ(between.client.peer.read(answer.size()), answer);
  }
  // The client says its hello; the origin will choose |chosen|.
  void shake(const std::string &offered, const std::string &choice, const char *name = "origin.test") {
    client = peer_client();
    if (!offered.empty()) offer_alpn(client.get(), offered);
    chosen = choice;
    if (!chosen.empty()) choose_alpn(origin.get(), &chosen);
    between.client.peer.be_client(client.get(), name);
    between.client.peer.shake_once();
  }
  ptl_stream upstream() { return between.engine.await(tags[0])->stream; }
  Done hello() { return between.engine.await(tags[2]); }
  Done end() { return between.engine.await(tags[5]); }

  Between between;
  const std::string expected;
  const std::string pairs = std::string("\x02h2\x02h2\0\0", 8);
  std::string chosen;
  bssl::UniquePtr<SSL_CTX> origin, client;
  std::vector<uint64_t> tags;
};

}  // namespace

TEST(a_relay_to_what_its_chain_connects) {
  Between between;
  const std::string answer = "200";
  std::vector<uint64_t> tags = between.engine.submit_all(
      {quiet(linked(connect_op(between.client.stream, {loopback(between.listening.port())}))),
       untagged(linked(write_op(between.client.stream, answer))),
       quiet(relay_op(between.client.stream, PTL_STREAM_CONNECTED))});
  between.origin = between.listening.accept();
  CHECK_EQ(between.client.peer.read(3), answer);
  between.client.peer.write("up");
  CHECK_EQ(between.origin.read(2), std::string("up"));
  between.origin.write("down");
  CHECK_EQ(between.client.peer.read(4), std::string("down"));
  between.client.peer.shutdown_write();
  between.origin.shutdown_write();
  CHECK_STATUS(between.engine.await(tags[0]), PTL_OK);
  Done relayed = between.engine.await(tags[2]);
  CHECK_STATUS(relayed, PTL_OK);
  CHECK_EQ(relayed->bytes_out, 2u);
  CHECK_EQ(relayed->bytes_in, 4u);
}

TEST(there_is_nothing_connected_without_a_connect) {
  Between between;
  CHECK_STATUS(between.engine.run(relay_op(between.client.stream, PTL_STREAM_CONNECTED)), PTL_E_STALE);
}

TEST(a_connect_that_fails_fails_its_chain_first_told_first) {
  Between between;
  std::vector<uint64_t> tags = between.engine.submit_all(
      {quiet(linked(connect_op(between.client.stream, {loopback(refusing_port())}))),
       untagged(linked(write_op(between.client.stream, "never"))), peek_op(between.client.stream)});
  CHECK_STATUS(between.engine.await(tags[0]), PTL_E_REFUSED);
  CHECK_STATUS(between.engine.await(tags[2]), PTL_E_REFUSED);
  CHECK_STATUS(between.engine.run(close_op(between.client.stream)), PTL_OK);
  CHECK(between.client.peer.await_end() == Outcome::kEnd);  // and nothing was written
}

TEST(a_quiet_completion_comes_even_if_nothing_else_does) {
  Between between;
  const std::string bytes = "x";
  CHECK_STATUS(between.engine.run(quiet(write_op(between.client.stream, bytes))), PTL_OK);
}

TEST(quiet_completions_come_in_order_and_before_the_next_urgent_one) {
  EngineDriver engine(2);
  uint16_t port = engine.listen();
  for (int round = 0; round < 50; round++) {
    Client client = accept_client(&engine, port);
    const std::string bytes = "x";
    std::vector<uint64_t> tags = engine.submit_all(
        {quiet(linked(write_op(client.stream, bytes))), quiet(linked(write_op(client.stream, bytes))),
         linked(write_op(client.stream, bytes)), close_op(client.stream)});
    CHECK_STATUS(engine.await(tags[2]), PTL_OK);
    CHECK(engine.has(tags[0]) && engine.has(tags[1]));
    for (uint64_t tag : {tags[0], tags[1], tags[3]}) CHECK_STATUS(engine.await(tag), PTL_OK);
  }
}

TEST(a_quiet_failure_is_told) {
  Between between;
  CHECK_STATUS(between.engine.run(quiet(within(10, read_op(between.client.stream, 1)))), PTL_E_TIMEOUT);
}

TEST(the_client_agrees_on_what_upstream_chose) {
  const std::string for_nothing("\0\x08http/1.1", 10);
  const std::string pairs = "\x02h2\x02h2\x08http/1.1\x08http/1.1" + for_nothing;
  Agreed h2 = agree("h2", pairs);
  CHECK_EQ(h2.upstream.data, std::string("h2"));
  CHECK_EQ(h2.protocol, std::string("h2"));
  // Nothing chosen: another pair, and here one that comes first.
  Agreed none = agree("", for_nothing);
  CHECK_STATUS(none.client, PTL_OK);
  CHECK_EQ(none.protocol, std::string("http/1.1"));
}

TEST(a_whole_tunnel_in_one_chain_for_the_hello_that_is_expected) {
  WholeChain whole("\x02h2", PTL_EXPECT_ECDSA);
  whole.shake("\x02h2\x08http/1.1", "h2");  // the expectation is for another list
  CHECK_STATUS(whole.end(), PTL_E_UNEXPECTED);
  const Done hello = whole.hello();
  CHECK_STATUS(hello, PTL_E_UNEXPECTED);
  CHECK(hello->has_sni && hello->has_alpn && hello->ecdsa_ok);
  CHECK_EQ(hello.data, std::string("origin.test\x02h2\x08http/1.1"));
  // Neither side was told anything, nothing is consumed, and both streams can be gone on with.
  CHECK_STATUS(whole.between.engine.run(peek_op(whole.between.client.stream)), PTL_OK);
  CHECK_STATUS(whole.between.engine.run(close_op(whole.upstream())), PTL_OK);
  CHECK(whole.between.origin.await_end() == Outcome::kEnd);

  WholeChain expected("\x02h2", PTL_EXPECT_ECDSA);
  expected.shake("\x02h2", "h2");
  expected.between.origin.be_server(expected.origin.get());
  REQUIRE(expected.between.origin.handshake());
  REQUIRE(expected.between.client.peer.handshake());
  expected.between.client.peer.write("up");
  CHECK_EQ(expected.between.origin.read(2), std::string("up"));
  expected.between.client.peer.shutdown_write();
  expected.between.origin.shutdown_write();
  CHECK_STATUS(expected.end(), PTL_OK);
  CHECK_STATUS(expected.hello(), PTL_OK);
}

TEST(every_field_of_the_expectation_counts) {
  struct Case {
    const char *name;
    std::string alpn;
    uint8_t ecdsa;
  };
  for (const Case &other : {Case{"origin.tes", "\x02h2", PTL_EXPECT_ECDSA}, Case{"Origin.test", "\x02h2", PTL_EXPECT_ECDSA},
                            Case{nullptr, "\x02h2", PTL_EXPECT_ECDSA}, Case{"origin.test", "", PTL_EXPECT_ECDSA},
                            Case{"origin.test", "\x02h3", PTL_EXPECT_ECDSA}, Case{"origin.test", "\x02h2", 0}}) {
    WholeChain whole(other.alpn, other.ecdsa, other.name);
    whole.shake("\x02h2", "h2");
    CHECK_STATUS(whole.end(), PTL_E_UNEXPECTED);
  }
}

TEST(a_hello_without_the_extensions_that_are_not_expected) {
  WholeChain whole("", PTL_EXPECT_ECDSA, nullptr);
  whole.shake("", "", nullptr);
  whole.between.origin.be_server(whole.origin.get());
  REQUIRE(whole.between.origin.handshake());
  CHECK_STATUS(whole.hello(), PTL_OK);
}

TEST(what_is_to_be_connected_is_no_stream_without_its_connect) {
  Between between;
  ptl_op tls = connect_tls_op(PTL_STREAM_CONNECTED, lab().client.get(), "origin.test");
  Done done = between.engine.run(tls);
  CHECK_STATUS(done, PTL_E_STALE);
  CHECK_EQ(done->stream, 0u);
}

TEST(a_choice_in_no_pair_is_refused_before_anything_is_said) {
  for (const std::string &pairs : {std::string(), std::string("\x08http/1.1\x08http/1.1")}) {
    Agreed agreed = agree("h2", pairs);
    CHECK_STATUS(agreed.upstream, PTL_OK);
    CHECK_STATUS(agreed.client, PTL_E_ALPN);
  }
}

TEST(what_waits_behind_what_has_just_succeeded_is_cancelled_too) {
  EngineDriver engine;
  Client client = accept_client(&engine, engine.listen());
  const std::string bytes = "x";
  for (int round = 0; round < 200; round++) {
    // The loop takes both at once, as often as not: then the first write is done, and nothing is under way.
    std::vector<uint64_t> tags = engine.submit_all({linked(write_op(client.stream, bytes)),
                                                    linked(write_op(client.stream, bytes)),
                                                    read_op(client.stream, 1)});
    engine.cancel(client.stream, tags[2]);
    CHECK_STATUS(engine.await(tags[2]), PTL_E_CANCELLED);
    for (uint64_t tag : {tags[0], tags[1]}) engine.await(tag);
  }
}

TEST(a_stream_in_the_middle_of_its_handshake_cannot_be_followed) {
  Between between;
  ptl_stream other = between.connect()->stream;
  uint64_t shaking = between.engine.submit(connect_tls_op(other, lab().client.get(), "origin.test"));
  const std::string pairs = std::string("\0\0", 2);
  ptl_op accept = accept_tls_op(between.client.stream, lab().server.get(), lab().credential.get());
  CHECK_STATUS(between.engine.run(like(accept, other, pairs)), PTL_E_STALE);
  between.engine.cancel(other, shaking);
  CHECK_STATUS(between.engine.await(shaking), PTL_E_CANCELLED);
}

TEST(a_stream_that_agreed_on_nothing_cannot_be_followed) {
  Between between;
  ptl_stream other = between.connect()->stream;  // plain TCP
  ptl_op accept = accept_tls_op(between.client.stream, lab().server.get(), lab().credential.get());
  const std::string pairs = std::string("\0\0", 2);
  CHECK_STATUS(between.engine.run(like(accept, other, pairs)), PTL_E_STALE);
  CHECK_STATUS(between.engine.run(like(accept, PTL_STREAM_CONNECTED, pairs)), PTL_E_STALE);
}

TEST(pairs_are_whole) {
  Between between;
  ptl_stream other = between.connect()->stream;
  ptl_op accept = accept_tls_op(between.client.stream, lab().server.get(), lab().credential.get());
  for (const char *pairs : {"\x02h2", "\x02h", "\x02h2\x02h2\x01"}) {
    const std::string bytes = pairs;
    ptl_op op = like(accept, other, bytes);
    op.tag = 7;
    CHECK_EQ(ptl_submit(between.engine.get(), &op, 1), PTL_E_INVALID);
  }
}

TEST(one_certificate_for_many_names) {
  Trust trust = new_trust({lab().root.der()}, 60000, 100);
  ClientContext context = new_client_context(default_hello(), trust.get());
  LeafSpec spec;
  spec.dns = "*.origin.test";
  Identity identity = lab().root.issue(spec);
  bssl::UniquePtr<SSL_CTX> origin = peer_server(identity);
  auto shake = [&](const char *name) {
    Between between;
    uint64_t tag = between.engine.submit(connect_tls_op(between.connect()->stream, context.get(), name));
    between.origin.be_server(origin.get());
    between.origin.handshake();
    return between.engine.await(tag);
  };
  for (const char *name : {"a.origin.test", "b.origin.test", "a.origin.test"}) CHECK_STATUS(shake(name), PTL_OK);
  // The chain is known to be good by now; the name is still compared.
  for (const char *name : {"origin.test", "a.b.origin.test", "other.test", "127.0.0.1"}) {
    CHECK_STATUS(shake(name), PTL_E_VERIFY);
  }
}
