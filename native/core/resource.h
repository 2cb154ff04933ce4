// State that outlives one call, such as an index that grows: JavaScript holds it by an opaque handle, jobs share it.
#pragma once
#include <cstddef>

namespace topknot {

class Resource {
 public:
  virtual ~Resource() = default;
  /// Memory that goes when this does, for V8 to know what its handle is worth.
  virtual size_t bytes() const = 0;
};

}  // namespace topknot
