// Sockets, the clock and descriptors, as the three programs use them. IPv4 on one machine is enough.
#ifndef POLYTLS_BENCH_COMMON_NET_H
#define POLYTLS_BENCH_COMMON_NET_H

#include <netinet/in.h>
#include <stdint.h>

#include <string>

namespace bench {

// die says why on standard error and exits with 2: for what is wrong before a measurement begins.
[[noreturn]] void die(const std::string &why);

uint64_t now_ns();         // CLOCK_MONOTONIC
double process_cpu_s();    // user and system time of this process
void raise_descriptors();  // to the hard limit; the harness sets that

// parse_address reads "A.B.C.D:PORT"; it dies with the option's name where that is not what it is given.
sockaddr_in parse_address(const std::string &option, const std::string &text);

// connect_socket begins a connection, non-blocking and without Nagle's delay. With |receive_bytes| the
// socket's buffer takes about so much. It returns -1 with errno on failure.
int connect_socket(const sockaddr_in &to, int receive_bytes = 0);
// connect_error returns how a connection that became writable ended: 0 or an errno.
int connect_error(int fd);

// listen_socket listens, non-blocking, shared with other threads (SO_REUSEPORT). It dies on failure.
int listen_socket(const sockaddr_in &at);
// accept_socket returns the next connection, non-blocking and without delay, or -1.
int accept_socket(int listener);
uint16_t port_of(int fd);

// reset_on_close makes the next close send RST.
void reset_on_close(int fd);

}  // namespace bench

#endif
