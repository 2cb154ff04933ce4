// Attention against the formula in float64, on every instruction set of this machine.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"
#include "test/check.h"

using namespace topknot;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

Tensor normals(Shape shape, uint64_t seed, float scale = 1) {
  Tensor t = Tensor::host<float>(shape);
  Random random(seed, 0);
  for (float& x : t.span<float>()) x = scale * static_cast<float>(random.normal());
  return t;
}

template <typename T>
Tensor vectorOf(const std::vector<T>& values) {
  Tensor t = Tensor::host<T>({static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.template data<T>());
  return t;
}

/// Where the sequences of a call lie, whatever its layout.
struct Layout {
  Layout(const Tensor& q, const Tensor& k, const AttentionOptions& o) : packed(o.queryOffsets.has_value()) {
    heads = q.shape[1], kvHeads = k.shape[1], dims = q.shape[q.rank() - 1];
    if (packed) {
      for (int64_t i = 0; i < o.queryOffsets->count(); ++i) {
        const auto at = [i](const Tensor& t) {
          return t.dtype == DType::int32 ? t.data<int32_t>()[i] : t.data<int64_t>()[i];
        };
        queryAt.push_back(at(*o.queryOffsets));
        keyAt.push_back(at(o.keyOffsets ? *o.keyOffsets : *o.queryOffsets));
      }
    } else {
      for (int64_t b = 0; b <= q.shape[0]; ++b) queryAt.push_back(b * q.shape[2]), keyAt.push_back(b * k.shape[2]);
    }
  }
  int64_t batch() const { return static_cast<int64_t>(queryAt.size()) - 1; }
  int64_t queries(int64_t b) const { return queryAt[b + 1] - queryAt[b]; }
  int64_t keys(int64_t b) const { return keyAt[b + 1] - keyAt[b]; }
  int64_t query(int64_t b, int64_t h, int64_t i) const {
    return packed ? ((queryAt[b] + i) * heads + h) * dims : ((b * heads + h) * queries(b) + i) * dims;
  }
  int64_t key(int64_t b, int64_t h, int64_t j) const {
    const int64_t g = h / (heads / kvHeads);
    return packed ? ((keyAt[b] + j) * kvHeads + g) * dims : ((b * kvHeads + g) * keys(b) + j) * dims;
  }
  int64_t row(int64_t b, int64_t h, int64_t i) const {
    return packed ? h * queryAt.back() + queryAt[b] + i : (b * heads + h) * queries(b) + i;
  }
  bool packed;
  int64_t heads, kvHeads, dims;
  std::vector<int64_t> queryAt, keyAt;
};

int64_t biasIndex(const Tensor& bias, int64_t b, int64_t h, int64_t i, int64_t j) {
  const Shape& s = bias.shape;
  return (((s[0] == 1 ? 0 : b) * s[1] + (s[1] == 1 ? 0 : h)) * s[2] + i) * s[3] + j;
}

/// What dropout multiplies the weight of query row `row` and key j with.
double kept(const AttentionOptions& o, int64_t row, int64_t j) {
  if (o.dropout == 0) return 1;
  const auto words = philox(static_cast<uint64_t>(o.seed), static_cast<uint64_t>(row), static_cast<uint64_t>(j / 4));
  const double draw = static_cast<double>(words[static_cast<size_t>(j % 4)] >> 8) / 16777216.0;
  return draw < o.dropout ? 0 : 1 / (1 - o.dropout);
}

struct Reference {
  std::vector<double> out, logSumExp;
};

/// The weights of one query, before dropout; returns its log-sum-exp.
double weightsOf(const Layout& at, const Tensor& q, const Tensor& k, const AttentionOptions& o, int64_t b, int64_t h,
                 int64_t i, std::vector<double>& p) {
  const int64_t n = at.queries(b), m = at.keys(b), place = i + m - n;
  const double scale = o.scale.value_or(1 / std::sqrt(static_cast<double>(at.dims)));
  const int64_t right = o.causal ? 0 : o.right.value_or(m + n), left = o.left.value_or(m + n);
  p.assign(m, -infinity);
  double largest = -infinity;
  for (int64_t j = 0; j < m; ++j) {
    if (j < place - left || j > place + right) continue;
    if (o.keyMask && !o.keyMask->data<uint8_t>()[b * m + j]) continue;
    double dot = 0;
    for (int64_t c = 0; c < at.dims; ++c) {
      dot += static_cast<double>(q.data<float>()[at.query(b, h, i) + c]) * k.data<float>()[at.key(b, h, j) + c];
    }
    p[j] = dot * scale + (o.bias ? o.bias->data<float>()[biasIndex(*o.bias, b, h, i, j)] : 0.0);
    largest = std::max(largest, p[j]);
  }
  if (largest == -infinity) return p.assign(m, 0.0), -infinity;
  double sum = 0;
  for (double& x : p) sum += x = std::exp(x - largest);
  for (double& x : p) x /= sum;
  return largest + std::log(sum);
}

Reference reference(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& o) {
  const Layout at(q, k, o);
  Reference r{std::vector<double>(q.count()), std::vector<double>(q.count() / at.dims)};
  std::vector<double> p;
  for (int64_t b = 0; b < at.batch(); ++b) {
    for (int64_t h = 0; h < at.heads; ++h) {
      for (int64_t i = 0; i < at.queries(b); ++i) {
        const int64_t row = at.row(b, h, i);
        r.logSumExp[row] = weightsOf(at, q, k, o, b, h, i, p);
        for (int64_t j = 0; j < at.keys(b); ++j) {
          const double w = p[j] * kept(o, row, j);
          for (int64_t c = 0; c < at.dims; ++c) {
            r.out[at.query(b, h, i) + c] += w * static_cast<double>(v.data<float>()[at.key(b, h, j) + c]);
          }
        }
      }
    }
  }
  return r;
}

AttentionResult attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& o = {}) {
  static Stream stream;
  AttentionResult r = ops::attention(stream, q, k, v, o);
  r.out.pending->wait();
  return r;
}

