// The CUDA kernels of embedding tables under the SIMT emulator, and on the GPUs of this machine if there are any,
// against the CPU backend, which embedding_test and embedding_backward_test hold against float64.
#include <cmath>
#include <cstdlib>
#include <functional>

#include "core/random.h"
#include "cuda/kernels/embedding_gradient.cuh"
#include "test/emulated.h"
#include "test/placed.h"

using namespace topknot;
using topknot::test::emulate;
using topknot::test::Placed;

namespace {

constexpr RowFormat formats[] = {RowFormat::float32, RowFormat::float16, RowFormat::bfloat16, RowFormat::int8,
                                 RowFormat::int4};
constexpr BagMode modes[] = {BagMode::sum, BagMode::mean, BagMode::max};

/// A table in some format and bags of many lengths over it, empty ones and runs of one id among them.
struct Problem {
  int64_t rows, cols, bags, padding = -1;
  RowFormat format;
  std::vector<uint8_t> table;
  std::vector<float> scale, bias, weights, gradient;
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets{0};

  Problem(int64_t rows, int64_t cols, int64_t bags, RowFormat format, uint64_t seed = 1)
      : rows(rows), cols(cols), bags(bags), format(format) {
    Random random(seed, 0);
    table.resize(static_cast<size_t>(rows * TableView{nullptr, rows, cols, format}.rowBytes()));
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float x = static_cast<float>(random.normal());
      if (format == RowFormat::float32) reinterpret_cast<float*>(table.data())[i] = x;
      else if (format == RowFormat::float16) reinterpret_cast<Float16*>(table.data())[i] = toFloat16(x);
      else if (format == RowFormat::bfloat16) reinterpret_cast<BFloat16*>(table.data())[i] = toBFloat16(x);
      else if (i < static_cast<int64_t>(table.size())) table[i] = static_cast<uint8_t>(random.bits());
    }
    for (int64_t r = 0; r < rows; ++r) {
      scale.push_back(static_cast<float>(random.uniform()) * 0.1f);
      bias.push_back(static_cast<float>(random.normal()));
    }
    for (int64_t b = 0; b < bags; ++b) {
      for (uint64_t n = random.below(b % 5 == 0 ? 70 : 5); n > 0; --n) {
        ids.push_back(static_cast<int32_t>(random.below(2) ? 1 : random.below(rows)));
        weights.push_back(static_cast<float>(random.normal()));
      }
      offsets.push_back(static_cast<int64_t>(ids.size()));
    }
    for (int64_t i = 0; i < bags * cols; ++i) gradient.push_back(static_cast<float>(random.normal()));
  }
  int64_t entries() const { return static_cast<int64_t>(ids.size()); }
  TableView view(Placed& memory) const {
    return {memory.place(table), rows, cols, format, memory.place(scale), memory.place(bias)};
  }
  BagsView bagsView(Placed& memory, bool weighted) const {
    return {memory.place(ids), memory.place(offsets), bags, weighted ? memory.place(weights) : nullptr, padding};
  }
};

bool near(const std::vector<float>& a, const std::vector<float>& b, float tolerance) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) != std::isnan(b[i])) return false;
    if (std::fabs(a[i] - b[i]) > tolerance * (1 + std::fabs(b[i]))) return false;
  }
  return true;
}

struct Bags {
  std::vector<float> out;
  std::vector<int32_t> winners;
  bool operator==(const Bags&) const = default;
};

Bags runBags(const Backend& backend, const Exec& exec, const Problem& p, BagMode mode, bool weighted) {
  Bags result{std::vector<float>(p.bags * p.cols, -7), std::vector<int32_t>(p.bags * p.cols, -7)};
  Placed memory(backend, exec);
  const EmbeddingBagArgs args{p.view(memory), p.bagsView(memory, weighted), mode, memory.place(result.out),
                              mode == BagMode::max ? memory.place(result.winners) : nullptr};
  check(backend.embeddingBag(exec, args));
  memory.fetch(result.out, args.out);
  if (args.winners) memory.fetch(result.winners, args.winners);
  return result;
}

/// What the gathered bytes or floats are.
std::vector<uint8_t> runGather(const Backend& backend, const Exec& exec, const Problem& p) {
  Placed memory(backend, exec);
  const TableView table = p.view(memory);
  const bool widened = p.format == RowFormat::int8 || p.format == RowFormat::int4;
  std::vector<uint8_t> out(static_cast<size_t>(p.entries() * (widened ? p.cols * 4 : table.rowBytes())));
  const GatherArgs args{table, memory.place(p.ids), p.entries(), memory.place(out)};
  check(backend.gather(exec, args));
  memory.fetch(out, static_cast<uint8_t*>(args.out));
  return out;
}

