// The exact index by storage: 16-bit floats, 8-bit codes, bits; on every instruction set of this machine.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"
#include "test/check.h"

using namespace topknot;

namespace {

constexpr Metric metrics[] = {Metric::innerProduct, Metric::cosine, Metric::l2};

Tensor matrix(int64_t rows, int64_t cols, uint64_t seed) {
  Tensor t = Tensor::host<float>({rows, cols});
  Random random(seed, 0);
  for (float& x : t.span<float>()) x = static_cast<float>(random.normal());
  return t;
}

Tensor bytes(int64_t rows, int64_t cols, uint64_t seed) {
  Tensor t = Tensor::host<uint8_t>({rows, cols});
  Random random(seed, 0);
  for (uint8_t& x : t.span<uint8_t>()) x = static_cast<uint8_t>(random.below(256));
  return t;
}

/// A bitmap in which about one item of `every` is allowed.
Tensor bitmap(int64_t items, uint64_t every, uint64_t seed) {
  Tensor t = Tensor::host<int64_t>({(items + 63) / 64}, true);
  Random random(seed, 2);
  for (int64_t i = 0; i < items; ++i) {
    if (random.below(every) == 0) t.data<int64_t>()[i / 64] |= int64_t(uint64_t{1} << (i % 64));
  }
  return t;
}

bool allowed(const std::optional<Tensor>& bits, int64_t i) {
  return !bits || (static_cast<uint64_t>(bits->data<int64_t>()[i / 64]) >> (i % 64) & 1);
}

template <class T>
std::pair<Tensor, Tensor> halves(const Tensor& from) {
  Tensor half = Tensor::host<T>(from.shape), widened = Tensor::host<float>(from.shape);
  for (int64_t i = 0; i < from.count(); ++i) {
    if constexpr (std::is_same_v<T, Float16>) half.data<T>()[i] = toFloat16(from.data<float>()[i]);
    else half.data<T>()[i] = toBFloat16(from.data<float>()[i]);
    widened.data<float>()[i] = toFloat(half.data<T>()[i]);
  }
  return {half, widened};
}

Tensor rowsOf(const Tensor& t, int64_t begin, int64_t end) {
  Tensor out = Tensor::host(t.dtype, {end - begin, t.cols()});
  const int64_t bytes = t.cols() * static_cast<int64_t>(sizeOf(t.dtype));
  std::memcpy(out.data<char>(), t.data<char>() + begin * bytes, out.bytes());
  return out;
}

bool same(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.data<char>(), b.data<char>(), a.bytes()) == 0;
}
bool same(const IndexSearchResult& a, const IndexSearchResult& b) {
  return same(a.ids.tensor, b.ids.tensor) && same(a.scores.tensor, b.scores.tensor);
}

IndexSegment coded(const Tensor& items, Metric metric, std::optional<Tensor> filter = {}) {
  Job job;
  return {items, ops::squaredNorms(job, items), ops::int8Codes(job, items, metric == Metric::cosine), filter};
}
IndexSegment plain(const Tensor& items, std::optional<Tensor> filter = {}) {
  Job job;
  return {items, items.dtype == DType::uint8 ? std::nullopt : std::optional(ops::squaredNorms(job, items)), {}, filter};
}

IndexSearchResult search(const Tensor& queries, std::vector<IndexSegment> segments, IndexSearchOptions options) {
  Job job;
  return ops::indexSearch(job, queries, std::move(segments), options);
}

template <typename F>
void forEachIsa(F&& f) {
  for (const Backend* backend : cpuBackends()) {
    useIsa(backend->isa);
    f();
  }
  useIsa(cpuBackends().front()->isa);
}

void report(bool ok, const char* what, int64_t dims, int64_t items, int64_t queries, int64_t k, Metric metric) {
  CHECK(ok);
  if (!ok) {
    std::printf("  %s: isa %s, %ld dims, %ld items, %ld queries, k %ld, metric %d\n", what, cpuBackend().isa,
                static_cast<long>(dims), static_cast<long>(items), static_cast<long>(queries), static_cast<long>(k),
                static_cast<int>(metric));
  }
}

