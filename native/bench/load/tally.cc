#include "load/tally.h"

#include <stdio.h>

#include <algorithm>

namespace bench {
namespace {

constexpr size_t kSamples = 8;  // of failures, in words

std::string number(double value) {
  char text[64];
  snprintf(text, sizeof text, "%.6g", value);
  return text;
}

// Percentiles as milliseconds; |unit| is of the values, in ms. 
std::string percentiles(std::vector<uint32_t> *values, double unit) {
  std::sort(values->begin(), values->end());
  std::string text = "{\"count\": " + std::to_string(values->size());
  if (values->empty()) return text + "}";
  for (auto [name, part] : {std::pair<const char *, double>{"p50", .5}, {"p90", .9}, {"p99", .99}, {"max", 1.}}) {
    size_t rank = static_cast<size_t>(part * static_cast<double>(values->size()));
    double value = (*values)[std::min(rank, values->size() - 1)] * unit;
    text += std::string(", \"") + name + "\": " + number(value);
  }
  return text + "}";
}

}  // namespace

std::string quoted(const std::string &text) {
  std::string made = "\"";
  for (char letter : text) {
    if (letter == '"' || letter == '\\') made += '\\';
    made += letter < ' ' || letter > '~' ? '.' : letter;
  }
  return made + "\"";
}

void Tally::ended_well(const Plan &plan, const Times &times, uint64_t down, uint64_t up, bool h2, bool resumed) {
  ok_++;
  behaviours_[name_of(plan.behaviour)].ok++;
  down_ += down;
  up_ += up;
  h2_ += h2;
  resumed_ += resumed;
  auto since = [&](uint64_t when, std::vector<uint32_t> *to) {
    if (when != 0) to->push_back(static_cast<uint32_t>((when - times.began) / 1000));
  };
  since(times.answered, &answered_);
  since(times.shaken, &shaken_);
  since(times.first_byte, &first_byte_);
  since(times.done, &done_);
  if (times.done > times.shaken && times.shaken != 0) talking_s_ += static_cast<double>(times.done - times.shaken) / 1e9;
}

void Tally::failed(const Plan &plan, const std::string &why, const std::string &detail) {
  failed_++;
  behaviours_[name_of(plan.behaviour)].failures[why]++;
  if (samples_.size() < kSamples) {
    samples_.push_back("tunnel " + std::to_string(plan.number) + ", " + name_of(plan.behaviour) + ": " + why + (detail.empty() ? "" : " (" + detail + ")"));
  }
}

void Tally::add_round_trips(const std::vector<uint32_t> &tens_of_ns) {
  round_trips_.insert(round_trips_.end(), tens_of_ns.begin(), tens_of_ns.end());
}

std::string Tally::json(double wall_s) {
  if (ended() == 0) return "null";
  std::map<std::string, int64_t> failures;
  std::string per, all, samples;
  for (const auto &[name, one] : behaviours_) {
    int64_t failed = 0;
    for (const auto &[why, count] : one.failures) failures[why] += count, failed += count;
    per += (per.empty() ? "" : ", ") + quoted(name) + ": {\"ok\": " + std::to_string(one.ok) + ", \"failed\": " + std::to_string(failed) + "}";
  }
  for (const auto &[why, count] : failures) all += (all.empty() ? "" : ", ") + quoted(why) + ": " + std::to_string(count);
  for (const std::string &sample : samples_) samples += (samples.empty() ? "" : ", ") + quoted(sample);
  std::string text = "{\"ok\": " + std::to_string(ok_) + ", \"failed\": " + std::to_string(failed_);
  text += ", \"per_second\": " + number(wall_s > 0 ? static_cast<double>(ok_) / wall_s : 0);
  text += ", \"bytes_down\": " + std::to_string(down_) + ", \"bytes_up\": " + std::to_string(up_);
  text += ", \"talking_s\": " + number(talking_s_);
  text += ", \"h2\": " + std::to_string(h2_) + ", \"resumed\": " + std::to_string(resumed_);
  text += ", \"answered_ms\": " + percentiles(&answered_, 1e-3) + ", \"shaken_ms\": " + percentiles(&shaken_, 1e-3);
  text += ", \"first_byte_ms\": " + percentiles(&first_byte_, 1e-3) + ", \"done_ms\": " + percentiles(&done_, 1e-3);
  text += ", \"round_trip_ms\": " + percentiles(&round_trips_, 1e-5);
  return text + ", \"behaviours\": {" + per + "}, \"failures\": {" + all + "}, \"samples\": [" + samples + "]}";
}

}  // namespace bench
