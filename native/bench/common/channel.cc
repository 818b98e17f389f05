#include "common/channel.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "common/net.h"

namespace bench {
namespace {

constexpr size_t kReceiveBytes = 256 * 1024;  // one recv; about what loopback hands over in a burst
constexpr size_t kGatherBytes = 512 * 1024;   // one send; what a full receive buffer becomes, and more

// The buffers a thread shares among its channels.
struct Shared {
  std::unique_ptr<uint8_t[]> received{new uint8_t[kReceiveBytes]};
  size_t from = 0, to = 0;
  Channel *receiver = nullptr;
  std::unique_ptr<uint8_t[]> gathered{new uint8_t[kGatherBytes]};
  size_t size = 0;
  Channel *sender = nullptr;
};

Shared &shared() {
  static thread_local Shared buffers;
  return buffers;
}

}  // namespace

// What BoringSSL calls for the bytes of a channel.
struct ChannelBio {
  static int read(BIO *bio, char *into, int room) {
    auto *channel = static_cast<Channel *>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    size_t size = 0;
    Io io = take(channel, reinterpret_cast<uint8_t *>(into), static_cast<size_t>(room), &size);
    if (io == Io::kDone) return static_cast<int>(size);
    if (io == Io::kWait) BIO_set_retry_read(bio);
    return io == Io::kEnd ? 0 : -1;
  }

  static int write(BIO *bio, const char *bytes, int size) {
    auto *channel = static_cast<Channel *>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    return put(channel, reinterpret_cast<const uint8_t *>(bytes), static_cast<size_t>(size)) == Io::kDone ? size : -1;
  }

  static long control(BIO *, int command, long, void *) { return command == BIO_CTRL_FLUSH; }

  static BIO_METHOD *method() {
    static BIO_METHOD *const made = [] {
      BIO_METHOD *fresh = BIO_meth_new(0, "channel");
      BIO_meth_set_read(fresh, read);
      BIO_meth_set_write(fresh, write);
      BIO_meth_set_ctrl(fresh, control);
      return fresh;
    }();
    return made;
  }

  // Received bytes, the channel's own first.
  static Io take(Channel *channel, uint8_t *into, size_t room, size_t *out_size) {
    if (!channel->received_.empty()) {
      size_t size = std::min(room, channel->received_.size() - channel->received_from_);
      memcpy(into, channel->received_.data() + channel->received_from_, size);
      channel->received_from_ += static_cast<uint32_t>(size);
      if (channel->received_from_ == channel->received_.size()) {
        std::vector<uint8_t>().swap(channel->received_);
        channel->received_from_ = 0;
      }
      *out_size = size;
      return Io::kDone;
    }
    Shared &buffers = shared();
    if (buffers.receiver != channel || buffers.from == buffers.to) {
      Io io = channel->receive();
      if (io != Io::kDone) return io;
    }
    size_t size = std::min(room, buffers.to - buffers.from);
    memcpy(into, buffers.received.get() + buffers.from, size);
    buffers.from += size;
    *out_size = size;
    return Io::kDone;
  }