template <class T>
void checkHalves() {
  for (int64_t dims : {1, 3, 8, 17, 64, 100}) {
    for (int64_t n : {1, 7, 63, 1000, 3001}) {
      const auto [half, widened] = halves<T>(matrix(n, dims, 1));
      const Tensor filters[] = {bitmap(n, 2, 3), bitmap(n, 8, 4)};
      for (int64_t count : {1, 2, 3, 5, 16, 33}) {
        const Tensor queries = matrix(count, dims, 2);
        const int64_t k = std::min<int64_t>(10, n);
        for (Metric metric : metrics) {
          forEachIsa([&] {
            bool ok = same(search(queries, {plain(half)}, {k, metric}), search(queries, {plain(widened)}, {k, metric}));
            for (const Tensor& f : filters) {
              ok = ok && same(search(queries, {plain(half, f)}, {k, metric}),
                              search(queries, {plain(widened, f)}, {k, metric}));
            }
            report(ok, "half", dims, n, count, k, metric);
          });
        }
      }
    }
  }
}

}  // namespace

TEST(sixteenBitItemsScoreAsTheFloatsThatTheyStandFor) {
  setThreadCount(4);
  checkHalves<Float16>();
  checkHalves<BFloat16>();
}

TEST(bitsMatchBruteForce) {
  for (int64_t cols : {1, 3, 4, 8, 33, 64, 129, 300}) {
    for (int64_t n : {1, 7, 64, 1000, 3001}) {
      const Tensor items = bytes(n, cols, 5);
      for (int64_t count : {1, 3, 4, 9, 40}) {
        const Tensor queries = bytes(count, cols, 6);
        for (uint64_t every : {0, 2, 9}) {
          std::optional<Tensor> filter;
          if (every) filter = bitmap(n, every, 7);
          std::vector<std::vector<std::pair<int, int32_t>>> expected(count);
          for (int64_t q = 0; q < count; ++q) {
            for (int64_t i = 0; i < n; ++i) {
              if (!allowed(filter, i)) continue;
              int distance = 0;
              for (int64_t c = 0; c < cols; ++c) {
                distance += std::popcount(
                    static_cast<uint8_t>(queries.data<uint8_t>()[q * cols + c] ^ items.data<uint8_t>()[i * cols + c]));
              }
              expected[q].emplace_back(distance, static_cast<int32_t>(i));
            }
            std::sort(expected[q].begin(), expected[q].end());
          }
          for (int64_t k : {int64_t{1}, std::min<int64_t>(20, n), n}) {
            if (k > 1000) continue;
            forEachIsa([&] {
              const IndexSearchResult r = search(queries, {plain(items, filter)}, {k, Metric::l2});
              bool ok = true;
              for (int64_t q = 0; q < count; ++q) {
                for (int64_t j = 0; j < k; ++j) {
                  const int32_t id = r.ids.tensor.data<int32_t>()[q * k + j];
                  const float score = r.scores.tensor.data<float>()[q * k + j];
                  if (j < static_cast<int64_t>(expected[q].size())) {
                    ok = ok && id == expected[q][j].second && score == static_cast<float>(expected[q][j].first);
                  } else {
                    ok = ok && id == -1 && std::isnan(score);
                  }
                }
              }
              report(ok, "bits", cols, n, count, k, Metric::l2);
            });
          }
        }
      }
    }
  }
}

TEST(codesLeaveOutNoMoreThanTheySay) {
  Job job;
  Tensor items = matrix(500, 37, 8);
  for (int64_t i = 0; i < 37; ++i) items.data<float>()[5 * 37 + i] = 0;
  for (int64_t i = 0; i < 37; ++i) items.data<float>()[6 * 37 + i] *= 1e-30f;
  for (bool unit : {false, true}) {
    const Int8Codes c = ops::int8Codes(job, items, unit);
    for (int64_t i = 0; i < 500; ++i) {
      const float* x = items.data<float>() + i * 37;
      double norm = 0, left = 0;
      for (int64_t j = 0; j < 37; ++j) norm += static_cast<double>(x[j]) * x[j];
      const double factor = !unit ? 1 : norm > 0 ? 1 / std::sqrt(norm) : 0;
      int largest = 0;
      for (int64_t j = 0; j < 37; ++j) {
        const int code = c.codes.data<uint8_t>()[i * 37 + j] - 128;
        largest = std::max(largest, std::abs(code));
        const double e = factor * x[j] - static_cast<double>(c.scales.data<float>()[i]) * code;
        left += e * e;
      }
      CHECK(std::sqrt(left) <= static_cast<double>(c.residuals.data<float>()[i]));
      CHECK(static_cast<double>(c.residuals.data<float>()[i]) <= std::sqrt(left) * (1 + 1e-5) + 1e-40);
      CHECK(largest == (i == 5 ? 0 : 127));
    }
  }
}

