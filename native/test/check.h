// A test is a function registered by TEST(name); CHECK(condition) records a failure and goes on. A test program runs
// all its tests, or those that its arguments name.
#pragma once
#include <cstdio>
#include <cstring>
#include <vector>

namespace topknot::test {

struct Case {
  const char* name;
  void (*run)();
};
inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}
inline int failures = 0;

struct Register {
  Register(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

}  // namespace topknot::test

#define TEST(name)                                                    \
  static void name();                                                 \
  static const topknot::test::Register register_##name{#name, &name}; \
  static void name()

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      std::printf("%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition); \
      ++topknot::test::failures;                                                \
    }                                                                           \
  } while (0)

#define CHECK_THROWS(expression, expectedCode)                                                      \
  do {                                                                                              \
    bool thrown = false;                                                                            \
    try {                                                                                           \
      (void)(expression);                                                                           \
    } catch (const topknot::Error& e) {                                                             \
      thrown = e.code() == topknot::ErrorCode::expectedCode;                                        \
    }                                                                                               \
    if (!thrown) {                                                                                  \
      std::printf("%s:%d: expected %s from: %s\n", __FILE__, __LINE__, #expectedCode, #expression); \
      ++topknot::test::failures;                                                                    \
    }                                                                                               \
  } while (0)

namespace topknot::test {

/// Runs the tests that the words name, or all; a word that names none is a failure.
inline int runCases(int count, char** words) {
  std::vector<Case> chosen;
  for (int i = 1; i < count; ++i) {
    const size_t before = chosen.size();
    for (const Case& c : cases()) {
      if (std::strcmp(c.name, words[i]) == 0) chosen.push_back(c);
    }
    if (chosen.size() == before) {
      std::printf("FAIL no test is called %s\n", words[i]);
      ++failures;
    }
  }
  for (const Case& c : count > 1 ? chosen : cases()) {
    const int before = failures;
    c.run();
    std::printf("%s %s\n", failures == before ? "ok  " : "FAIL", c.name);
  }
  return failures ? 1 : 0;
}

}  // namespace topknot::test

#define TEST_MAIN() \
  int main(int count, char** words) { return topknot::test::runCases(count, words); }
