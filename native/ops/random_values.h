// How parameters that learn begin.
#pragma once
#include "core/fields.h"

namespace topknot {

enum class Distribution { normal, uniform };
TOPKNOT_ENUM(Distribution, "normal", "uniform")

}  // namespace topknot
