// Scores of the random baseline: uniform in [0, 1), a pure function of (seed, user, item).
#include "core/random.h"
#include "ops/ops.h"

namespace topknot {
namespace {

float randomScore(int64_t seed, int32_t user, int64_t item) {
  const auto bits = philox(static_cast<uint64_t>(seed), static_cast<uint64_t>(user), static_cast<uint64_t>(item));
  return static_cast<float>(bits[0] >> 8) * 0x1p-24f;
}

}  // namespace

namespace ops {

Tensor randomScores(Job& job, int64_t seed, Tensor users, int64_t items) {
  expect(users, "users", DType::int32, 1);
  Tensor out = Tensor::host<float>({users.count(), items});
  parallelFor(out.count(), 1 << 14, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      out.data<float>()[i] = randomScore(seed, users.data<int32_t>()[i / items], i % items);
  });
  job.checkCancelled();
  return out;
}

Tensor randomPairScores(Job& job, int64_t seed, Tensor users, Tensor items) {
  expect(users, "users", DType::int32, 1);
  expect(items, "items", DType::int32, 1);
  require(users.count() == items.count(), ErrorCode::shape, "items: expected ", users.count(),
          " rows, as many as users, but received ", items.count());
  Tensor out = Tensor::host<float>({users.count()});
  parallelFor(out.count(), 1 << 14, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      out.data<float>()[i] = randomScore(seed, users.data<int32_t>()[i], items.data<int32_t>()[i]);
  });
  job.checkCancelled();
  return out;
}

}  // namespace ops
}  // namespace topknot
