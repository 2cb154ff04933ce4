// A test is a function registered by TEST(name); CHECK(condition) records a failure and goes on.
#pragma once
#include <cstdio>
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

#define TEST_MAIN()                                                                        \
  int main() {                                                                             \
    for (const auto& c : topknot::test::cases()) {                                         \
      const int before = topknot::test::failures;                                          \
      c.run();                                                                             \
      std::printf("%s %s\n", topknot::test::failures == before ? "ok  " : "FAIL", c.name); \
    }                                                                                      \
    return topknot::test::failures ? 1 : 0;                                                \
  }
