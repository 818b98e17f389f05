#include "common/options.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/net.h"

namespace bench {

Options::Options(int argc, char **argv) : words_(argv + 1, argv + argc) {}

// The word after --name, or nullptr; both are then used.
const std::string *Options::take(const std::string &name) {
  for (size_t i = 0; i < words_.size(); i++) {
    if (words_[i] != "--" + name) continue;
    if (i + 1 == words_.size()) die("--" + name + " needs a value");
    used_[std::to_string(i)] = used_[std::to_string(i + 1)] = true;
    storage_ = words_[i + 1];
    return &storage_;
  }
  return nullptr;
}

std::string Options::text(const std::string &name, const std::string &otherwise, const std::string &help) {
  help_.push_back("  --" + name + " X  " + help + (otherwise.empty() ? "" : " (" + otherwise + ")"));
  const std::string *given = take(name);
  return given ? *given : otherwise;
}

int64_t Options::number(const std::string &name, int64_t otherwise, const std::string &help) {
  help_.push_back("  --" + name + " N  " + help + " (" + std::to_string(otherwise) + ")");
  const std::string *given = take(name);
  if (!given) return otherwise;
  char *end = nullptr;
  int64_t value = strtoll(given->c_str(), &end, 10);
  if (end == given->c_str() || *end != '\0') die("--" + name + " takes a whole number, not " + *given);
  return value;
}

double Options::real(const std::string &name, double otherwise, const std::string &help) {
  help_.push_back("  --" + name + " X  " + help + " (" + std::to_string(otherwise) + ")");
  const std::string *given = take(name);
  if (!given) return otherwise;
  char *end = nullptr;
  double value = strtod(given->c_str(), &end);
  if (end == given->c_str() || *end != '\0') die("--" + name + " takes a number, not " + *given);
  return value;
}

bool Options::flag(const std::string &name, const std::string &help) {
  help_.push_back("  --" + name + "  " + help);
  for (size_t i = 0; i < words_.size(); i++) {
    if (words_[i] != "--" + name) continue;
    used_[std::to_string(i)] = true;
    return true;
  }
  return false;
}

void Options::finish(const std::string &about) {
  for (size_t i = 0; i < words_.size(); i++) {
    if (words_[i] == "--help") {
      printf("%s\n", about.c_str());
      for (const std::string &line : help_) printf("%s\n", line.c_str());
      exit(0);
    }
    if (!used_.count(std::to_string(i))) die("there is no option " + words_[i]);
  }
}

std::vector<std::string> split(const std::string &text, char at) {
  std::vector<std::string> parts;
  std::string part;
  for (char letter : text + at) {
    if (letter != at) {
      part += letter;
    } else if (!part.empty()) {
      parts.push_back(part);
      part.clear();
    }
  }
  return parts;
}

}  // namespace bench
