// The CUDA kernels of search and evaluation beside topk, under the SIMT emulator, against the CPU backend: codes, bits,
// scores that are there, ranks, norms.
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/registry.h"
#include "core/random.h"
#include "test/check.h"
#include "test/emulated.h"
#include "test/placed.h"

using namespace topknot;
using topknot::test::Placed;

namespace {

constexpr Metric metrics[] = {Metric::innerProduct, Metric::cosine, Metric::l2};

/// What a backend gave: whole numbers and floats, compared bit by bit, NaN with NaN.
struct Outcome {
  std::vector<int64_t> whole;
  std::vector<float> floats;

  template <typename T>
  void add(const std::vector<T>& values) {
    if constexpr (std::is_same_v<T, float>) floats.insert(floats.end(), values.begin(), values.end());
    else whole.insert(whole.end(), values.begin(), values.end());
  }
  bool operator==(const Outcome& other) const {
    return whole == other.whole && floats.size() == other.floats.size() &&
           std::equal(floats.begin(), floats.end(), other.floats.begin(),
                      [](float x, float y) { return x == y || (std::isnan(x) && std::isnan(y)); });
  }
};

/// What run(backend) gives under every schedule, which must be one thing.
template <typename Run>
Outcome emulate(Run&& run, const cuda::TopkPlan& plan = {}) {
  cuda::emulatedPlan = plan;
  return topknot::test::emulate([&](const Backend& backend, const Exec&) { return run(backend); });
}

constexpr cuda::TopkPlan selectAlways{.largestListed = 0};

std::vector<float> normals(int64_t count, uint64_t seed) {
  Random random(seed, 0);
  std::vector<float> out(count);
  for (float& x : out) x = static_cast<float>(random.normal());
  return out;
}
std::vector<float> wholes(int64_t count, int range, uint64_t seed) {
  Random random(seed, 0);
  std::vector<float> out(count);
  for (float& x : out) x = static_cast<float>(static_cast<int>(random.below(2 * range + 1)) - range);
  return out;
}
std::vector<uint8_t> bytes(int64_t count, uint64_t seed) {
  Random random(seed, 0);
  std::vector<uint8_t> out(count);
  for (uint8_t& x : out) x = static_cast<uint8_t>(random.below(256));
  return out;
}

/// Some items allowed and some hidden from each query; or, with share 1, neither.
struct Filters {
  std::vector<uint64_t> allowed;
  std::vector<int64_t> seenPtr;
  std::vector<int32_t> seenIds, seenRows;

  Filters(int64_t queries, int64_t items, double share, uint64_t seed = 9) {
    if (share >= 1) return;
    Random random(seed, 0);
    allowed.assign((items + 63) / 64, 0);
    for (int64_t i = 0; i < items; ++i) {
      if (random.uniform() < share) allowed[i / 64] |= uint64_t{1} << (i % 64);
    }
    seenPtr.assign(1, 0);
    for (int64_t row = 0; row < queries; ++row) {
      for (int64_t i = 0; i < items; ++i) {
        if (random.uniform() > share) seenIds.push_back(static_cast<int32_t>(i));
      }
      seenPtr.push_back(static_cast<int64_t>(seenIds.size()));
      seenRows.push_back(static_cast<int32_t>(queries - 1 - row));
    }
  }
  FilterView place(Placed& memory) const {
    if (allowed.empty()) return {};
    return {memory.place(allowed), memory.place(seenPtr), memory.place(seenIds), memory.place(seenRows)};
  }
};

/// Items of one of the types.
struct Items {
  FloatType type;
  int64_t rows, cols;
  std::vector<float> floats;
  std::vector<uint16_t> halves;

