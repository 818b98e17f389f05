/* polytls/native.h: the whole C ABI of the PolyTLS engine. This prose is its manual.
 *
 * The engine is a completion engine in the manner of io_uring. A caller submits operations on
 * streams and later drains their completions; an eventfd becomes readable while completions wait.
 * Sockets, TLS states and relayed bytes live on the engine's own loop threads (epoll, one loop a
 * core, shared-nothing): a stream and its pair live on one loop, and nobody else touches them.
 *
 * Voice and conventions (BoringSSL's): a function's first sentence starts with its name and says
 * success, failure and lifetime. `x_len` counts bytes, `num_x` elements; `out_x` is written on
 * success alone, unless said otherwise. Unless said otherwise, functions may be called from any
 * thread, except that an engine must not be freed while another thread is using it. Bytes handed to
 * the engine are copied before the call returns. Durations are milliseconds, 0 meaning "none"; points
 * in time are nanoseconds of CLOCK_MONOTONIC.
 *
 * Between the two `ffi` marks stands only what cffi's parser reads; the declarations are taken from
 * here and checked for drift (native/ffi). */
#ifndef POLYTLS_NATIVE_H
#define POLYTLS_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

/* ffi: begin */

/* PTL_ABI_VERSION changes with every incompatible change of this file. A caller compares it with
 * what |ptl_abi_version| returns. */
#define PTL_ABI_VERSION 4

int ptl_abi_version(void);

/* ptl_versions returns a static text naming the TLS library the engine was built with. */
const char *ptl_versions(void);

/* --- Status -------------------------------------------------------------------------------------
 * The status of a completion, and what functions returning `int` return: PTL_OK or a failure. */
#define PTL_OK 0
#define PTL_E_CANCELLED 1    /* cancelled, or its stream was closed */
#define PTL_E_TIMEOUT 2      /* its deadline passed */
#define PTL_E_STALE 3        /* no such stream: the handle is old or was never one */
#define PTL_E_BUSY 4         /* the stream has an operation under way already */
#define PTL_E_INVALID 5      /* arguments that fit no operation */
#define PTL_E_NOMEM 6        /* out of memory */
#define PTL_E_SHUTDOWN 7     /* the engine is stopping */
#define PTL_E_CLOSED 8       /* the other end closed (FIN or close_notify) before the operation was done */
#define PTL_E_RESET 9        /* the other end reset the connection */
#define PTL_E_IO 10          /* any other socket error, see |sys_errno| */
#define PTL_E_REFUSED 11     /* every address refused the connection */
#define PTL_E_UNREACHABLE 12 /* no address could be reached */
#define PTL_E_TOO_LARGE 13   /* a head or hello is longer than its limit */
#define PTL_E_MALFORMED 14   /* bytes that can be no head, or no ClientHello */
#define PTL_E_NOT_TLS 15     /* the other end does not speak TLS */
#define PTL_E_ALERT 16       /* the other end sent a fatal alert, see |alert| */
#define PTL_E_VERIFY 17      /* certificate verification failed, see |verify_error| */
#define PTL_E_TLS_VERSION 18 /* no common protocol version */
#define PTL_E_TLS_SHARED 19  /* no common cipher suite, group or signature algorithm */
#define PTL_E_ALPN 20        /* the client does not offer the one protocol allowed */
#define PTL_E_KEY_USAGE 21   /* the certificate's key usage forbids what the handshake needs */
#define PTL_E_TLS 22         /* any other failure of the TLS protocol */
#define PTL_E_IDLE 23        /* relay: no byte for the idle time */
#define PTL_E_LIFETIME 24    /* relay: the lifetime passed */
#define PTL_E_CHOICE 25      /* the server chose what was offered for show alone, or not offered at all */
#define PTL_E_ECH_REJECTED 26 /* the server, proven to have the config's public name, does not take this ECH */
#define PTL_E_ECH_UNUSABLE 27 /* what is offered, or the configs, rule ECH out: nothing was sent */
#define PTL_E_UNEXPECTED 28  /* PEEK_HELLO: a whole ClientHello, told as in success, and not the one |expect| has */
#define PTL_E_NO_SOCKET 29   /* connect: no descriptor was left, or no room in the engine, see |sys_errno| */

/* ptl_status_name returns a static, lower-case name of |status|. */
const char *ptl_status_name(int status);

