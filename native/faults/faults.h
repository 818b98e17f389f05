/* Faults by injection: system calls of the engine's loop threads that fail, or do less, by a seeded schedule.
 *
 * faults.c defines the calls themselves (recv, send, accept4, ...), so that it stands before the C library, whether
 * linked into a test program or preloaded into a Python process (LD_PRELOAD). Threads named "polytls-" and a number
 * are struck, nobody else: peers in the same process are safe. While no rule is set, every call goes straight through.
 *
 * A rule strikes the calls of one kind: not the first |after|, at most |count|, one in |one_in| of the rest, by chance
 * from |seed|. So "the third recv fails with ECONNRESET" and "one send in ten is short" are both rules. A schedule is
 * repeatable as far as the order of calls is.
 *
 * An edge-triggered socket that said EAGAIN, or gave less than there was, owes an edge. The kernel never does either
 * without one; so the shim arms the socket again after each such lie, and the edge comes. */
#ifndef POLYTLS_FAULTS_H
#define POLYTLS_FAULTS_H

#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

#define FAULT_RECV 0
#define FAULT_SEND 1
#define FAULT_ACCEPT4 2
#define FAULT_CONNECT 3
#define FAULT_SOCKET 4
#define FAULT_EPOLL_CTL 5
#define FAULT_EPOLL_WAIT 6
#define FAULT_WRITE 7
#define FAULT_READ 8
#define FAULT_GETSOCKOPT 9
#define FAULT_SETSOCKOPT 10
#define FAULT_SHUTDOWN 11
#define FAULT_NUM_CALLS 12

/* As |error| of a rule for recv or send: move one byte of what was asked for. */
#define FAULT_SHORT (-1)

/* faults_add adds a rule. |error| is an errno or FAULT_SHORT. It returns 0 when there is no room for it. */
int faults_add(int call, int error, uint64_t after, uint64_t count, uint32_t one_in, uint64_t seed);
/* faults_clear takes every rule back, and sets all counts to zero. */
void faults_clear(void);
/* faults_calls counts the calls of a kind by loop threads since faults_clear, faults_struck those that were struck. */
uint64_t faults_calls(int call);
uint64_t faults_struck(void);

/* faults_shift_clock adds |seconds| to what CLOCK_REALTIME, time and gettimeofday say, to all threads. */
void faults_shift_clock(int64_t seconds);

#if defined(__cplusplus)
} /* extern "C" */
#endif

#endif