TEST(codesWithEveryItemForCandidateAreTheFloats) {
  for (int64_t dims : {1, 5, 16, 64, 131}) {
    for (int64_t n : {1, 60, 1003}) {
      const Tensor items = matrix(n, dims, 9);
      for (int64_t count : {1, 3, 4, 30}) {
        const Tensor queries = matrix(count, dims, 10);
        for (Metric metric : metrics) {
          const int64_t k = std::min<int64_t>(7, n);
          const Tensor filter = bitmap(n, 2, 11);
          forEachIsa([&] {
            for (const std::optional<Tensor>& f : {std::optional<Tensor>{}, std::optional<Tensor>{filter}}) {
              const auto found = search(queries, {coded(items, metric, f)}, {k, metric, n});
              report(same(found, search(queries, {plain(items, f)}, {k, metric})), "all", dims, n, count, k, metric);
            }
          });
        }
      }
    }
  }
}

TEST(codesFindNearlyAll) {
  const int64_t n = 20000, count = 64, k = 10;
  const Tensor items = matrix(n, 64, 12), queries = matrix(count, 64, 13);
  for (Metric metric : metrics) {
    const auto found = search(queries, {coded(items, metric)}, {k, metric, 4});
    const auto exact = search(queries, {plain(items)}, {k, metric});
    int64_t hits = 0;
    for (int64_t q = 0; q < count; ++q) {
      const int32_t* best = exact.ids.tensor.data<int32_t>() + q * k;
      for (int64_t j = 0; j < k; ++j) hits += std::count(best, best + k, found.ids.tensor.data<int32_t>()[q * k + j]);
    }
    CHECK(hits >= count * k * 999 / 1000);
  }
}

TEST(codesGiveTheSameBytesEverywhere) {
  // With one candidate for each of k the answer shows which candidates the scan chose.
  const int64_t n = 9000;
  for (int64_t dims : {7, 64}) {
    const Tensor items = matrix(n, dims, 14), queries = matrix(40, dims, 15);
    for (Metric metric : metrics) {
      const IndexSegment segment = coded(items, metric);
      useIsa(cpuBackends().front()->isa);
      const auto all = search(queries, {segment}, {10, metric, 1});
      forEachIsa([&] {
        for (int threads : {1, 3}) {
          setThreadCount(threads);
          report(same(all, search(queries, {segment}, {10, metric, 1})), "batch", dims, n, 40, 10, metric);
        }
        setThreadCount(4);
        const auto one = search(rowsOf(queries, 7, 8), {segment}, {10, metric, 1});
        CHECK(std::memcmp(one.ids.tensor.data<int32_t>(), all.ids.tensor.data<int32_t>() + 70, 40) == 0);
      });
    }
  }
}

TEST(exactSearchByCodesIsExact) {
  const int64_t n = 4000, count = 30, k = 10;
  for (int64_t dims : {2, 24, 64}) {
    Tensor spread = matrix(n, dims, 16), close = matrix(n, dims, 17), lengths = matrix(n, dims, 18);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < dims; ++j) {
        close.data<float>()[i * dims + j] = 1 + 1e-4f * close.data<float>()[i * dims + j];  // no code tells them apart
        lengths.data<float>()[i * dims + j] *= i % 7 == 0 ? 30.0f : i % 5 == 0 ? 1e-3f : 1.0f;
      }
    }
    std::fill_n(lengths.data<float>() + 3 * dims, dims, 0.0f);
    Tensor queries = matrix(count, dims, 19);
    std::fill_n(queries.data<float>() + 4 * dims, dims, 0.0f);
    for (const Tensor& items : {spread, close, lengths}) {
      for (Metric metric : metrics) {
        forEachIsa([&] {
          for (int64_t rescore : {1, 8}) {
            const auto found = search(queries, {coded(items, metric)}, {k, metric, rescore, true});
            report(same(found, search(queries, {plain(items)}, {k, metric})), "exact", dims, n, count, k, metric);
            CHECK(found.proven + found.fallbacks == count);
            if (dims == 64 && rescore == 8 && items.buffer == spread.buffer) CHECK(found.proven > count / 2);
            if (items.buffer == close.buffer && metric == Metric::innerProduct) CHECK(found.fallbacks == count);
          }
        });
      }
    }
  }
}