/* --- Certificates, keys and contexts -------------------------------------------------------------
 * Reference-counted and immutable once made; safe to share between threads. |*_free| gives up the
 * caller's reference; operations under way hold their own. Freeing NULL does nothing. Functions that
 * return a pointer return NULL on failure and write a sentence to |err|, NUL-terminated and cut to
 * |err_len|. */
typedef struct ptl_trust ptl_trust;
typedef struct ptl_credential ptl_credential;
typedef struct ptl_client_context ptl_client_context;
typedef struct ptl_server_context ptl_server_context;

/* ptl_trust_new returns a set of trusted roots read from |num_der| certificates in DER, each of
 * |der_lens[i]| bytes. A certificate that does not parse is left out; |*out_num_added| counts the rest.
 * Chains that verified are remembered for |cache_ms|, at most |cache_max| of them. */
ptl_trust *ptl_trust_new(const uint8_t *const *der, const size_t *der_lens, size_t num_der,
                         uint32_t cache_ms, uint32_t cache_max, size_t *out_num_added, char *err,
                         size_t err_len);
void ptl_trust_free(ptl_trust *trust);

/* ptl_credential_new returns a certificate chain (leaf first, DER) with its private key (PKCS#8 DER).
 * The chain's key and the private key must match. A key given in the same bytes to many credentials is
 * parsed once. */
ptl_credential *ptl_credential_new(const uint8_t *const *chain, const size_t *chain_lens,
                                   size_t num_chain, const uint8_t *key, size_t key_len, char *err,
                                   size_t err_len);
void ptl_credential_free(ptl_credential *credential);

/* A ptl_hello says what an upstream ClientHello offers, as far as knobs go. A NULL pointer means the
 * library's default; |key_shares| that is not NULL with a count of zero means none are sent. |alpn| is the profile's list in wire form (a length byte before each
 * name); what is offered on one connection is given with its operation.
 *
 * |template_bytes|, where there are any, say exactly what the hello is (native/boringssl/patches, the format is
 * told in ssl/client_hello_template.h). Then of the knobs count only |resumption|, |alps| with its code point, and
 * |cert_compression|, which then says what can be undone and not what is offered. */
typedef struct ptl_hello {
  int grease;
  int permute_extensions;
  int ech_grease;
  int ocsp_stapling;
  int signed_cert_timestamps;
  int session_tickets;
  int resumption;             /* keep sessions and offer them again, by host and port */
  int alps_new_codepoint;
  uint16_t min_version;       /* 0x0301 .. 0x0304 */
  uint16_t max_version;
  const uint16_t *groups;
  size_t num_groups;
  const uint16_t *key_shares;
  size_t num_key_shares;
  const uint16_t *sigalgs;
  size_t num_sigalgs;
  const char *cipher_list;    /* TLS 1.2 suites, OpenSSL names joined by colons; NULL: default */
  const uint16_t *cert_compression; /* 1 zlib, 2 brotli, 3 zstd, in order */
  size_t num_cert_compression;
  const uint8_t *alps;        /* protocols with (empty) application settings, wire form */
  size_t alps_len;
  const uint8_t *template_bytes;
  size_t template_len;
} ptl_hello;

#define PTL_VERIFY_CHAIN 1 /* the chain must lead to a trusted root */
#define PTL_VERIFY_HOST 2  /* the leaf must be for the name connected to; only with PTL_VERIFY_CHAIN */

/* ptl_client_context_new returns what all upstream handshakes of one profile share. |trust| may be
 * NULL where |verify| (PTL_VERIFY_*) is 0. */
ptl_client_context *ptl_client_context_new(const ptl_hello *hello, ptl_trust *trust, int verify,
                                           char *err, size_t err_len);
void ptl_client_context_free(ptl_client_context *context);

/* ptl_server_context_new returns what all client handshakes share: TLS 1.2 and 1.3, X25519MLKEM768,
 * X25519, P-256 and P-384. */
ptl_server_context *ptl_server_context_new(char *err, size_t err_len);
void ptl_server_context_free(ptl_server_context *context);

/* ptl_set_decompressor sets the process-wide function that undoes certificate compression
 * (RFC 8879). It must write exactly |out_len| bytes and return 1, or return 0. It is called on loop
 * threads, at most once a handshake. |out_len| is bounded by PTL_MAX_CERTIFICATE_BYTES. */
#define PTL_MAX_CERTIFICATE_BYTES 102400
void ptl_set_decompressor(int (*decompress)(int algorithm, const uint8_t *in, size_t in_len,
                                            uint8_t *out, size_t out_len));

