// A tunnel that was quiet for a while, whose TLS connections rest, goes on as if nothing had been.
#include <openssl/ssl.h>
#include <time.h>

#include <string>
#include <vector>

#include "check.h"
#include "tunnel.h"

using namespace test;

namespace {

constexpr int kPatienceMs = 20000;

void await_rests(EngineDriver *engine, uint64_t wanted) {
  const timespec moment = {0, 1000000};
  for (int i = 0; i < kPatienceMs && engine->stats().rests < wanted; i++) nanosleep(&moment, nullptr);
  CHECK_EQ(engine->stats().rests, wanted);
}

std::vector<TunnelSpec> versions() {
  TunnelSpec tls12, tls13;
  tls12.tls = tls13.tls = true;
  tls12.version = TLS1_2_VERSION;
  return {tls12, tls13};
}

struct Relayed {
  Relayed(EngineDriver *driver, uint16_t port, const TunnelSpec &spec)
      : tunnel(open_tunnel(driver, port, spec)), tag(driver->submit(relay_op(tunnel.stream, tunnel.other))) {}

  void talk(const std::string &what) {
    tunnel.client.write("up " + what);
    CHECK_EQ(tunnel.origin.read(3 + what.size()), "up " + what);
    tunnel.origin.write("down " + what);
    CHECK_EQ(tunnel.client.read(5 + what.size()), "down " + what);
  }

  Tunnel tunnel;
  uint64_t tag;
};

}  // namespace

TEST(what_rested_goes_on_and_rests_again) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  uint64_t rests = 0;
  for (const TunnelSpec &spec : versions()) {
    Relayed one(&engine, port, spec);
    one.talk("first");
    await_rests(&engine, ++rests);
    if (spec.version == TLS1_3_VERSION) {  // new keys while it rests, asked of both of our ends
      REQUIRE(SSL_key_update(one.tunnel.origin.ssl(), SSL_KEY_UPDATE_REQUESTED));
      REQUIRE(SSL_key_update(one.tunnel.client.ssl(), SSL_KEY_UPDATE_REQUESTED));
    }
    one.talk("second");
    await_rests(&engine, ++rests);
    one.talk("third");
    await_rests(&engine, ++rests);
    one.talk(std::string(50000, 'm'));  // several records, whose numbers go on where they were
    await_rests(&engine, ++rests);
    // The last words come from both sides while all rests.
    one.tunnel.origin.say_goodbye();
    CHECK(one.tunnel.client.await_end() == Outcome::kEnd);
    one.tunnel.client.say_goodbye();
    CHECK(one.tunnel.origin.await_end() == Outcome::kEnd);
    Done done = engine.await(one.tag);
    CHECK_STATUS(done, PTL_OK);
    CHECK_EQ(done->bytes_out, 8u + 9u + 8u + 50003u);
    CHECK_EQ(done->truncated, 0);
  }
}

TEST(what_rests_can_be_ended) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  uint64_t rests = 0;
  for (const TunnelSpec &spec : versions()) {
    Relayed one(&engine, port, spec), other(&engine, port, spec);
    rests += 2;
    await_rests(&engine, rests);
    engine.cancel(one.tunnel.stream, one.tag);
    CHECK_STATUS(engine.await(one.tag), PTL_E_CANCELLED);
    CHECK(one.tunnel.client.await_end() == Outcome::kEnd);  // told in a record of its own
    CHECK(one.tunnel.origin.await_end() == Outcome::kEnd);
    other.tunnel.origin.write(std::string(3, 'x'));
    CHECK_EQ(other.tunnel.client.read(3), std::string("xxx"));
    other.tunnel.client.reset();
    CHECK_STATUS(engine.await(other.tag), PTL_E_RESET);
  }
}

TEST(a_plain_relay_has_nothing_to_rest_from) {
  EngineDriver engine;
  uint16_t port = engine.listen();
  Relayed plain(&engine, port, TunnelSpec());
  plain.talk("plainly");
  TunnelSpec tls;
  tls.tls = true;
  Relayed beside(&engine, port, tls);  // which rests later than the plain one would
  await_rests(&engine, 1);
  plain.talk("still");
}
