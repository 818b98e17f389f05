#define _GNU_SOURCE
#include "faults.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
/* The next definition behind this one: the C library's, or a sanitizer's. */
#define NEXT(name)                                                       \
  static _Atomic(void *) found;                                          \
  void *next = atomic_load_explicit(&found, memory_order_relaxed);       \
  if (next == NULL) {                                                    \
    next = dlsym(RTLD_NEXT, #name);                                      \
    atomic_store_explicit(&found, next, memory_order_relaxed);           \
  }

enum { kMaxRules = 16, kMaxFds = 65536 };

struct rule {
  int call, error;
  uint64_t after, left;
  uint32_t one_in;
  uint64_t chance;
};

/* How epoll watches a descriptor, to arm it again. */
struct watch {
  int epoll;
  struct epoll_event event;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what is below, but for the atomics */
static struct rule rules[kMaxRules];
static _Atomic int num_rules;
static uint64_t calls[FAULT_NUM_CALLS];
static uint64_t struck;
static struct watch watches[kMaxFds];
static _Atomic int64_t clock_shift;

static int on_loop_thread(void) {
  static _Thread_local int known; /* 1 no, 2 yes */
  if (known == 0) {
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof(name));
    const int yes = strncmp(name, "polytls-", 8) == 0 && name[8] >= '0' && name[8] <= '9';
    if (!yes) return 0; /* it may not have its name yet */
    known = 2;
  }
  return known == 2;
}

static uint64_t mix(uint64_t *state) { /* splitmix64 */
  uint64_t value = *state += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

/* What this call is to end in: 0: as it will. */
static int verdict(int call) {
  if (atomic_load_explicit(&num_rules, memory_order_acquire) == 0 || !on_loop_thread()) return 0;
  int error = 0;
  pthread_mutex_lock(&lock);
  const uint64_t number = calls[call]++;
  const int count = atomic_load_explicit(&num_rules, memory_order_relaxed);
  for (int i = 0; i < count && error == 0; i++) {
    struct rule *rule = &rules[i];
    if (rule->call != call || number < rule->after || rule->left == 0) continue;
    if (rule->one_in > 1 && mix(&rule->chance) % rule->one_in != 0) continue;
    rule->left--;
    struck++;
    error = rule->error;
  }
  pthread_mutex_unlock(&lock);
  return error;
}

/* The edge that is owed for a lie about |fd|. */
static void arm_again(int fd) {
  if (fd < 0 || fd >= kMaxFds) return;
  pthread_mutex_lock(&lock);
  struct watch watch = watches[fd];
  pthread_mutex_unlock(&lock);
  if (watch.epoll == 0) return;
  NEXT(epoll_ctl)
  ((int (*)(int, int, int, struct epoll_event *))next)(watch.epoll, EPOLL_CTL_MOD, fd, &watch.event);
}

/* A connection that was lost is lost for whatever comes next, too. */
static int lose(int fd, int error) {
  if (error == ECONNRESET || error == EPIPE || error == ETIMEDOUT) {
    NEXT(shutdown)
    ((int (*)(int, int))next)(fd, SHUT_RDWR);
  }
  if (error == EAGAIN) arm_again(fd);
  errno = error;
  return -1;
}

EXPORT int faults_add(int call, int error, uint64_t after, uint64_t count, uint32_t one_in, uint64_t seed) {
  pthread_mutex_lock(&lock);
  const int at = atomic_load_explicit(&num_rules, memory_order_relaxed);
  const int fits = at < kMaxRules && call >= 0 && call < FAULT_NUM_CALLS && error != 0;
  if (fits) {
    rules[at] = (struct rule){call, error, after, count, one_in, seed};
    atomic_store_explicit(&num_rules, at + 1, memory_order_release);
  }
  pthread_mutex_unlock(&lock);
  return fits;
}

EXPORT void faults_clear(void) {
  pthread_mutex_lock(&lock);
  atomic_store_explicit(&num_rules, 0, memory_order_release);
  memset(calls, 0, sizeof(calls));
  struck = 0;
  pthread_mutex_unlock(&lock);
}

EXPORT uint64_t faults_calls(int call) {
  pthread_mutex_lock(&lock);
  const uint64_t count = call >= 0 && call < FAULT_NUM_CALLS ? calls[call] : 0;
  pthread_mutex_unlock(&lock);
  return count;
}

EXPORT uint64_t faults_struck(void) {
  pthread_mutex_lock(&lock);
  const uint64_t count = struck;
  pthread_mutex_unlock(&lock);
  return count;
}

EXPORT void faults_shift_clock(int64_t seconds) { atomic_store(&clock_shift, seconds); }

/* --- The calls ----------------------------------------------------------------------------------- */

EXPORT ssize_t recv(int fd, void *into, size_t size, int flags) {
  NEXT(recv)
  ssize_t (*real)(int, void *, size_t, int) = (ssize_t(*)(int, void *, size_t, int))next;
  const int error = verdict(FAULT_RECV);
  if (error == 0) return real(fd, into, size, flags);
  if (error == FAULT_SHORT) {
    const ssize_t got = real(fd, into, size == 0 ? 0 : 1, flags);
    const int kept = errno;
    arm_again(fd);
    errno = kept;
    return got;
  }
  return lose(fd, error);
}

EXPORT ssize_t send(int fd, const void *bytes, size_t size, int flags) {
  NEXT(send)
  ssize_t (*real)(int, const void *, size_t, int) = (ssize_t(*)(int, const void *, size_t, int))next;
  const int error = verdict(FAULT_SEND);
  if (error == 0) return real(fd, bytes, size, flags);
  if (error == FAULT_SHORT) return real(fd, bytes, size == 0 ? 0 : 1, flags);
  return lose(fd, error);
}

EXPORT int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
  NEXT(accept4)
  const int error = verdict(FAULT_ACCEPT4);
  if (error == 0) return ((int (*)(int, struct sockaddr *, socklen_t *, int))next)(fd, address, size, flags);
  errno = error;
  return -1;
}

EXPORT int connect(int fd, const struct sockaddr *address, socklen_t size) {
  NEXT(connect)
  const int error = verdict(FAULT_CONNECT);
  if (error == 0) return ((int (*)(int, const struct sockaddr *, socklen_t))next)(fd, address, size);
  errno = error;
  return -1;
}

EXPORT int socket(int family, int type, int protocol) {
  NEXT(socket)
  const int error = verdict(FAULT_SOCKET);
  if (error == 0) return ((int (*)(int, int, int))next)(family, type, protocol);
  errno = error;
  return -1;
}

EXPORT int epoll_ctl(int epoll, int how, int fd, struct epoll_event *event) {
  NEXT(epoll_ctl)
  const int error = how == EPOLL_CTL_DEL ? 0 : verdict(FAULT_EPOLL_CTL);
  if (error != 0) {
    errno = error;
    return -1;
  }
  const int result = ((int (*)(int, int, int, struct epoll_event *))next)(epoll, how, fd, event);
  if (result == 0 && fd >= 0 && fd < kMaxFds) {
    const int kept = errno;
    pthread_mutex_lock(&lock);
    watches[fd].epoll = 0;
    if (how != EPOLL_CTL_DEL && event != NULL && (event->events & EPOLLET) != 0) {
      watches[fd] = (struct watch){epoll, *event};
    }
    pthread_mutex_unlock(&lock);
    errno = kept;
  }
  return result;
}

EXPORT int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout) {
  NEXT(epoll_wait)
  const int error = verdict(FAULT_EPOLL_WAIT);
  if (error == 0) return ((int (*)(int, struct epoll_event *, int, int))next)(epoll, events, most, timeout);
  errno = error;
  return -1;
}