struct Groups {
  std::vector<int32_t> order, rows;
  std::vector<int64_t> starts;
  bool operator==(const Groups&) const = default;
};

Groups runGroups(const Backend& backend, const Exec& exec, const Problem& p) {
  Groups result{std::vector<int32_t>(p.entries()), std::vector<int32_t>(p.entries()),
                std::vector<int64_t>(p.entries() + 1)};
  std::vector<int64_t> groups{-1};
  Placed memory(backend, exec);
  const EmbeddingGroupArgs args{memory.place(p.ids),
                                p.entries(),
                                p.rows,
                                p.padding,
                                memory.place(result.order),
                                memory.place(result.rows),
                                memory.place(result.starts),
                                memory.place(groups)};
  check(backend.embeddingGroup(exec, args));
  memory.fetch(result.order, args.order);
  memory.fetch(result.rows, args.rows);
  memory.fetch(result.starts, args.starts);
  memory.fetch(groups, args.groups);
  result.rows.resize(static_cast<size_t>(groups[0]));
  result.starts.resize(static_cast<size_t>(groups[0] + 1));
  result.order.resize(static_cast<size_t>(result.starts.back()));  // behind it lies padding
  return result;
}

/// The groups of the CPU, and the bag and the weight of each of their entries.
struct Backward {
  Groups groups;
  std::vector<int32_t> bagOf, winners;
  std::vector<float> weightOf;

  Backward(const Problem& p, BagMode mode) : groups(runGroups(cpuBackend(), {}, p)) {
    std::vector<int32_t> bags(p.ids.size());
    for (int64_t b = 0; b < p.bags; ++b) {
      for (int64_t i = p.offsets[b]; i < p.offsets[b + 1]; ++i) bags[i] = static_cast<int32_t>(b);
    }
    for (const int32_t entry : groups.order) {
      bagOf.push_back(bags[entry]);
      weightOf.push_back(p.weights[entry]);
    }
    if (mode == BagMode::max) winners = runBags(cpuBackend(), {}, p, mode, false).winners;
  }
  RowGradientsView view(Placed& memory, const Problem& p) const {
    const TableView gradient{memory.place(p.gradient), p.bags, p.cols, RowFormat::float32};
    const BagsView view{memory.place(bagOf), memory.place(groups.starts), static_cast<int64_t>(groups.rows.size()),
                        winners.empty() ? memory.place(weightOf) : nullptr, -1};
    return {gradient,
            static_cast<int64_t>(bagOf.size()),
            view,
            memory.place(groups.rows),
            memory.place(groups.order),
            winners.empty() ? nullptr : memory.place(winners)};
  }
};

std::vector<float> runGradient(const Backend& backend, const Exec& exec, const Problem& p, const Backward& b) {
  std::vector<float> out(b.groups.rows.size() * static_cast<size_t>(p.cols), -7);
  Placed memory(backend, exec);
  const EmbeddingGradientArgs args{b.view(memory, p), memory.place(out)};
  check(backend.embeddingGradient(exec, args));
  memory.fetch(out, args.out);
  return out;
}

std::vector<float> runWeightGradient(const Backend& backend, const Exec& exec, const Problem& p) {
  std::vector<float> out(p.ids.size(), -7);
  Placed memory(backend, exec);
  const EmbeddingWeightGradientArgs args{p.view(memory), p.bagsView(memory, false), memory.place(p.gradient),
                                         memory.place(out)};
  check(backend.embeddingWeightGradient(exec, args));
  memory.fetch(out, args.out);
  return out;
}

struct Updated {
  std::vector<uint8_t> table;
  std::vector<float> sums, means, squares;
  bool operator==(const Updated&) const = default;
};

Updated runUpdate(const Backend& backend, const Exec& exec, const Problem& p, const Backward& b,
                  EmbeddingOptimizer optimizer) {
  const size_t cells = static_cast<size_t>(p.rows * p.cols);
  Updated result{p.table, std::vector<float>(p.rows, 0.1f), std::vector<float>(cells, 0.01f),
                 std::vector<float>(cells, 0.02f)};
  Placed memory(backend, exec);
  const EmbeddingUpdateArgs args{.rows = b.view(memory, p),
                                 .optimizer = optimizer,
                                 .rate = 0.05f,
                                 .epsilon = 1e-6f,
                                 .beta1 = 0.9f,
                                 .beta2 = 0.99f,
                                 .correction1 = 0.19f,
                                 .correction2 = 0.0199f,
                                 .table = memory.place(result.table),
                                 .format = p.format,
                                 .sums = memory.place(result.sums),
                                 .means = memory.place(result.means),
                                 .squares = memory.place(result.squares),
                                 .seed = 5,
                                 .step = 2};
  check(backend.embeddingUpdate(exec, args));
  memory.fetch(result.table, static_cast<uint8_t*>(args.table));
  memory.fetch(result.sums, args.sums);
  memory.fetch(result.means, args.means);
  memory.fetch(result.squares, args.squares);
  return result;
}