bool near(const Tensor& t, const std::vector<double>& expected, double tolerance) {
  for (int64_t i = 0; i < t.count(); ++i) {
    const double x = t.data<float>()[i], e = expected[i];
    if (x == e) continue;
    if (!(std::fabs(x - e) <= tolerance * (1 + std::fabs(e)))) {
      std::printf("  element %ld: %.9g, expected %.9g\n", static_cast<long>(i), x, e);
      return false;
    }
  }
  return true;
}

bool sameBytes(const Tensor& a, const Tensor& b) {
  return a.shape == b.shape && std::memcmp(a.data<char>(), b.data<char>(), a.bytes()) == 0;
}

template <typename F>
void forEachIsa(F&& f) {
  for (const Backend* backend : cpuBackends()) {
    useIsa(backend->isa);
    f();
  }
  useIsa(cpuBackends().front()->isa);
}

struct Case {
  Tensor q, k, v;
  AttentionOptions options;
  std::string text;
};

Tensor mask(int64_t batch, int64_t keys, uint64_t seed) {
  Tensor t = Tensor::host(seed % 2 ? DType::boolean : DType::uint8, {batch, keys});
  Random random(seed, 3);
  for (int64_t i = 0; i < t.count(); ++i) t.data<uint8_t>()[i] = random.below(4) != 0;
  if (batch > 1) std::fill_n(t.data<uint8_t>(), keys, uint8_t{0});  // a sequence without any key
  for (int64_t j = keys / 2; j < keys; ++j) t.data<uint8_t>()[(batch - 1) * keys + j] = 0;  // padding at the end
  return t;
}