  Items(FloatType type, int64_t rows, int64_t cols, std::vector<float> values)
      : type(type), rows(rows), cols(cols), floats(std::move(values)) {
    if (type == FloatType::float32) return;
    for (float x : floats) halves.push_back(type == FloatType::float16 ? toFloat16(x).bits : toBFloat16(x).bits);
  }
  FloatMatrixView place(Placed& memory) const {
    return {halves.empty() ? static_cast<const void*>(memory.place(floats)) : memory.place(halves), type, rows, cols};
  }
};

Outcome norms(const Backend& backend, const Items& items) {
  Placed memory(backend, {});
  std::vector<float> out(items.rows, -1);
  const SquaredNormsArgs args{items.place(memory), memory.place(out)};
  check(backend.squaredNorms({}, args));
  memory.fetch(out, args.out);
  return {{}, out};
}

struct Codes {
  std::vector<uint8_t> codes;
  std::vector<float> scales, residuals;
};

Codes codesOf(const Backend& backend, const Items& items, bool unit) {
  Placed memory(backend, {});
  Codes out{std::vector<uint8_t>(items.rows * items.cols), std::vector<float>(items.rows),
            std::vector<float>(items.rows)};
  const Int8CodesArgs args{items.place(memory), unit, memory.place(out.codes), memory.place(out.scales),
                           memory.place(out.residuals)};
  check(backend.int8Codes({}, args));
  memory.fetch(out.codes, args.codes);
  memory.fetch(out.scales, args.scales);
  memory.fetch(out.residuals, args.residuals);
  return out;
}

/// Ids, then whether they are proven where that is asked; and scores.
Outcome searchCodes(const Backend& backend, const Items& items, const std::vector<float>& queries, Metric metric,
                    const Codes& codes, int64_t k, int64_t candidates, bool prove, const Filters& filters) {
  const int64_t count = static_cast<int64_t>(queries.size()) / items.cols;
  const Outcome squares = norms(cpuBackend(), items);
  Placed memory(backend, {});
  std::vector<int32_t> ids(count * k, -7);
  std::vector<float> scores(count * k, -7);
  std::vector<uint8_t> proven(count, 7);
  const TopkInt8Args args{.topk = {{memory.place(queries), count, items.cols},
                                   items.place(memory),
                                   k,
                                   metric,
                                   memory.place(squares.floats),
                                   filters.place(memory),
                                   memory.place(ids),
                                   memory.place(scores)},
                          .codes = memory.place(codes.codes),
                          .scales = memory.place(codes.scales),
                          .residuals = memory.place(codes.residuals),
                          .candidates = candidates,
                          .proven = prove ? memory.place(proven) : nullptr};
  check(backend.topkInt8({}, args));
  memory.fetch(ids, args.topk.ids);
  memory.fetch(scores, args.topk.scores);
  Outcome outcome;
  outcome.add(ids);
  outcome.add(scores);
  if (!prove) return outcome;
  memory.fetch(proven, args.proven);
  outcome.add(proven);
  return outcome;
}

}  // namespace

TEST(squaredNormsHaveTheBitsOfTheCpu) {
  for (const FloatType type : {FloatType::float32, FloatType::float16, FloatType::bfloat16}) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{0, 4}, {1, 1}, {33, 7}, {70, 24}}) {
      const Items items(type, rows, cols, normals(rows * cols, 1));
      CHECK(emulate([&](const Backend& b) { return norms(b, items); }) == norms(cpuBackend(), items));
    }
  }
}

TEST(pairScoresHaveTheBitsOfTheCpu) {
  for (const int64_t count : {0, 1, 77}) {
    const int64_t dims = 21;
    const std::vector<float> users = normals(5 * dims, 1), items = normals(9 * dims, 2);
    std::vector<int32_t> userIds, itemIds;
    for (int64_t j = 0; j < count; ++j) {
      userIds.push_back(static_cast<int32_t>(j * 3 % 5));
      itemIds.push_back(static_cast<int32_t>(j * 7 % 9));
    }
    const auto run = [&](const Backend& backend) {
      Placed memory(backend, {});
      std::vector<float> out(count, -1);
      const PairScoresArgs args{{memory.place(users), 5, dims},
                                {memory.place(items), 9, dims},
                                memory.place(userIds),
                                memory.place(itemIds),
                                count,
                                memory.place(out)};
      check(backend.pairScores({}, args));
      memory.fetch(out, args.out);
      return Outcome{{}, out};
    };
    CHECK(emulate(run) == run(cpuBackend()));
  }
}

