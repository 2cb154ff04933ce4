// Which kernels the emulated GPU runs. On a real one the environment says it (TOPKNOT_SM90A), for the whole process.
#pragma once
#include <utility>

#include "cuda/sm90a.h"

namespace topknot::test {

/// Those of compute capability 9.0a, or not, as long as this lives.
class Sm90a {
 public:
  explicit Sm90a(bool on = true) : before_(std::exchange(cuda::sm90aWanted(), on)) {}
  ~Sm90a() { cuda::sm90aWanted() = before_; }
  Sm90a(const Sm90a&) = delete;
  Sm90a& operator=(const Sm90a&) = delete;

 private:
  bool before_;
};

}  // namespace topknot::test
