// Attention against the formula in float64, on every instruction set of this machine.
#include "test/attention_reference.h"

using namespace topknot;
using namespace topknot::test;

TEST(matchesTheFormula) {
  setThreadCount(4);
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const Call c = draw(seed);
    const Reference expected = reference(c.q, c.k, c.v, c.options);
    forEachIsa([&] {
      const AttentionResult r = attend(c.q, c.k, c.v, c.options);
      report(near(r.out, expected.out, 4e-6), c, "out");
      report(near(r.logSumExp, expected.logSumExp, 4e-6), c, "logSumExp");
    });
  }
}

TEST(bfloat16IsFloat32Rounded) {
  for (uint64_t seed = 500; seed < 700; ++seed) {
    const Call c = draw(seed);
    const Tensor q = toHalves(c.q), k = toHalves(c.k), v = toHalves(c.v);
    const Tensor wideQ = toFloats(q), wideK = toFloats(k), wideV = toFloats(v);
    const Reference expected = reference(wideQ, wideK, wideV, c.options);
    forEachIsa([&] {
      const AttentionResult half = attend(q, k, v, c.options), full = attend(wideQ, wideK, wideV, c.options);
      CHECK(half.out.dtype == DType::bfloat16 && half.logSumExp.dtype == DType::float32);
      report(sameBytes(half.out, toHalves(full.out)) && sameBytes(half.logSumExp, full.logSumExp), c, "rounded");
      report(near(toFloats(half.out), expected.out, 0x1p-8), c, "out");
    });
  }
}

TEST(longSequencesNeedManyBlocks) {
  for (const auto& [queries, keys] : {std::pair<int64_t, int64_t>{300, 1000}, {700, 90}, {513, 513}}) {
    for (int option = 0; option < 5; ++option) {
      Call c{normals({1, 2, queries, 24}, 1), normals({1, 1, keys, 24}, 2), normals({1, 1, keys, 24}, 3), {}, ""};
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
      const Call c = draw(seed);
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
    Call c{normals({1, 1, 40, 8}, 1, 200), normals({1, 1, 300, 8}, 2, 200), normals({1, 1, 300, 8}, 3), {}, "extreme"};
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
  const auto packedWith = [&](std::optional<Tensor> keyMask, std::optional<Tensor> bias) {
    return attend(p, p, p, with([&](O& o) {
                    o.queryOffsets = vectorOf<int32_t>({0, 2, 6});
                    o.keyMask = keyMask, o.bias = bias;
                  }));
  };
  CHECK(packedWith({}, normals({2, 1, 4, 4}, 1)).out.count() == 36);
  CHECK_THROWS(packedWith(mask(2, 6, 1), {}), shape);
  CHECK_THROWS(packedWith({}, normals({1, 1, 3, 4}, 1)), shape);
  CHECK_THROWS(packedWith({}, normals({1, 1, 4, 3}, 1)), shape);
  CHECK_THROWS(packedWith({}, normals({6, 1, 4, 4}, 1)), shape);

  const Tensor half = toHalves(q), halfK = toHalves(k);
  CHECK_THROWS(attend(half, k, halfK), dtype);
  CHECK_THROWS(attend(half, halfK, k), dtype);
  CHECK_THROWS(attend(q, halfK, halfK), dtype);
  CHECK_THROWS(attend(half, halfK, halfK, with([](O& o) { o.bias = toHalves(normals({1, 1, 6, 5}, 1)); })), dtype);
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
    Tensor half = toHalves(normals({1, 2, 20, 9}, 1)), bad = toHalves(normals({1, 2, 20, 9}, 2));
    bad.data<BFloat16>()[7] = toBFloat16(nan);
    CHECK_THROWS(attend(half, bad, half), value);
  });
}

TEST_MAIN()
