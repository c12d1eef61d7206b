// quantization_config of config.json, in the dialects of compressed-tensors, AutoAWQ and fine-grained FP8.
#pragma once

#include "model/config.h"
#include "model/json_object.h"

namespace qwenbench::model {

/// Throws InputError naming the key for a method, format, width or strategy that this program cannot run.
QuantizationConfig read_quantization_config(const JsonObject& object);

}  // namespace qwenbench::model
