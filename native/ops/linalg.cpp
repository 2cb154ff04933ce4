// Dense batched algebra: shapes are checked at the call; a matrix that fails has a status, and with `strict` an error.
#include "ops/linalg.h"

#include <algorithm>
#include <atomic>

#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/ops.h"

namespace topknot {
namespace {

/// Matrices of one shape.
struct Matrices {
  Tensor tensor;
  Precision precision;
  int64_t batch, rows, cols;
  bool single;

  const void* data() const { return tensor.buffer->data(); }
  int64_t least() const { return std::min(rows, cols); }
  Tensor status() const { return empty<int32_t>(tensor.device(), single ? Shape{} : Shape{batch}); }
  /// A result of as many matrices [r, c], or vectors [c].
  Tensor result(int64_t r, int64_t c) const {
    return empty(tensor.device(), tensor.dtype, single ? Shape{r, c} : Shape{batch, r, c});
  }
  Tensor result(int64_t c) const { return empty(tensor.device(), tensor.dtype, single ? Shape{c} : Shape{batch, c}); }
};

Matrices matrices(Tensor t, const char* name) {
  require(t.dtype == DType::float32 || t.dtype == DType::float64, ErrorCode::dtype, name,
          ": expected float32 or float64 but received ", std::string(text(t.dtype)));
  require(t.rank() == 2 || t.rank() == 3, ErrorCode::shape, name,
          ": expected [rows, cols] or [batch, rows, cols] but received shape ", text(t.shape));
  const int64_t rows = t.shape[t.rank() - 2], cols = t.shape[t.rank() - 1];
  require(std::max(rows, cols) <= 1 << 20, ErrorCode::range, name, ": expected at most ", 1 << 20,
          " rows and columns but received shape ", text(t.shape));
  const Precision precision = t.dtype == DType::float64 ? Precision::float64 : Precision::float32;
  const bool single = t.rank() == 2;
  const int64_t batch = single ? 1 : t.shape[0];
  return {std::move(t), precision, batch, rows, cols, single};
}

Matrices squareMatrices(Tensor t, const char* name) {
  Matrices m = matrices(std::move(t), name);
  require(m.rows == m.cols, ErrorCode::shape, name, ": expected square matrices but received shape ",
          text(m.tensor.shape));
  return m;
}

/// How many right-hand sides b has: [n] or [n, rhs] for each matrix of a.
int64_t rightHandSides(const Matrices& a, const char* nameOfA, const Tensor& b) {
  require(b.dtype == a.tensor.dtype, ErrorCode::dtype, "b: expected ", std::string(text(a.tensor.dtype)),
          ", the element type of ", nameOfA, ", but received ", std::string(text(b.dtype)));
  require(b.device() == a.tensor.device(), ErrorCode::device, "b: expected to be on device '", text(a.tensor.device()),
          "', as ", nameOfA, " is, but is on '", text(b.device()), "'");
  const int lead = a.single ? 0 : 1;
  const bool fits =
      (b.rank() == lead + 1 || b.rank() == lead + 2) && (a.single || b.shape[0] == a.batch) && b.shape[lead] == a.rows;
  const std::string start = a.single ? "[" : concat("[", a.batch, ", ");
  require(fits, ErrorCode::shape, "b: expected shape ", start, a.rows, "] or ", start, a.rows, ", columns] for ",
          nameOfA, " of shape ", text(a.tensor.shape), " but received ", text(b.shape));
  return b.rank() == lead + 2 ? b.shape[lead + 1] : 1;
}

void wait(const Tensor& t) {
  if (t.pending) t.pending->wait();
}

/// A tensor like t: in its memory when `overwrite` is set and the caller's handle is all else that holds it.
Tensor resultLike(const Tensor& t, bool overwrite) {
  constexpr long argument = 1, handle = 1;
  const bool own = t.buffer->ownBytes() == t.buffer->bytes() && !t.pending;
  if (!overwrite || !own || t.buffer.use_count() > argument + handle) return empty(t.device(), t.dtype, t.shape);
  std::atomic_thread_fence(std::memory_order_acquire);  // behind the last read of whoever let go of it
  return t;
}

using Describe = std::string (*)(int32_t status, int64_t rows);

std::string describeCommon(int32_t status, int64_t) {
  return status == notFinite ? "holds or results in numbers that are not finite"
                             : "needs more sweeps of the iteration than are made";
}

std::string describeSingular(int32_t status, int64_t rows) {
  return status < 0 ? describeCommon(status, rows) : concat("is singular: pivot ", status, " of ", rows, " is zero");
}

std::string describePositiveDefinite(int32_t status, int64_t rows) {
  if (status < 0) return describeCommon(status, rows);
  return concat("is not positive definite: pivot ", status, " of ", rows, " is not positive");
}

void requireSolved(const Tensor& made, int64_t rows, const char* name, Describe describe) {
  const Tensor status = copyTo(made, Device{});
  int64_t first = -1, failed = 0;
  for (int64_t m = 0; m < status.count(); ++m) {
    if (status.data<int32_t>()[m] == solved) continue;
    if (first < 0) first = m;
    ++failed;
  }
  if (failed == 0) return;
  const std::string reason = describe(status.data<int32_t>()[first], rows);
  if (status.rank() == 0) fail(ErrorCode::value, name, ": the matrix ", reason);
  fail(ErrorCode::value, name, ": matrix ", first, " of ", status.count(), " ", reason, "; ", failed,
       " failed in all: `status` tells which, and without `strict` the others are there to read");
}

/// Queues `work`, which fills `status` and the results; they are all of what it returns.
template <typename Work>
void queue(Stream& stream, const Matrices& a, const char* name, const LinalgOptions& options, Describe describe,
           Tensor& status, std::initializer_list<Tensor*> results, Work&& work) {
  status.pending = stream.enqueue(std::forward<Work>(work));
  auto done = status.pending;
  if (options.strict) {
    done = stream.enqueue([status, rows = a.rows, name, describe](const Exec&) {
      wait(status);
      requireSolved(status, rows, name, describe);
    });
  }
  for (Tensor* t : results) t->pending = done;
}

Solution solveByCholesky(Stream& stream, Tensor matrix, const char* name, bool factored, Tensor b,
                         const LinalgOptions& options) {
  const Matrices a = squareMatrices(std::move(matrix), name);
  const int64_t rhs = rightHandSides(a, name, b);
  Solution result{resultLike(b, options.overwrite), a.status()};
  queue(stream, a, name, options, describePositiveDefinite, result.status, {&result.x},
        [a, b, rhs, factored, x = result.x, status = result.status](const Exec& exec) {
          wait(a.tensor);
          wait(b);
          run(a.tensor.device(), &Backend::choleskySolve, "choleskySolve", exec,
              CholeskySolveArgs{a.precision, a.batch, a.rows, rhs, a.data(), factored, b.buffer->data(),
                                x.buffer->data(), status.data<int32_t>()});
        });
  return result;
}

}  // namespace

namespace ops {

Factor cholesky(Stream& stream, Tensor a, LinalgOptions options) {
  const Matrices in = squareMatrices(std::move(a), "a");
  Factor result{resultLike(in.tensor, options.overwrite), in.status()};
  queue(stream, in, "a", options, describePositiveDefinite, result.status, {&result.factor},
        [in, result](const Exec& exec) {
          wait(in.tensor);
          run(in.tensor.device(), &Backend::cholesky, "cholesky", exec,
              CholeskyArgs{in.precision, in.batch, in.rows, in.data(), result.factor.buffer->data(),
                           result.status.data<int32_t>()});
        });
  return result;
}

Solution choleskySolve(Stream& stream, Tensor factor, Tensor b, LinalgOptions options) {
  return solveByCholesky(stream, std::move(factor), "factor", true, std::move(b), options);
}

Solution solvePositiveDefinite(Stream& stream, Tensor a, Tensor b, LinalgOptions options) {
  return solveByCholesky(stream, std::move(a), "a", false, std::move(b), options);
}

Solution luSolve(Stream& stream, Tensor a, Tensor b, LinalgOptions options) {
  const Matrices in = squareMatrices(std::move(a), "a");
  const int64_t rhs = rightHandSides(in, "a", b);
  Solution result{resultLike(b, options.overwrite), in.status()};
  queue(stream, in, "a", options, describeSingular, result.status, {&result.x}, [in, b, rhs, result](const Exec& exec) {
    wait(in.tensor);
    wait(b);
    run(in.tensor.device(), &Backend::luSolve, "luSolve", exec,
        LuSolveArgs{in.precision, in.batch, in.rows, rhs, in.data(), b.buffer->data(), result.x.buffer->data(),
                    result.status.data<int32_t>()});
  });
  return result;
}

QrFactors qr(Stream& stream, Tensor a, LinalgOptions options) {
  const Matrices in = matrices(std::move(a), "a");
  QrFactors result{in.result(in.rows, in.least()), in.result(in.least(), in.cols), in.status()};
  queue(stream, in, "a", options, describeCommon, result.status, {&result.q, &result.r},
        [in, result](const Exec& exec) {
          wait(in.tensor);
          run(in.tensor.device(), &Backend::qr, "qr", exec,
              QrArgs{in.precision, in.batch, in.rows, in.cols, in.data(), result.q.buffer->data(),
                     result.r.buffer->data(), result.status.data<int32_t>()});
        });
  return result;
}

EigenPairs eigh(Stream& stream, Tensor a, LinalgOptions options) {
  const Matrices in = squareMatrices(std::move(a), "a");
  EigenPairs result{in.result(in.rows), in.result(in.rows, in.rows), in.status()};
  queue(stream, in, "a", options, describeCommon, result.status, {&result.values, &result.vectors},
        [in, result](const Exec& exec) {
          wait(in.tensor);
          run(in.tensor.device(), &Backend::eigh, "eigh", exec,
              EighArgs{in.precision, in.batch, in.rows, in.data(), result.values.buffer->data(),
                       result.vectors.buffer->data(), result.status.data<int32_t>()});
        });
  return result;
}

SingularTriples svd(Stream& stream, Tensor a, LinalgOptions options) {
  const Matrices in = matrices(std::move(a), "a");
  SingularTriples result{in.result(in.rows, in.least()), in.result(in.least()), in.result(in.least(), in.cols),
                         in.status()};
  queue(stream, in, "a", options, describeCommon, result.status, {&result.u, &result.s, &result.vt},
        [in, result](const Exec& exec) {
          wait(in.tensor);
          run(in.tensor.device(), &Backend::svd, "svd", exec,
              SvdArgs{in.precision, in.batch, in.rows, in.cols, in.data(), result.u.buffer->data(),
                      result.s.buffer->data(), result.vt.buffer->data(), result.status.data<int32_t>()});
        });
  return result;
}

}  // namespace ops
}  // namespace topknot