/// The stored numbers as floats.
std::vector<float> floats(const Problem& p, const std::vector<uint8_t>& table) {
  std::vector<float> out;
  for (int64_t i = 0; i < p.rows * p.cols; ++i) {
    if (p.format == RowFormat::float16) out.push_back(toFloat(reinterpret_cast<const Float16*>(table.data())[i]));
    else if (p.format == RowFormat::bfloat16)
      out.push_back(toFloat(reinterpret_cast<const BFloat16*>(table.data())[i]));
    else out.push_back(reinterpret_cast<const float*>(table.data())[i]);
  }
  return out;
}

void checkForward(const Problem& p, const std::function<Bags(BagMode, bool)>& bagsOf) {
  for (const BagMode mode : modes) {
    for (const bool weighted : {false, true}) {
      if (weighted && mode != BagMode::sum) continue;
      const Bags got = bagsOf(mode, weighted), expected = runBags(cpuBackend(), {}, p, mode, weighted);
      const bool ok = near(got.out, expected.out, 2e-6f) && (mode != BagMode::max || got.winners == expected.winners);
      CHECK(ok);
      if (!ok)
        std::printf("  format %d, %ld columns, mode %d\n", static_cast<int>(p.format), static_cast<long>(p.cols),
                    static_cast<int>(mode));
    }
  }
}

}  // namespace

TEST(bags) {
  for (const RowFormat format : formats) {
    for (const int64_t cols : {2, 34, 64, 68, 132, 200}) {
      Problem p(17, cols, 12, format, static_cast<uint64_t>(cols));
      for (const int64_t padding : {-1, 1}) {
        p.padding = padding;
        checkForward(p, [&](BagMode mode, bool weighted) {
          return emulate([&](const Backend& gpu, const Exec& exec) { return runBags(gpu, exec, p, mode, weighted); });
        });
      }
    }
  }
  const Problem odd(9, 33, 7, RowFormat::float32);
  checkForward(odd, [&](BagMode mode, bool weighted) {
    return emulate([&](const Backend& gpu, const Exec& exec) { return runBags(gpu, exec, odd, mode, weighted); });
  });
}

TEST(gathersTheSameBytes) {
  for (const RowFormat format : formats) {
    for (const int64_t cols : {2, 6, 64, 130}) {
      const Problem p(11, cols, 9, format);
      const auto got = emulate([&](const Backend& gpu, const Exec& exec) { return runGather(gpu, exec, p); });
      const auto expected = runGather(cpuBackend(), {}, p);
      if (format == RowFormat::int8 || format == RowFormat::int4) {
        const auto asFloats = [](const std::vector<uint8_t>& bytes) {
          const float* data = reinterpret_cast<const float*>(bytes.data());
          return std::vector<float>(data, data + bytes.size() / 4);
        };
        CHECK(near(asFloats(got), asFloats(expected), 1e-6f));
      } else {
        CHECK(got == expected);
      }
    }
  }
}

TEST(groups) {
  for (const int64_t padding : {-1, 1, 3}) {
    Problem p(40, 2, 50, RowFormat::float32);
    p.padding = padding;
    const auto grouped = [&](const Backend& gpu, const Exec& exec) { return runGroups(gpu, exec, p); };
    CHECK(emulate(grouped) == runGroups(cpuBackend(), {}, p));
  }
  Problem padded(5, 2, 3, RowFormat::float32);  // nothing but padding
  padded.padding = 1;
  std::fill(padded.ids.begin(), padded.ids.end(), 1);
  const Groups none = emulate([&](const Backend& gpu, const Exec& exec) { return runGroups(gpu, exec, padded); });
  CHECK(none.rows.empty() && none.starts == std::vector<int64_t>{0});
  const Problem empty(5, 2, 0, RowFormat::float32);
  CHECK(emulate([&](const Backend& gpu, const Exec& exec) { return runGroups(gpu, exec, empty); }).rows.empty());
}

