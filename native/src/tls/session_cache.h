// Upstream sessions, by host and port, for profiles that resume.
//
// A session belongs to the context that made it: a profile's sessions are never offered under another, nor
// those of a context that verifies less. TLS 1.3 tickets are used once (RFC 8446 §C.4).
#ifndef POLYTLS_SRC_TLS_SESSION_CACHE_H
#define POLYTLS_SRC_TLS_SESSION_CACHE_H

#include <openssl/ssl.h>

#include <list>
#include <mutex>
#include <string>
#include <unordered_map>

namespace ptl {

class SessionCache {
 public:
  static constexpr size_t kMaxSessions = 1024;  // about 2 KB each; of TLS 1.2 the certificates too

  // put keeps |session| as the newest of |key|. It throws std::bad_alloc, keeping nothing, when memory is short.
  void put(const std::string &key, bssl::UniquePtr<SSL_SESSION> session) {
    std::lock_guard<std::mutex> lock(mutex_);
    drop(key);
    while (entries_.size() >= kMaxSessions) drop(std::string(order_.front()));
    std::list<std::string> newest(1, key);
    Entry &entry = entries_[key];
    order_.splice(order_.end(), newest);
    entry = {std::move(session), std::prev(order_.end())};
  }

  // take returns the session of |key|, or null. A single-use one leaves the cache.
  bssl::UniquePtr<SSL_SESSION> take(const std::string &key) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = entries_.find(key);
    if (found == entries_.end()) return nullptr;
    bssl::UniquePtr<SSL_SESSION> session = bssl::UpRef(found->second.session);
    if (SSL_SESSION_should_be_single_use(session.get())) drop(key);
    return session;
  }

 private:
  struct Entry {
    bssl::UniquePtr<SSL_SESSION> session;
    std::list<std::string>::iterator order;
  };

  void drop(const std::string &key) {
    auto found = entries_.find(key);
    if (found == entries_.end()) return;
    order_.erase(found->second.order);
    entries_.erase(found);
  }

  std::mutex mutex_;
  std::list<std::string> order_;  // oldest first
  std::unordered_map<std::string, Entry> entries_;
};

}  // namespace ptl

#endif
