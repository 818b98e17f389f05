// What a test is made of: TEST(name) { ... }, CHECK to go on after a failure, REQUIRE to give the test up.
//
// Every *_test.cc is one program. Its main (check.cc) runs its tests in the order they stand in, or those
// whose names contain a word of its arguments, prints a line for each and "N passed, N failed" at the end,
// and exits with 0 if none failed.
#ifndef POLYTLS_TESTS_CHECK_H
#define POLYTLS_TESTS_CHECK_H

#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace test {

// Thrown by REQUIRE, and by helpers that wait for what does not come.
class GaveUp : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Registration {
  Registration(const char *name, void (*run)());
};

// failed notes one failure of the running test, from any thread.
void failed(const char *file, int line, const std::string &what);

template <typename T>
std::string shown(const T &value) {
  std::ostringstream text;
  if constexpr (std::is_enum_v<T>) {
    text << static_cast<long long>(value);
  } else if constexpr (std::is_integral_v<T> && sizeof(T) == 1 && !std::is_same_v<T, bool>) {
    text << static_cast<int>(value);
  } else if constexpr (std::is_convertible_v<T, std::string>) {
    std::string whole = value;
    text << '"' << whole.substr(0, 120) << (whole.size() > 120 ? "..." : "") << "\" (" << whole.size() << ")";
  } else {
    text << value;
  }
  return text.str();
}

template <typename A, typename B>
bool equal(const char *file, int line, const char *a_text, const char *b_text, const A &a, const B &b) {
  bool same;
  if constexpr (std::is_integral_v<A> && std::is_integral_v<B> && !std::is_same_v<A, B>) {
    // Numbers, whatever their signs: -1 is not 4294967295.
    same = static_cast<__int128>(a) == static_cast<__int128>(b);
  } else {
    same = a == b;
  }
  if (!same) {
    failed(file, line, std::string(a_text) + " == " + b_text + ": " + shown(a) + " is not " + shown(b));
  }
  return same;
}

}  // namespace test

#define TEST(name)                                               \
  static void name();                                            \
  static const test::Registration registration_##name(#name, name); \
  static void name()

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) test::failed(__FILE__, __LINE__, #condition);   \
  } while (0)

#define CHECK_EQ(a, b) ((void)test::equal(__FILE__, __LINE__, #a, #b, (a), (b)))

#define REQUIRE(condition)                                            \
  do {                                                                \
    if (!(condition)) {                                               \
      test::failed(__FILE__, __LINE__, #condition);                   \
      throw test::GaveUp(#condition);                                 \
    }                                                                 \
  } while (0)

#define REQUIRE_EQ(a, b)                                                                    \
  do {                                                                                      \
    if (!test::equal(__FILE__, __LINE__, #a, #b, (a), (b))) throw test::GaveUp(#a " == " #b); \
  } while (0)

#endif
