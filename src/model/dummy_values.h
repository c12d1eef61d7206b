// Seeded random content of one tensor, in the role that its name gives it. Private to src/model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/weight_source.h"

namespace qwenbench::model {

/// The bytes of `spec`. Every element depends on the seed, the tensor's name and its own position only. Dense values
/// are near normal with standard deviation 0.02, norm weights near 1, codes uniform, scales such that dequantized
/// weights are about as large as dense ones. `index` tells the shapes of the tensor's siblings.
std::vector<std::byte> dummy_values(const TensorSpec& spec, const TensorIndex& index, std::uint64_t seed);

}  // namespace qwenbench::model
