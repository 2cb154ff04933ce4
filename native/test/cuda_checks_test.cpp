// The CUDA kernels that operations use around the others, under the SIMT emulator, against the CPU: where the first
// number is that is not finite, and where the entries of bags belong.
#include <cmath>
#include <limits>
#include <optional>

#include "core/random.h"
#include "test/check.h"
#include "test/placed.h"
#include "test/simt/backend.h"

using namespace topknot;
using topknot::test::Placed;

namespace {

const Backend& emulated() {
  static const Backend backend = cuda::emulatedBackend();
  return backend;
}

/// The same under every schedule of the emulator; answers what the CPU does.
template <typename F>
auto onBoth(F&& run) {
  const auto expected = run(cpuBackend());
  simt::everySchedule([&] { CHECK(run(emulated()) == expected); });
  CHECK(simt::liveAllocations() == 0);
  return expected;
}

template <typename T>
int64_t firstNotFinite(const std::vector<T>& numbers, FloatType type) {
  return onBoth([&](const Backend& backend) {
    const Exec exec;
    Placed memory(backend, exec);
    std::vector<int64_t> first{-7};
    int64_t* at = memory.place(first);
    check(backend.firstNotFinite(
        exec, FirstNotFiniteArgs{memory.place(numbers), type, static_cast<int64_t>(numbers.size()), at}));
    memory.fetch(first, at);
    return first[0];
  });
}

struct Places {
  std::vector<int32_t> bagOf;
  std::vector<float> weightOf;
  bool operator==(const Places&) const = default;
};

}  // namespace

TEST(findsTheFirstThatIsNotFinite) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (const int64_t n : {0, 1, 31, 300, 5000}) {
    std::vector<float> x(static_cast<size_t>(n), std::numeric_limits<float>::max());
    CHECK(firstNotFinite(x, FloatType::float32) == n);
    for (const int64_t at : {n - 1, n / 2, int64_t{0}}) {
      if (at < 0 || at >= n) continue;
      x[static_cast<size_t>(at)] = at % 2 ? -infinity : std::nanf("");
      CHECK(firstNotFinite(x, FloatType::float32) == at);
    }
  }
  std::vector<Float16> halves(700, toFloat16(65504));
  CHECK(firstNotFinite(halves, FloatType::float16) == 700);
  halves[613] = toFloat16(infinity);
  CHECK(firstNotFinite(halves, FloatType::float16) == 613);
  std::vector<BFloat16> wide(700, toBFloat16(3e38f));
  CHECK(firstNotFinite(wide, FloatType::bfloat16) == 700);
  wide[256] = toBFloat16(std::nanf(""));
  CHECK(firstNotFinite(wide, FloatType::bfloat16) == 256);
}

TEST(placesEntries) {
  Random random(5, 0);
  for (const int64_t bags : {1, 2, 33, 400}) {
    for (const int64_t padding : {-1, 3}) {
      std::vector<int32_t> ids, order;
      std::vector<int64_t> offsets{0};
      std::vector<float> weights;
      for (int64_t b = 0; b < bags; ++b) {
        for (uint64_t n = random.below(b % 7 == 0 ? 80 : 4); n > 0; --n) {
          ids.push_back(static_cast<int32_t>(random.below(9)));
          weights.push_back(static_cast<float>(random.normal()));
        }
        offsets.push_back(static_cast<int64_t>(ids.size()));
      }
      for (size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] != padding)
          order.insert(order.begin() + static_cast<int64_t>(random.below(order.size() + 1)), static_cast<int32_t>(i));
      }
      for (const bool mean : {false, true}) {
        const Places places = onBoth([&](const Backend& backend) {
          const Exec exec;
          Placed memory(backend, exec);
          Places out{std::vector<int32_t>(order.size(), -1), std::vector<float>(order.size(), -1)};
          int32_t* bagOf = memory.place(out.bagOf);
          float* weightOf = memory.place(out.weightOf);
          const BagsView view{memory.place(ids), memory.place(offsets), bags, memory.place(weights), padding};
          check(backend.embeddingPlace(
              exec, EmbeddingPlaceArgs{view, memory.place(order), static_cast<int64_t>(order.size()), mean, bagOf,
                                       weightOf}));
          memory.fetch(out.bagOf, bagOf);
          memory.fetch(out.weightOf, weightOf);
          return out;
        });
        for (size_t i = 0; i < order.size(); ++i) {
          const int64_t bag = places.bagOf[i];
          CHECK(offsets[static_cast<size_t>(bag)] <= order[i] && order[i] < offsets[static_cast<size_t>(bag) + 1]);
        }
      }
    }
  }
}

TEST_MAIN()