/// A call with options drawn at random.
Case draw(uint64_t seed) {
  Random random(seed, 4);
  const auto pick = [&random](std::vector<int64_t> from) { return from[random.below(from.size())]; };
  Case c;
  const int64_t dims = pick({1, 2, 3, 7, 8, 12, 13, 32, 33, 50, 64, 100, 129, 256});
  const int64_t kvHeads = pick({1, 2, 3}), heads = kvHeads * pick({1, 2, 4}), batch = pick({1, 2, 3});
  const int64_t limit = dims > 64 ? 70 : 150;
  const auto length = [&] { return static_cast<int64_t>(random.below(4) ? random.below(limit) : random.below(20)); };
  const bool packed = random.below(3) == 0;
  AttentionOptions& o = c.options;
  int64_t queries = length(), keys = random.below(2) ? queries : length();
  if (packed) {
    std::vector<int64_t> queryAt{0}, keyAt{0};
    for (int64_t b = 0; b < batch; ++b)
      queryAt.push_back(queryAt.back() + length()), keyAt.push_back(keyAt.back() + length());
    const bool self = random.below(2) == 0;
    o.queryOffsets = vectorOf(std::vector<int32_t>(queryAt.begin(), queryAt.end()));
    if (!self) o.keyOffsets = vectorOf(keyAt);
    queries = queryAt.back(), keys = self ? queries : keyAt.back();
  }
  const auto shape = [&](int64_t h, int64_t n) { return packed ? Shape{n, h, dims} : Shape{batch, h, n, dims}; };
  c.q = normals(shape(heads, queries), seed * 3 + 1);
  c.k = normals(shape(kvHeads, keys), seed * 3 + 2);
  c.v = normals(shape(kvHeads, keys), seed * 3 + 3);
  o.causal = random.below(3) == 0;
  if (random.below(3) == 0) o.left = static_cast<int64_t>(random.below(40));
  if (random.below(3) == 0) o.right = static_cast<int64_t>(random.below(40));
  if (random.below(4) == 0) o.scale = 1.3 / std::sqrt(static_cast<double>(dims));
  if (random.below(3) == 0) o.dropout = 0.25, o.seed = static_cast<int64_t>(seed);
  if (!packed && random.below(3) == 0) o.keyMask = mask(batch, keys, seed);
  if (!packed && random.below(3) == 0) {
    o.bias = normals({pick({1, batch}), pick({1, heads}), queries, keys}, seed * 3 + 4);
    for (float& x : o.bias->span<float>()) {
      if (random.below(10) == 0) x = -std::numeric_limits<float>::infinity();
    }
  }
  c.text = concat("case ", seed, ": q ", text(c.q.shape), " k ", text(c.k.shape), packed ? " packed" : "",
                  o.causal ? " causal" : "", o.left ? " left" : "", o.right ? " right" : "", o.keyMask ? " mask" : "",
                  o.bias ? " bias" : "", o.dropout > 0 ? " dropout" : "");
  return c;
}

void report(bool ok, const Case& c, const char* what) {
  CHECK(ok);
  if (!ok) std::printf("  %s: isa %s, %s\n", what, cpuBackend().isa, c.text.c_str());
}

}  // namespace

TEST(matchesTheFormula) {
  setThreadCount(4);
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const Case c = draw(seed);
    const Reference expected = reference(c.q, c.k, c.v, c.options);
    forEachIsa([&] {
      const AttentionResult r = attend(c.q, c.k, c.v, c.options);
      report(near(r.out, expected.out, 4e-6), c, "out");
      report(near(r.logSumExp, expected.logSumExp, 4e-6), c, "logSumExp");
    });
  }
}

TEST(longSequencesNeedManyBlocks) {
  for (const auto& [queries, keys] : {std::pair<int64_t, int64_t>{300, 1000}, {700, 90}, {513, 513}}) {
    for (int option = 0; option < 5; ++option) {
      Case c{normals({1, 2, queries, 24}, 1), normals({1, 1, keys, 24}, 2), normals({1, 1, keys, 24}, 3), {}, ""};
      if (option == 1) c.options.causal = true;
      if (option == 2) c.options.left = 100, c.options.right = 30;
      if (option == 3) c.options.keyMask = mask(1, keys, 4);
      if (option == 4) c.options.left = 20, c.options.causal = true;
      c.text = concat(queries, " x ", keys, " option ", option);
      const Reference expected = reference(c.q, c.k, c.v, c.options);
      forEachIsa([&] { report(near(attend(c.q, c.k, c.v, c.options).out, expected.out, 4e-6), c, "out"); });
    }
  }
}

TEST(sameBytesAtAnyThreadCount) {
  forEachIsa([] {
    for (uint64_t seed = 1000; seed < 1030; ++seed) {
      const Case c = draw(seed);
      setThreadCount(1);
      const AttentionResult one = attend(c.q, c.k, c.v, c.options);
      for (int threads : {2, 3, 4}) {
        setThreadCount(threads);
        const AttentionResult r = attend(c.q, c.k, c.v, c.options);
        report(sameBytes(one.out, r.out) && sameBytes(one.logSumExp, r.logSumExp), c, "threads");
      }
    }
    setThreadCount(4);
  });
}