  static Io put(Channel *channel, const uint8_t *bytes, size_t size) {
    Shared &buffers = shared();
    if (buffers.sender != channel) {
      if (buffers.sender != nullptr) buffers.sender->keep_gathered();
      buffers.sender = channel;
      buffers.size = 0;
    }
    if (!channel->waiting_.empty() || buffers.size + size > kGatherBytes) {
      channel->keep_gathered();
      channel->waiting_.insert(channel->waiting_.end(), bytes, bytes + size);
      return Io::kDone;
    }
    memcpy(buffers.gathered.get() + buffers.size, bytes, size);
    buffers.size += size;
    return Io::kDone;
  }
};

SSL *Channel::make_tls(SSL_CTX *context, bool server) {
  ssl_ = SSL_new(context);
  BIO *bio = BIO_new(ChannelBio::method());
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  server ? SSL_set_accept_state(ssl_) : SSL_set_connect_state(ssl_);
  return ssl_;
}

Io Channel::of_tls(int result) {
  int error = SSL_get_error(ssl_, result);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return Io::kWait;
  if (error == SSL_ERROR_PENDING_CERTIFICATE) return Io::kPaused;
  if (error == SSL_ERROR_ZERO_RETURN) return Io::kEnd;
  if (error == SSL_ERROR_SYSCALL && broken_ == Io::kReset) return Io::kReset;
  if (error == SSL_ERROR_SYSCALL || broken_ == Io::kEnd) return Io::kCut;
  return Io::kFailed;
}

Io Channel::handshake() {
  int result = SSL_do_handshake(ssl_);
  Io io = result == 1 ? Io::kDone : of_tls(result);
  Io flushed = flush();
  return io == Io::kDone && (flushed == Io::kReset || flushed == Io::kFailed) ? flushed : io;
}

Io Channel::read(uint8_t *into, size_t room, size_t *out_size) {
  if (ssl_ == nullptr) return ChannelBio::take(this, into, room, out_size);
  int result = SSL_read(ssl_, into, static_cast<int>(std::min<size_t>(room, INT32_MAX)));
  if (result <= 0) return of_tls(result);
  *out_size = static_cast<size_t>(result);
  return Io::kDone;
}

Io Channel::pass_on(Channel *to) {
  Io io = receive();
  if (io != Io::kDone) return io;
  Shared &buffers = shared();
  ssize_t sent = send(to->fd_, buffers.received.get(), buffers.to, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) return to->broken_ = Io::kReset;
  buffers.from = sent < 0 ? 0 : static_cast<size_t>(sent);
  to->waiting_.assign(buffers.received.get() + buffers.from, buffers.received.get() + buffers.to);
  to->waiting_from_ = 0;
  buffers.from = buffers.to;
  return Io::kDone;
}

Io Channel::write(const uint8_t *bytes, size_t size) {
  if (ssl_ == nullptr) return ChannelBio::put(this, bytes, size);
  while (size > 0) {
    int result = SSL_write(ssl_, bytes, static_cast<int>(std::min<size_t>(size, SSL3_RT_MAX_PLAIN_LENGTH)));
    if (result <= 0) return of_tls(result);
    bytes += result;
    size -= static_cast<size_t>(result);
  }
  return Io::kDone;
}

Io Channel::write(const std::string &text) {
  return write(reinterpret_cast<const uint8_t *>(text.data()), text.size());
}

Io Channel::flush() {
  Shared &buffers = shared();
  bool gathered = buffers.sender == this && buffers.size > 0;
  const uint8_t *bytes = gathered ? buffers.gathered.get() : waiting_.data() + waiting_from_;
  size_t size = gathered ? buffers.size : waiting_.size() - waiting_from_;
  if (gathered) buffers.size = 0;
  while (size > 0) {
    ssize_t sent = send(fd_, bytes, size, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN) return broken_ = Io::kReset;
    if (sent < 0) break;
    bytes += sent;
    size -= static_cast<size_t>(sent);
  }
  if (gathered) {
    waiting_.assign(bytes, bytes + size);
    waiting_from_ = 0;
  } else if (size > 0) {
    waiting_from_ = static_cast<uint32_t>(waiting_.size() - size);
  } else if (!waiting_.empty()) {
    std::vector<uint8_t>().swap(waiting_);
    waiting_from_ = 0;
  }
  return size > 0 ? Io::kWait : Io::kDone;
}

size_t Channel::waiting() const {
  const Shared &buffers = shared();
  return waiting_.size() - waiting_from_ + (buffers.sender == this ? buffers.size : 0);
}

// One recv into the shared buffer, which then is this channel's.
Io Channel::receive() {
  if (broken_ != Io::kDone) return broken_;
  if (drained_ && !ending_) return Io::kWait;
  if (turn_ == Turn::kUsed) turn_ = Turn::kOver;
  if (turn_ == Turn::kOver) return Io::kWait;
  if (turn_ == Turn::kFresh) turn_ = Turn::kUsed;
  Shared &buffers = shared();
  if (buffers.receiver != this && buffers.receiver != nullptr) buffers.receiver->keep_received();
  buffers.receiver = this;
  buffers.from = buffers.to = 0;
  size_t room = receive_limit_ == 0 ? kReceiveBytes : receive_limit_;
  ssize_t size;
  do {
    size = recv(fd_, buffers.received.get(), room, 0);
  } while (size < 0 && errno == EINTR);
  if (size < 0 && errno == EAGAIN) {
    drained_ = true;
    ending_ = false;
    return Io::kWait;
  }
  if (size <= 0) return broken_ = size == 0 ? Io::kEnd : Io::kReset;
  // A short answer has emptied the socket, unless an end is behind it.
  drained_ = static_cast<size_t>(size) < room;
  buffers.to = static_cast<size_t>(size);
  return Io::kDone;
}

void Channel::keep_received() {
  Shared &buffers = shared();
  received_.assign(buffers.received.get() + buffers.from, buffers.received.get() + buffers.to);
  received_from_ = 0;
  buffers.from = buffers.to = 0;
  buffers.receiver = nullptr;
}

void Channel::keep_gathered() {
  Shared &buffers = shared();
  if (buffers.sender != this) return;
  waiting_.insert(waiting_.end(), buffers.gathered.get(), buffers.gathered.get() + buffers.size);
  buffers.size = 0;
}

void Channel::say_goodbye() {
  if (ssl_ != nullptr) SSL_shutdown(ssl_);
  ERR_clear_error();
  flush();
}

void Channel::shutdown_write() {
  say_goodbye();
  shutdown(fd_, SHUT_WR);
}

void Channel::reset() {
  if (fd_ >= 0) reset_on_close(fd_);
  close();
}

void Channel::close() {
  Shared &buffers = shared();
  if (buffers.receiver == this) buffers.receiver = nullptr;
  if (buffers.sender == this) buffers.sender = nullptr, buffers.size = 0;
  if (ssl_ != nullptr) SSL_free(ssl_);
  if (fd_ >= 0) ::close(fd_);
  ssl_ = nullptr;
  fd_ = -1;
  std::vector<uint8_t>().swap(received_);
  std::vector<uint8_t>().swap(waiting_);
  received_from_ = waiting_from_ = 0;
}

std::string last_tls_error() {
  uint32_t error = ERR_peek_last_error();
  ERR_clear_error();
  if (error == 0) return "";
  const char *reason = ERR_reason_error_string(error);
  return reason != nullptr ? reason : "unknown";
}

}  // namespace bench