/* --- Engine and streams --------------------------------------------------------------------------
 * A ptl_stream names one connection. It holds an index and a generation: a handle that outlived its
 * stream is PTL_E_STALE, never another stream. 0 is no stream. */
typedef struct ptl_engine ptl_engine;
typedef uint64_t ptl_stream;

/* ptl_engine_new returns a running engine with |num_loops| loop threads (0: one for each core this process
 * may use but one, which is the caller's, and at least one), or NULL with a sentence in |err|. At most |max_streams| streams (0: no bound of its own) are
 * open at once; beyond it connections wait in the backlog. */
ptl_engine *ptl_engine_new(uint32_t num_loops, uint32_t max_streams, char *err, size_t err_len);

/* ptl_engine_stop ends every operation with PTL_E_SHUTDOWN, closes every stream and joins the loop
 * threads. Completions can still be drained. It may be called once or more. */
void ptl_engine_stop(ptl_engine *engine);

/* ptl_engine_free stops |engine| and frees it with every completion not drained. */
void ptl_engine_free(ptl_engine *engine);

/* ptl_engine_eventfd returns the descriptor that is readable while completions wait. |engine| owns it. */
int ptl_engine_eventfd(const ptl_engine *engine);

uint32_t ptl_engine_num_loops(const ptl_engine *engine);

/* ptl_listen listens on |ip| (text, no brackets) and |port| (0: any). Every connection accepted has
 * its request head read (at most |head_max| bytes within |head_ms|) and then gives one completion of kind
 * PTL_OP_ACCEPT with |tag|. On success |*out_listener| and |*out_port| are written; on failure the status
 * is PTL_E_IO and |*out_errno| says why. */
int ptl_listen(ptl_engine *engine, const char *ip, uint16_t port, int backlog, uint32_t head_max,
               uint32_t head_ms, uint64_t tag, uint32_t *out_listener, uint16_t *out_port,
               int *out_errno);

/* ptl_listen_on is |ptl_listen| on |fd|, a socket that listens already and may be one that other processes hold too.
 * |fd| is the engine's from then on, also on failure. */
int ptl_listen_on(ptl_engine *engine, int fd, uint32_t head_max, uint32_t head_ms, uint64_t tag,
                  uint32_t *out_listener, int *out_errno);

/* ptl_unlisten stops accepting: connections made after it returned are refused, those that wait in the backlog are
 * accepted first, as far as there is room and at most 4096 of them. Heads being read go on. The socket listens no more
 * for whoever else holds it. Closing twice does nothing. */
void ptl_unlisten(ptl_engine *engine, uint32_t listener);

/* --- Operations ----------------------------------------------------------------------------------
 * One operation at a time runs on a stream (a relay occupies both of its streams); PTL_OP_CLOSE may come
 * at any time and ends the one under way with PTL_E_CANCELLED. */
#define PTL_OP_ACCEPT 1      /* completions of a listener; cannot be submitted */
#define PTL_OP_READ_HEAD 2   /* bytes up to and with the first empty line; what follows stays in the stream */
#define PTL_OP_PEEK_HELLO 3  /* parse the ClientHello that comes next, consuming nothing */
#define PTL_OP_READ 4        /* at least 1, at most |limit| bytes */
#define PTL_OP_WRITE 5       /* done when the kernel has taken every byte */
#define PTL_OP_CONNECT 6     /* a new stream on the loop of |stream|, to the first address that answers. PTL_E_RESET:
                              * |stream| itself was reset meanwhile, and nobody is left to connect for */
#define PTL_OP_CONNECT_TLS 7 /* become a TLS client over this stream */
#define PTL_OP_ACCEPT_TLS 8  /* become a TLS server over this stream */
#define PTL_OP_RELAY 9       /* move bytes both ways between |stream| and |other|; ends with both closed */
#define PTL_OP_CLOSE 10      /* flush, say goodbye, close; the handle is stale from then on. Of a relay that it ends,
                              * the other stream is closed in order */

/* The next operation of the same submission starts when this one has succeeded. When this one fails, the
 * rest of its chain fails with the same status; an untagged failure is told by the next tagged one. */
#define PTL_FLAG_LINK 1
/* PEEK_HELLO: hand out the raw bytes too. CONNECT_TLS: those of the ClientHello that was sent (the first, where
 * there were two), also when the handshake fails. */