TEST(exponentialsAreAccurate) {
  // Two keys with scores 0 and x, values 0 and 1: the result is e^x / (1 + e^x).
  forEachIsa([] {
    double worst = 0;
    for (double x = -80; x <= 0; x += 0.0371) {
      Tensor q = Tensor::host<float>({1, 1, 1, 1}), k = Tensor::host<float>({1, 1, 2, 1}), v = k;
      v = Tensor::host<float>({1, 1, 2, 1});
      const float score = static_cast<float>(x);
      q.data<float>()[0] = 1, k.data<float>()[0] = 0, k.data<float>()[1] = score;
      v.data<float>()[0] = 0, v.data<float>()[1] = 1;
      const double e = std::exp(static_cast<double>(score)), expected = e / (1 + e);
      const double error = std::fabs(attend(q, k, v).out.data<float>()[0] / expected - 1);
      // The score itself, in powers of two, carries half a unit in the last place: x log2(e) 2^-24, times ln 2.
      worst = std::max(worst, error - std::fabs(x) * 0x1p-22);
    }
    CHECK(worst < 5e-7);
    if (!(worst < 5e-7)) std::printf("  isa %s: %g\n", cpuBackend().isa, worst);
  });
}

TEST(extremeScoresStayFinite) {
  forEachIsa([] {
    Case c{normals({1, 1, 40, 8}, 1, 200), normals({1, 1, 300, 8}, 2, 200), normals({1, 1, 300, 8}, 3), {}, "extreme"};
    report(near(attend(c.q, c.k, c.v).out, reference(c.q, c.k, c.v, {}).out, 4e-2), c, "out");
  });
}

TEST(queriesWithoutKeysGiveZeros) {
  forEachIsa([] {
    const Tensor q = normals({2, 2, 20, 5}, 1), k = normals({2, 2, 7, 5}, 2);
    AttentionOptions o;
    o.causal = true;  // the first 13 queries stand before the first key
    const AttentionResult r = attend(q, k, k, o);
    for (int64_t i = 0; i < 13; ++i) {
      CHECK(r.logSumExp.data<float>()[i] == -std::numeric_limits<float>::infinity());
      for (int64_t c = 0; c < 5; ++c) CHECK(r.out.data<float>()[i * 5 + c] == 0);
    }
    CHECK(r.out.data<float>()[13 * 5] != 0);
    const AttentionResult none = attend(q, normals({2, 2, 0, 5}, 3), normals({2, 2, 0, 5}, 3));
    for (float x : none.out.span<float>()) CHECK(x == 0);
    CHECK(attend(normals({2, 2, 0, 5}, 1), k, k).out.count() == 0);
    CHECK(attend(normals({0, 2, 4, 5}, 1), normals({0, 2, 4, 5}, 1), normals({0, 2, 4, 5}, 1)).out.count() == 0);
  });
}

TEST(dropoutKeepsItsShareAndItsSeed) {
  const Tensor q = normals({1, 1, 200, 4}, 1, 0), k = normals({1, 1, 400, 4}, 2),
               v = Tensor::host<float>({1, 1, 400, 4});
  std::fill_n(v.data<float>(), v.count(), 1.0f);
  AttentionOptions o;
  o.dropout = 0.3, o.seed = 5;
  const AttentionResult r = attend(q, k, v, o);
  double mean = 0;
  for (float x : r.out.span<float>()) mean += x / static_cast<double>(r.out.count());
  CHECK(std::fabs(mean - 1) < 0.01);  // of 80,000 weights; the standard deviation is 0.0023
  CHECK(sameBytes(r.out, attend(q, k, v, o).out));
  o.seed = 6;
  CHECK(!sameBytes(r.out, attend(q, k, v, o).out));
}

