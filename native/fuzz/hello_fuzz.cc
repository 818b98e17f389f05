// The first bytes of a client, as |peek_hello| reads them.
//
// Held besides memory: an early verdict is the last one (a prefix says "more", or what the whole says); what is
// accepted is accepted by BoringSSL too, for it answers the hello later; and how the message is cut into records
// changes nothing.
#include <string>
#include <vector>

#include "client.h"
#include "fuzz.h"
#include "hello/parse.h"

namespace {

constexpr size_t kRecordHeader = 5;

// What a hello says, out of the memory it was parsed from.
struct Facts {
  ptl::HelloStatus status;
  std::string sni, alpn;
  bool has_sni, has_alpn, ecdsa_ok;
  uint16_t max_version;
  size_t records_len;

  bool same_but_records(const Facts &other) const {
    return status == other.status && sni == other.sni && alpn == other.alpn && has_sni == other.has_sni &&
           has_alpn == other.has_alpn && ecdsa_ok == other.ecdsa_ok && max_version == other.max_version;
  }
};

Facts parse(const uint8_t *data, size_t size) {
  std::vector<uint8_t> exact(data, data + size), scratch;
  ptl::HelloInfo info;
  Facts facts{};
  facts.status = ptl::parse_hello(exact.data(), size, &scratch, &info);
  if (facts.status != ptl::HelloStatus::kComplete) return facts;
  facts.has_sni = info.has_sni;
  facts.has_alpn = info.has_alpn;
  if (info.has_sni) facts.sni.assign(reinterpret_cast<const char *>(info.sni), info.sni_len);
  if (info.has_alpn) facts.alpn.assign(reinterpret_cast<const char *>(info.alpn), info.alpn_len);
  facts.ecdsa_ok = info.ecdsa_ok;
  facts.max_version = info.max_version;
  facts.records_len = info.records_len;
  return facts;
}

void check_prefix(const Facts &whole, const uint8_t *data, size_t size) {
  Facts part = parse(data, size);
  if (part.status == ptl::HelloStatus::kMore) return;
  FUZZ_CHECK(part.same_but_records(whole) && part.records_len == whole.records_len);
}

std::string message_of(const uint8_t *data, size_t size) {
  std::string message;
  while (size != 0) {
    size_t length = static_cast<size_t>(data[3]) << 8 | data[4];
    message.append(reinterpret_cast<const char *>(data) + kRecordHeader, length);
    data += kRecordHeader + length;
    size -= kRecordHeader + length;
  }
  return message;
}

std::string record_of(const std::string &fragment) {
  std::string record = {22, 3, 1, static_cast<char>(fragment.size() >> 8), static_cast<char>(fragment.size())};
  return record + fragment;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Facts whole = parse(data, size);
  for (size_t i = 1; i < 16; i++) check_prefix(whole, data, size * i / 16);
  if (whole.status != ptl::HelloStatus::kComplete) return 0;
  FUZZ_CHECK(whole.records_len <= size && whole.records_len > kRecordHeader);
  FUZZ_CHECK(parse(data, whole.records_len - 1).status == ptl::HelloStatus::kMore);
  check_prefix(whole, data, whole.records_len);
  std::string message = message_of(data, whole.records_len);
  FUZZ_CHECK(fuzz::taken_by_boringssl(message));
  size_t cut = 1 + static_cast<uint8_t>(message[message.size() / 2]) % (message.size() - 1);
  std::string records = record_of(message.substr(0, cut)) + record_of(message.substr(cut));
  Facts recut = parse(reinterpret_cast<const uint8_t *>(records.data()), records.size());
  FUZZ_CHECK(recut.same_but_records(whole) && recut.records_len == records.size());
  return 0;
}