#define PTL_FLAG_RAW 2
/* CLOSE: reset the connection (RST) instead of closing it in order. */
#define PTL_FLAG_RESET 4
/* Its success is not urgent: it is told with the next completion of its loop that is, or after a few milliseconds. A
 * failure is told at once. Completions of one loop always come in the order in which they happened. */
#define PTL_FLAG_QUIET 8

/* As |stream| or |other| of an operation linked behind a CONNECT: the stream that it made. */
#define PTL_STREAM_CONNECTED 0xffffffffffffffffu

/* What a PEEK_HELLO expects. With PTL_EXPECT_HELLO it succeeds only for a ClientHello that has exactly the server
 * name |name| (NULL: none) and the protocols |data| (wire form; empty: no extension), and that can use an ECDSA P-256
 * certificate if PTL_EXPECT_ECDSA is there too, and cannot if not. What was linked behind it has been decided for
 * such a one; any other is PTL_E_UNEXPECTED, and nothing behind it is begun. */
#define PTL_EXPECT_HELLO 1
#define PTL_EXPECT_ECDSA 2

/* A PTL_OP_CONNECT's address: 4 or 16 bytes in network order. */
typedef struct ptl_address {
  uint8_t ip[16];
  uint8_t ip_len;
  uint16_t port;
  uint32_t scope;
} ptl_address;

typedef struct ptl_op {
  uint32_t kind;         /* PTL_OP_* */
  uint32_t flags;        /* PTL_FLAG_* */
  uint64_t tag;          /* comes back in the completion; 0: no completion wanted */
  ptl_stream stream;
  ptl_stream other;      /* RELAY. ACCEPT_TLS: 0, or a stream that agreed on a protocol before, see |data| */
  uint32_t deadline_ms;  /* counted from the operation's start */
  uint32_t limit;        /* READ_HEAD, PEEK_HELLO, READ: bytes */
  const uint8_t *data;   /* WRITE: the bytes. CONNECT_TLS: protocols to offer, wire form. */
  size_t data_len;       /* ACCEPT_TLS: the one protocol to agree on, bare; empty: none. With |other|: pairs in wire
                          * form, what |other| may have agreed on (empty: nothing) and what to agree on then; what
                          * is in no pair is PTL_E_ALPN before anything is sent. */
  const ptl_address *addresses; /* CONNECT */
  size_t num_addresses;
  uint32_t stagger_ms;   /* CONNECT: between attempts (RFC 8305 §5) */
  uint32_t idle_ms;      /* RELAY: end after so long without a byte; |deadline_ms| is the lifetime */
  uint32_t half_idle_ms; /* RELAY: the same once one direction has ended */
  ptl_client_context *client_context;
  ptl_server_context *server_context;
  ptl_credential *credential;
  const char *name;      /* CONNECT_TLS: the host: DNS name (sent as SNI) or IP address. PEEK_HELLO: see |expect| */
  uint16_t port;         /* CONNECT_TLS: for the session cache */
  uint8_t alert;         /* CLOSE: send this fatal alert first; 0: none */
  uint8_t expect;        /* PEEK_HELLO: PTL_EXPECT_*, with |name| and |data| */
  const uint8_t *ech_configs; /* CONNECT_TLS: an ECHConfigList (RFC 9849 section 4) to encrypt the hello with; empty: */
  size_t ech_configs_len;     /* none. With one, no hello that names the host leaves in the clear */
} ptl_op;

/* ptl_submit hands |num_ops| operations to the engine. It returns PTL_OK, or a failure when nothing
 * was taken: PTL_E_SHUTDOWN, PTL_E_INVALID or PTL_E_NOMEM. (Of several chains in one call, those before an engine's
 * stop, or before memory was short, may have been taken; their completions come all the same.) Everything else, a stale handle too, is told by completions.
 * A CLOSE without a tag that is linked to nothing is never PTL_E_NOMEM: each stream has room for one. Where that room is
 * needed, it is closed behind whatever was submitted for its loop by then.
 * Operations linked together must be on streams of one loop. */
int ptl_submit(ptl_engine *engine, const ptl_op *ops, size_t num_ops);

/* ptl_cancel asks for the operation |tag| on the loop of |stream| to end with PTL_E_CANCELLED. Its
 * completion still comes, with whatever the operation ended in. An operation that waits for its turn in a chain
 * takes the whole chain with it. Unknown tags do nothing. */
void ptl_cancel(ptl_engine *engine, ptl_stream stream, uint64_t tag);