TEST(badArgumentsAreNamed) {
  const Tensor q = normals({2, 4, 6, 8}, 1), k = normals({2, 2, 5, 8}, 2);
  const auto with = [](auto set) {
    AttentionOptions o;
    set(o);
    return o;
  };
  using O = AttentionOptions;
  CHECK_THROWS(attend(normals({2, 4, 8}, 1), k, k), shape);
  CHECK_THROWS(attend(vectorOf<int32_t>({1}), k, k), dtype);
  CHECK_THROWS(attend(q, normals({2, 3, 5, 8}, 1), normals({2, 3, 5, 8}, 1)), shape);
  CHECK_THROWS(attend(q, normals({3, 2, 5, 8}, 1), normals({3, 2, 5, 8}, 1)), shape);
  CHECK_THROWS(attend(q, normals({2, 2, 5, 7}, 1), normals({2, 2, 5, 7}, 1)), shape);
  CHECK_THROWS(attend(q, k, normals({2, 2, 6, 8}, 1)), shape);
  CHECK_THROWS(attend(normals({1, 1, 2, 257}, 1), normals({1, 1, 2, 257}, 1), normals({1, 1, 2, 257}, 1)), shape);
  CHECK_THROWS(attend(normals({1, 1, 2, 0}, 1), normals({1, 1, 2, 0}, 1), normals({1, 1, 2, 0}, 1)), shape);
  CHECK_THROWS(attend(q, k, k, with([](O& o) { o.dropout = 1; })), range);
  CHECK_THROWS(attend(q, k, k, with([](O& o) { o.dropout = std::nan(""); })), range);
  CHECK_THROWS(attend(q, k, k, with([](O& o) { o.scale = infinity; })), range);
  CHECK_THROWS(attend(q, k, k, with([](O& o) { o.left = -1; })), range);
  CHECK_THROWS(attend(q, k, k, with([](O& o) { o.keyMask = normals({2, 5}, 1); })), dtype);
  CHECK_THROWS(attend(q, k, k, with([](O& o) { o.keyMask = mask(2, 6, 1); })), shape);
  CHECK_THROWS(attend(q, k, k, with([](O& o) { o.bias = normals({2, 3, 6, 5}, 1); })), shape);
  CHECK_THROWS(attend(q, k, k, with([](O& o) { o.bias = normals({6, 5}, 1); })), shape);
  CHECK_THROWS(attend(q, k, k, with([](O& o) { o.bias = vectorOf<int32_t>({1}); })), dtype);
  CHECK_THROWS(attend(q, k, k, with([](O& o) { o.queryOffsets = vectorOf<int32_t>({0, 6}); })), shape);
  CHECK_THROWS(attend(q, k, k, with([](O& o) { o.keyOffsets = vectorOf<int32_t>({0, 5}); })), argument);

  const Tensor p = normals({6, 2, 3}, 1);
  const auto packed = [&](std::vector<int32_t> offsets) {
    return attend(p, p, p, with([&](O& o) { o.queryOffsets = vectorOf(offsets); }));
  };
  CHECK(packed({0, 2, 2, 6}).out.count() == 36);
  CHECK_THROWS(packed({1, 6}), range);
  CHECK_THROWS(packed({0, 5, 4, 6}), range);
  CHECK_THROWS(packed({0, 5}), range);
  CHECK_THROWS(packed({0, 7}), range);
  CHECK_THROWS(packed({}), shape);
  CHECK_THROWS(attend(p, p, p, with([](O& o) { o.queryOffsets = normals({2}, 1); })), dtype);
  CHECK_THROWS(attend(p, p, p, with([](O& o) {
                        o.queryOffsets = vectorOf<int32_t>({0, 6});
                        o.keyOffsets = vectorOf<int32_t>({0, 3, 6});
                      })),
               shape);
  CHECK_THROWS(attend(p, p, p, with([](O& o) {
                        o.queryOffsets = vectorOf<int32_t>({0, 6});
                        o.keyMask = mask(1, 6, 1);
                      })),
               argument);
  CHECK_THROWS(attend(p, p, p, with([](O& o) {
                        o.queryOffsets = vectorOf<int32_t>({0, 6});
                        o.bias = normals({1, 1, 6, 6}, 1);
                      })),
               argument);
}

TEST(whatIsNotFiniteIsNamed) {
  forEachIsa([] {
    const auto message = [](int which, float value, int64_t at) {
      Tensor t[] = {normals({1, 2, 20, 9}, 1), normals({1, 2, 30, 9}, 2), normals({1, 2, 30, 9}, 3),
                    normals({1, 1, 20, 30}, 4)};
      t[which].data<float>()[at] = value;
      AttentionOptions o;
      o.bias = t[3];
      try {
        attend(t[0], t[1], t[2], o);
      } catch (const Error& e) {
        return concat(text(e.code()), " ", e.what());
      }
      return std::string();
    };
    const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
    CHECK(message(0, nan, 20).starts_with("ERR_VALUE q: expected finite numbers but element 20"));
    CHECK(message(0, inf, 0).starts_with("ERR_VALUE q: "));
    CHECK(message(1, nan, 31).starts_with("ERR_VALUE k: "));
    CHECK(message(2, nan, 539).starts_with("ERR_VALUE v: "));
    CHECK(message(2, -inf, 0).starts_with("ERR_VALUE v: "));
    CHECK(message(3, nan, 599).starts_with("ERR_VALUE bias: "));
    CHECK(message(3, inf, 599).starts_with("ERR_VALUE bias: "));
    CHECK(message(3, -inf, 599).empty());
  });
}

TEST_MAIN()
