// Every operation of ops.def, declared. They check arguments, allocate results and call the backend's kernels.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "core/csr.h"
#include "core/fields.h"
#include "core/job.h"
#include "core/stream.h"
#include "core/tensor.h"
#include "models/als.h"
#include "models/biased_mf.h"
#include "models/bpr.h"
#include "models/ease.h"
#include "models/logistic_mf.h"
#include "models/neighbours.h"
#include "models/nmf.h"
#include "models/svd.h"
#include "models/svdpp.h"
#include "ops/attention.h"
#include "ops/blocks.h"
#include "ops/embedding.h"
#include "ops/hnsw_index.h"
#include "ops/index.h"
#include "ops/linalg.h"
#include "ops/linear.h"
#include "ops/metrics.h"
#include "ops/random_values.h"
#include "ops/types.h"

namespace topknot::ops {

#define OP(R, name, parameters) R name parameters;
#include "ops/ops.def"
#undef OP

}  // namespace topknot::ops