/* --- Completions ---------------------------------------------------------------------------------- */
#define PTL_SIDE_STREAM 0 /* |stream| of the operation */
#define PTL_SIDE_OTHER 1  /* |other| of a relay */

typedef struct ptl_completion {
  uint64_t tag;
  uint32_t kind;          /* PTL_OP_* */
  int32_t status;         /* PTL_OK or PTL_E_* */
  ptl_stream stream;      /* ACCEPT, CONNECT: the new stream, 0 where there is none; else the operation's */
  uint64_t started_ns;
  uint64_t ended_ns;
  int32_t sys_errno;
  int32_t verify_error;   /* X509_V_ERR_* */
  uint8_t alert;          /* received alert (PTL_E_ALERT), or the one sent */
  uint8_t side;           /* RELAY: whose end failed, PTL_SIDE_* */
  uint8_t flight_sent;    /* *_TLS: our own handshake flight went out before the failure */
  uint8_t resumed;
  uint8_t retried;        /* a HelloRetryRequest took place */
  uint8_t truncated;      /* RELAY: |other| ended first, and its TLS without close_notify. PEEK_HELLO that was ended
                           * early: some bytes had come */
  uint8_t ecdsa_ok;       /* PEEK_HELLO: the client can use an ECDSA P-256 certificate */
  uint8_t has_sni;        /* PEEK_HELLO */
  uint8_t has_alpn;       /* PEEK_HELLO */
  uint8_t ech_accepted;   /* CONNECT_TLS: upstream took the encrypted hello */
  uint16_t version;       /* *_TLS: negotiated. PEEK_HELLO: the highest offered */
  uint16_t cipher;
  uint16_t group;
  uint16_t sigalg;
  uint32_t address_index; /* CONNECT: which address answered */
  uint64_t bytes_out;     /* RELAY: from |stream| to |other|. PEEK_HELLO: bytes of the hello's records.
                           * CONNECT_TLS: of those at the end of |data|, with PTL_FLAG_RAW; else 0 */
  uint64_t bytes_in;      /* RELAY: from |other| to |stream| */
  uint64_t first_byte_ns; /* RELAY: when the first byte from |other| was there; 0: never */
  uint32_t data_len;      /* head, hello, bytes read; on failure a sentence about it, UTF-8; with PTL_E_ECH_REJECTED the
                           * ECHConfigList to try once more with, empty where there is none */
  uint32_t sni_len;       /* PEEK_HELLO: |data| begins with the SNI, then the ALPN list in wire form, ... */
  uint32_t alpn_len;      /* ... then the raw records. *_TLS: |data| is the negotiated protocol,
                           * with PTL_FLAG_RAW then the records sent */
  const uint8_t *data;    /* owned by the completion */
  char peer[56];          /* ACCEPT: the client's address; CONNECT: upstream's. "1.2.3.4:5", "[::1]:5" */
} ptl_completion;

/* ptl_drain moves at most |max| completions to |out|, clears the eventfd when none are left, and returns
 * their number. Each one's |data| lives until it is given to |ptl_release|. */
size_t ptl_drain(ptl_engine *engine, ptl_completion *out, size_t max);

/* ptl_release frees what |num| drained completions own. */
void ptl_release(ptl_completion *completions, size_t num);

/* --- Counters ------------------------------------------------------------------------------------- */
typedef struct ptl_stats {
  uint64_t streams;         /* open now */
  uint64_t operations;      /* under way now */
  uint64_t relays;          /* of those */
  uint64_t buffered_bytes;  /* held for streams now, loop scratch excluded */
  uint64_t completions;     /* waiting to be drained */
  uint64_t accepted;        /* since the start, as all below */
  uint64_t connected;
  uint64_t handshakes;      /* completed, both sides */
  uint64_t relayed_bytes;
  uint64_t accept_errors;   /* EMFILE, ENFILE, ENOBUFS, ENOMEM: accepting paused for a moment, or who came was let go */
  uint64_t stale_handles;
  uint64_t sessions_offered;
  uint64_t rests; /* of relays that were quiet for a while, after which TLS holds half as much */
  uint64_t impossible;      /* what cannot happen, and did */
} ptl_stats;

/* ptl_engine_stats writes a snapshot of the counters to |*out|. */
void ptl_engine_stats(ptl_engine *engine, ptl_stats *out);

/* ffi: end */

#if defined(__cplusplus)
} /* extern "C" */
#endif

#endif /* POLYTLS_NATIVE_H */