TEST(codesAreThoseOfTheCpu) {
  for (const FloatType type : {FloatType::float32, FloatType::float16, FloatType::bfloat16}) {
    for (const bool unit : {false, true}) {
      std::vector<float> values = normals(41 * 13, 3);
      std::fill_n(values.begin() + 13, 13, 0.0f);  // a row of zeros
      const Items items(type, 41, 13, values);
      const Codes cpu = codesOf(cpuBackend(), items, unit);
      emulate([&](const Backend& backend) {
        const Codes mine = codesOf(backend, items, unit);
        CHECK(mine.codes == cpu.codes && mine.scales == cpu.scales);
        for (size_t i = 0; i < cpu.residuals.size(); ++i) {
          CHECK(mine.residuals[i] >= std::nextafter(cpu.residuals[i], 0.0f));
          CHECK(mine.residuals[i] <= std::nextafter(cpu.residuals[i], 1e9f));
        }
        return Outcome{{mine.codes.begin(), mine.codes.end()}, mine.scales};
      });
    }
  }
}

TEST(searchByCodesIsThatOfTheCpu) {
  for (const Metric metric : metrics) {
    for (const FloatType type : {FloatType::float32, FloatType::bfloat16}) {
      const Items items(type, 700, 19, normals(700 * 19, 4));
      const Codes codes = codesOf(cpuBackend(), items, metric == Metric::cosine);
      std::vector<float> queries = normals(5 * 19, 5);
      std::fill_n(queries.begin() + 19, 19, 0.0f);
      for (const double share : {1.0, 0.5}) {
        const Filters filters(5, 700, share);
        const auto run = [&](const Backend& b) {
          return searchCodes(b, items, queries, metric, codes, 6, 20, false, filters);
        };
        const Outcome cpu = run(cpuBackend());
        CHECK(emulate(run) == cpu);
        if (share == 1) CHECK(emulate(run, {.largestListed = 0, .workspaceBytes = 2 * (1024 + 1025 + 700) * 8}) == cpu);
      }
    }
  }
  // More candidates than a list holds, and as many as there are items.
  const Items items(FloatType::float32, 500, 32, normals(500 * 32, 6));
  const Codes codes = codesOf(cpuBackend(), items, false);
  for (const int64_t candidates : {300, 500}) {
    const auto run = [&](const Backend& b) {
      return searchCodes(b, items, normals(2 * 32, 7), Metric::innerProduct, codes, 4, candidates, true,
                         Filters(2, 500, 1));
    };
    CHECK(emulate(run) == run(cpuBackend()));
  }
}

TEST(whatCodesProveIsTrue) {
  int64_t proven = 0;
  for (const Metric metric : metrics) {
    const int64_t dims = 48, rows = 600, count = 6, k = 3;
    const Items items(FloatType::float32, rows, dims, normals(rows * dims, 8));
    const Codes codes = codesOf(cpuBackend(), items, metric == Metric::cosine);
    const std::vector<float> queries = normals(count * dims, 10);
    const auto search = [&](const Backend& b, int64_t candidates) {
      return searchCodes(b, items, queries, metric, codes, k, candidates, true, Filters(count, rows, 1));
    };
    const Outcome some = emulate([&](const Backend& b) { return search(b, 40); });
    const Outcome all = search(cpuBackend(), rows);  // exact
    for (int64_t q = 0; q < count; ++q) {
      if (!some.whole[count * k + q]) continue;
      ++proven;
      for (int64_t j = q * k; j < (q + 1) * k; ++j) {
        CHECK(some.whole[j] == all.whole[j] && some.floats[j] == all.floats[j]);
      }
    }
    CHECK(some == search(cpuBackend(), 40));
  }
  CHECK(proven > 0);
  // Too long for float32 to bound anything: nothing is proven.
  std::vector<float> values = normals(300 * 8, 11);
  values[17] = 3e18f;
  const Items items(FloatType::float32, 300, 8, values);
  const Codes codes = codesOf(cpuBackend(), items, false);
  const Outcome r = emulate([&](const Backend& b) {
    return searchCodes(b, items, normals(8, 12), Metric::innerProduct, codes, 2, 8, true, Filters(1, 300, 1));
  });
  CHECK(r.whole.back() == 0);
}