TEST(gradients) {
  for (const int64_t cols : {2, 33, 64, 132}) {
    for (const BagMode mode : {BagMode::sum, BagMode::max}) {
      const Problem p(9, cols, 140, RowFormat::float32);  // row 1 is in more entries than one segment has
      const Backward b(p, mode);
      CHECK(b.bagOf.size() > 2 * cuda::segmentEntries);
      const auto got = emulate([&](const Backend& gpu, const Exec& exec) { return runGradient(gpu, exec, p, b); });
      CHECK(near(got, runGradient(cpuBackend(), {}, p, b), 1e-4f));
    }
  }
}

TEST(longGroupsThatShareASegment) {
  Problem p(3, 4, 1, RowFormat::float32);
  for (const int64_t first : {cuda::segmentEntries + 1, cuda::segmentEntries + 70, 2 * cuda::segmentEntries}) {
    p.ids.assign(static_cast<size_t>(first), 0);
    p.ids.resize(static_cast<size_t>(first + cuda::segmentEntries + 40), 1);
    p.ids.resize(static_cast<size_t>(first + 2 * cuda::segmentEntries + 100), 2);
    p.weights.assign(p.ids.size(), 0.5f);
    p.weights[5] = 3.0f;
    p.offsets = {0, p.entries()};
    const Backward b(p, BagMode::sum);
    const auto got = emulate([&](const Backend& gpu, const Exec& exec) { return runGradient(gpu, exec, p, b); });
    CHECK(near(got, runGradient(cpuBackend(), {}, p, b), 1e-5f));
  }
}

TEST(weightGradients) {
  for (const RowFormat format : formats) {
    Problem p(17, 70, 12, format);
    p.padding = 1;
    const auto got = emulate([&](const Backend& gpu, const Exec& exec) { return runWeightGradient(gpu, exec, p); });
    CHECK(near(got, runWeightGradient(cpuBackend(), {}, p), 1e-5f));
  }
}

TEST(updates) {
  for (const RowFormat format : {RowFormat::float32, RowFormat::float16, RowFormat::bfloat16}) {
    for (const int64_t cols : {3, 64, 140}) {
      const Problem p(9, cols, 60, format);
      const Backward b(p, BagMode::sum);
      for (const auto optimizer : {EmbeddingOptimizer::sgd, EmbeddingOptimizer::adagrad, EmbeddingOptimizer::adam}) {
        const Updated got =
            emulate([&](const Backend& gpu, const Exec& exec) { return runUpdate(gpu, exec, p, b, optimizer); });
        const Updated expected = runUpdate(cpuBackend(), {}, p, b, optimizer);
        // A 16-bit number may be rounded to its other neighbour where the float32 value differs in the last bits.
        const float tolerance = format == RowFormat::float32 ? 1e-4f : format == RowFormat::float16 ? 2e-3f : 1e-2f;
        CHECK(near(floats(p, got.table), floats(p, expected.table), tolerance));
        CHECK(near(got.sums, expected.sums, 1e-4f));
        CHECK(near(got.means, expected.means, 1e-4f) && near(got.squares, expected.squares, 1e-4f));
        CHECK(got.table != p.table);
      }
    }
  }
}

TEST(onTheGpusOfThisMachine) {
  const std::vector<DeviceInfo> all = devices();
  if (std::getenv("TOPKNOT_CUDA_BUILT")) CHECK(cudaProblem().find("plugin is not") == std::string::npos);
  for (size_t i = 1; i < all.size(); ++i) {
    const Exec exec{.device = all[i].device.index};
    const Backend& gpu = backendOf(all[i].device);
    for (const RowFormat format : formats) {
      const Problem p(5000, 128, 3000, format);
      checkForward(p, [&](BagMode mode, bool weighted) { return runBags(gpu, exec, p, mode, weighted); });
    }
    const Problem p(5000, 64, 3000, RowFormat::float32);
    CHECK(runGroups(gpu, exec, p) == runGroups(cpuBackend(), {}, p));
    const Backward b(p, BagMode::sum);
    CHECK(near(runGradient(gpu, exec, p, b), runGradient(cpuBackend(), {}, p, b), 1e-3f));
    for (const auto optimizer : {EmbeddingOptimizer::sgd, EmbeddingOptimizer::adagrad, EmbeddingOptimizer::adam}) {
      CHECK(near(floats(p, runUpdate(gpu, exec, p, b, optimizer).table),
                 floats(p, runUpdate(cpuBackend(), {}, p, b, optimizer).table), 1e-3f));
    }
  }
}

TEST_MAIN()