TEST(lengthsThatFloatsCannotSquareAreNotProven) {
  Tensor items = matrix(300, 8, 20);
  for (int64_t j = 0; j < 8; ++j) items.data<float>()[j] = 3e30f;
  for (int64_t j = 0; j < 8; ++j) items.data<float>()[8 + j] *= 1e-30f;
  const Tensor queries = matrix(5, 8, 21);
  for (Metric metric : metrics) {
    forEachIsa([&] {
      const auto found = search(queries, {coded(items, metric)}, {10, metric, 2, true});
      CHECK(same(found, search(queries, {plain(items)}, {10, metric})));
      CHECK(found.fallbacks == 5);
    });
  }
}

TEST(segmentsAreSearchedAsOne) {
  const int64_t n = 1000;
  const Tensor floats = matrix(n, 12, 22), bits = bytes(n, 3, 23), half = halves<Float16>(floats).first;
  const int64_t borders[] = {0, 300, 305, 1000};
  for (const Tensor& items : {floats, half, bits}) {
    for (int64_t count : {1, 20}) {
      const Tensor queries = items.dtype == DType::uint8 ? bytes(count, 3, 24) : matrix(count, 12, 24);
      for (Metric metric : metrics) {
        for (int64_t k : {5, 400}) {
          std::vector<IndexSegment> parts;
          for (int i = 0; i < 3; ++i) parts.push_back(plain(rowsOf(items, borders[i], borders[i + 1])));
          CHECK(same(search(queries, parts, {k, metric}), search(queries, {plain(items)}, {k, metric})));
        }
      }
    }
  }
}

TEST(keepRowsDropsTheOthers) {
  Job job;
  const Tensor a = matrix(10000, 3, 25), b = matrix(70, 3, 26), bits = bitmap(10000, 3, 27);
  const Tensor kept = ops::keepRows(job, {a, b}, {bits, std::nullopt});
  std::vector<float> expected;
  for (int64_t i = 0; i < 10000; ++i) {
    if (allowed(bits, i)) expected.insert(expected.end(), a.data<float>() + 3 * i, a.data<float>() + 3 * i + 3);
  }
  expected.insert(expected.end(), b.data<float>(), b.data<float>() + 210);
  CHECK(kept.count() == static_cast<int64_t>(expected.size()));
  CHECK(std::memcmp(kept.data<float>(), expected.data(), kept.bytes()) == 0);
  CHECK_THROWS(ops::keepRows(job, {a, b}, {bits}), shape);
  CHECK_THROWS(ops::keepRows(job, {a, bytes(3, 3, 1)}, {bits, std::nullopt}), dtype);
}

TEST(badArgumentsAreNamed) {
  const Tensor items = matrix(10, 4, 28), queries = matrix(2, 4, 29);
  CHECK_THROWS(search(queries, {}, {1}), shape);
  CHECK_THROWS(search(queries, {plain(items)}, {11}), range);
  CHECK_THROWS(search(queries, {plain(items)}, {0}), range);
  CHECK_THROWS(search(queries, {coded(items, Metric::l2)}, {1, Metric::l2, 0}), range);
  CHECK_THROWS(search(matrix(1, 5, 1), {coded(items, Metric::l2)}, {1, Metric::l2}), shape);
  CHECK_THROWS(search(queries, {plain(bytes(4, 4, 1))}, {1}), dtype);
  CHECK_THROWS(search(bytes(1, 3, 1), {plain(bytes(4, 4, 1))}, {1}), shape);
  Tensor bad = matrix(2, 4, 30);
  bad.data<float>()[5] = std::nanf("");
  CHECK_THROWS(search(bad, {coded(items, Metric::l2)}, {1, Metric::l2}), value);
  IndexSegment unnormed = coded(items, Metric::l2);
  unnormed.norms.reset();
  CHECK_THROWS(search(queries, {unnormed}, {1, Metric::l2}), argument);
  CHECK_THROWS(search(queries, {plain(items, bitmap(65, 1, 1))}, {1}), shape);
}

TEST_MAIN()