TEST(bitsAreThoseOfTheCpu) {
  for (const auto& [queries, rows, cols, k] :
       {std::array<int64_t, 4>{1, 1, 1, 1}, {1, 600, 16, 10}, {5, 700, 13, 40}, {3, 400, 80, 300}}) {
    const std::vector<uint8_t> asked = bytes(queries * cols, 1), items = bytes(rows * cols, 2);
    for (const double share : {1.0, 0.3}) {
      const Filters filters(queries, rows, share);
      const auto run = [&](const Backend& backend) {
        Placed memory(backend, {});
        std::vector<int32_t> ids(queries * k, -7);
        std::vector<float> scores(queries * k, -7);
        const TopkBinaryArgs args{
            memory.place(asked), memory.place(items), queries, rows, cols, k, filters.place(memory),
            memory.place(ids),   memory.place(scores)};
        check(backend.topkBinary({}, args));
        memory.fetch(ids, args.ids);
        memory.fetch(scores, args.scores);
        Outcome outcome;
        outcome.add(ids);
        outcome.add(scores);
        return outcome;
      };
      const Outcome cpu = run(cpuBackend());
      CHECK(emulate(run) == cpu);
      if (share == 1 && k < 100) CHECK(emulate(run, selectAlways) == cpu);
    }
  }
}

TEST(storedScoresAreSelectedAsOnTheCpu) {
  for (const auto& [rows, cols, k] : {std::array<int64_t, 3>{1, 1, 1}, {1, 900, 10}, {4, 700, 60}, {2, 600, 400}}) {
    std::vector<float> given = wholes(rows * cols, 50, 3);
    if (cols > 1) given[5] = std::numeric_limits<float>::quiet_NaN(), given[8] = -0.0f;
    for (const double share : {1.0, 0.2}) {
      const Filters filters(rows, cols, share);
      const auto run = [&](const Backend& backend) {
        Placed memory(backend, {});
        std::vector<int32_t> ids(rows * k, -7);
        std::vector<float> out(rows * k, -7);
        const SelectTopkArgs args{
            {memory.place(given), rows, cols}, k, filters.place(memory), memory.place(ids), memory.place(out)};
        check(backend.selectTopk({}, args));
        memory.fetch(ids, args.ids);
        memory.fetch(out, args.out);
        Outcome outcome;
        outcome.add(ids);
        outcome.add(out);
        return outcome;
      };
      const Outcome cpu = run(cpuBackend());
      CHECK(emulate(run) == cpu);
      CHECK(emulate(run, {.slices = 3}) == cpu);
    }
  }
}

TEST(ranksAreThoseOfTheCpu) {
  // Whole numbers, so that sums are exact and scores often equal; one query without positives, one with many.
  for (const auto& [queries, rows, cols] : {std::array<int64_t, 3>{1, 3, 2}, {6, 700, 9}, {5, 513, 32}}) {
    const std::vector<float> users = wholes(queries * cols, 3, 4), items = wholes(rows * cols, 3, 5);
    Random random(6, 0);
    std::vector<int64_t> indptr(1, 0);
    std::vector<int32_t> indices;
    for (int64_t q = 0; q < queries; ++q) {
      const double share = q == 1 ? 0 : q == 2 ? 0.25 : 0.03;  // 0.25 of 700: three passes
      for (int64_t i = 0; i < rows; ++i) {
        if (random.uniform() < share || (q == 0 && i == 0)) indices.push_back(static_cast<int32_t>(i));
      }
      indptr.push_back(static_cast<int64_t>(indices.size()));
    }
    for (const double share : {1.0, 0.6}) {
      const Filters filters(queries, rows, share);
      const auto run = [&](const Backend& backend) {
        Placed memory(backend, {});
        std::vector<int32_t> above(indices.size(), -7), equal(indices.size(), -7);
        const RankCountsArgs args{{memory.place(users), queries, cols},
                                  {memory.place(items), rows, cols},
                                  {memory.place(indptr), memory.place(indices), nullptr, queries, rows},
                                  filters.place(memory),
                                  memory.place(above),
                                  memory.place(equal)};
        check(backend.rankCounts({}, args));
        memory.fetch(above, args.above);
        memory.fetch(equal, args.equal);
        Outcome outcome;
        outcome.add(above);
        outcome.add(equal);
        return outcome;
      };
      const Outcome cpu = run(cpuBackend());
      CHECK(emulate(run) == cpu);
      CHECK(emulate(run, {.slices = 2}) == cpu);
    }
  }
}

TEST_MAIN()
