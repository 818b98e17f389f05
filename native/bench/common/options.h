// `--name value` and `--flag` on the command line.
//
// A program declares what it takes with the getters, then calls finish, which answers --help and dies on
// anything that no getter asked for. So the list of options cannot differ from what is read.
#ifndef POLYTLS_BENCH_COMMON_OPTIONS_H
#define POLYTLS_BENCH_COMMON_OPTIONS_H

#include <stdint.h>

#include <map>
#include <string>
#include <vector>

namespace bench {

class Options {
 public:
  Options(int argc, char **argv);

  std::string text(const std::string &name, const std::string &otherwise, const std::string &help);
  int64_t number(const std::string &name, int64_t otherwise, const std::string &help);
  double real(const std::string &name, double otherwise, const std::string &help);
  bool flag(const std::string &name, const std::string &help);

  void finish(const std::string &about);

 private:
  const std::string *take(const std::string &name);

  std::vector<std::string> words_;
  std::map<std::string, bool> used_;  // by the word's position
  std::vector<std::string> help_;
  std::string storage_;
};

// split cuts |text| at each |at|; empty parts are left out.
std::vector<std::string> split(const std::string &text, char at);

}  // namespace bench

#endif