EXPORT ssize_t write(int fd, const void *bytes, size_t size) {
  NEXT(write)
  const int error = verdict(FAULT_WRITE);
  if (error == 0) return ((ssize_t(*)(int, const void *, size_t))next)(fd, bytes, size);
  errno = error;
  return -1;
}

EXPORT ssize_t read(int fd, void *into, size_t size) {
  NEXT(read)
  const int error = verdict(FAULT_READ);
  if (error == 0) return ((ssize_t(*)(int, void *, size_t))next)(fd, into, size);
  errno = error;
  return -1;
}

EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
  NEXT(getsockopt)
  const int error = verdict(FAULT_GETSOCKOPT);
  if (error == 0) return ((int (*)(int, int, int, void *, socklen_t *))next)(fd, level, name, value, size);
  errno = error;
  return -1;
}

EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
  NEXT(setsockopt)
  const int error = verdict(FAULT_SETSOCKOPT);
  if (error == 0) return ((int (*)(int, int, int, const void *, socklen_t))next)(fd, level, name, value, size);
  errno = error;
  return -1;
}

EXPORT int shutdown(int fd, int how) {
  NEXT(shutdown)
  const int error = verdict(FAULT_SHUTDOWN);
  if (error == 0) return ((int (*)(int, int))next)(fd, how);
  errno = error;
  return -1;
}

/* --- The wall clock ------------------------------------------------------------------------------ */

EXPORT int clock_gettime(clockid_t which, struct timespec *out) {
  NEXT(clock_gettime)
  const int result = ((int (*)(clockid_t, struct timespec *))next)(which, out);
  if (result == 0 && which == CLOCK_REALTIME) out->tv_sec += (time_t)atomic_load(&clock_shift);
  return result;
}

EXPORT time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != NULL) *out = now.tv_sec;
  return now.tv_sec;
}

EXPORT int gettimeofday(struct timeval *restrict out, void *restrict zone) {
  (void)zone;
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  out->tv_sec = now.tv_sec;
  out->tv_usec = now.tv_nsec / 1000;
  return 0;
}
