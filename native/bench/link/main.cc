// bench-link: a long line between two network namespaces, with a delay and a rate.
//
// It holds one TUN device in each namespace and carries packets from one to the other: each leaves when those
// before it have left at the line's rate, and arrives the delay later. What would wait longer than the queue
// allows is dropped, as routers do. It needs root and /dev/net/tun, but no kernel module for queueing. It makes
// the devices, says `READY`, and ends with standard input; addresses are the caller's to give.
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "common/net.h"
#include "common/options.h"

namespace bench {
namespace {

constexpr size_t kLargestPacket = 65536;
constexpr uint64_t kMillisecond = 1'000'000;
constexpr int kPacketsATurn = 64;

struct Packet {
  uint64_t arrives;
  std::vector<uint8_t> bytes;
};

// One direction of the line.
struct Direction {
  Direction(int source, int target) : from(source), to(target) {}
  int from, to;
  uint64_t free_at = 0;  // when the last packet will have left
  std::deque<Packet> flying;
};

struct Line {
  double bits_per_ns;
  uint64_t delay_ns, queue_ns;
};

int make_device(const std::string &space, const std::string &device) {
  int handle = open(("/run/netns/" + space).c_str(), O_RDONLY | O_CLOEXEC);
  if (handle < 0 || setns(handle, CLONE_NEWNET) < 0) die("cannot enter the namespace " + space + ": " + strerror(errno));
  close(handle);
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  ifreq request{};
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  strncpy(request.ifr_name, device.c_str(), IFNAMSIZ - 1);
  if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0) die(std::string("cannot make a TUN device: ") + strerror(errno));
  return fd;
}

void take(const Line &line, Direction *way) {
  static uint8_t bytes[kLargestPacket];
  for (int i = 0; i < kPacketsATurn; i++) {
    ssize_t size = read(way->from, bytes, sizeof bytes);
    if (size <= 0) return;
    uint64_t now = now_ns(), begins = std::max(now, way->free_at);
    if (begins - now > line.queue_ns) continue;  // dropped
    way->free_at = begins + static_cast<uint64_t>(static_cast<double>(size) * 8 / line.bits_per_ns);
    way->flying.push_back({way->free_at + line.delay_ns, std::vector<uint8_t>(bytes, bytes + size)});
  }
}

void deliver(Direction *way) {
  uint64_t now = now_ns();
  while (!way->flying.empty() && way->flying.front().arrives <= now) {
    const std::vector<uint8_t> &bytes = way->flying.front().bytes;
    if (write(way->to, bytes.data(), bytes.size()) < 0 && errno == EAGAIN) return;
    way->flying.pop_front();
  }
}

void carry(const Line &line, int a, int b) {
  Direction ways[2] = {Direction(a, b), Direction(b, a)};
  for (;;) {
    uint64_t now = now_ns(), next = now + 1000 * kMillisecond;
    for (const Direction &way : ways) {
      if (!way.flying.empty()) next = std::min(next, std::max(now, way.flying.front().arrives));
    }
    timespec wait{0, static_cast<long>(std::min(next - now, 999 * kMillisecond))};
    pollfd watched[] = {{a, POLLIN, 0}, {b, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    ppoll(watched, 3, &wait, nullptr);
    if (watched[2].revents != 0) return;
    for (Direction &way : ways) {
      deliver(&way);
      take(line, &way);
    }
  }
}

int run(int argc, char **argv) {
  Options options(argc, argv);
  std::string a = options.text("a", "", "a network namespace"), b = options.text("b", "", "the other");
  std::string device = options.text("device", "line0", "the TUN device's name in both");
  Line line{};
  line.bits_per_ns = options.real("mbit", 100, "Mbit/s each way") / 1000;
  line.delay_ns = static_cast<uint64_t>(options.real("delay-ms", 10, "each way") * static_cast<double>(kMillisecond));
  line.queue_ns = static_cast<uint64_t>(options.real("queue-ms", 100, "the longest wait for the line") * static_cast<double>(kMillisecond));
  options.finish("A line with delay and rate between two network namespaces.");
  // A line is not scheduled: on a busy machine it would otherwise wait for its turn. Without the right to, it does.
  sched_param urgent{1};
  sched_setscheduler(0, SCHED_FIFO, &urgent);
  int first = make_device(a, device), second = make_device(b, device);
  printf("READY\n");
  fflush(stdout);
  carry(line, first, second);
  return 0;
}

}  // namespace
}  // namespace bench

int main(int argc, char **argv) { return bench::run(argc, argv); }
