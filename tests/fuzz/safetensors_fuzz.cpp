// Any bytes as a safetensors file: parsed, or refused with an InputError; nothing else may happen.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "base/error.h"
#include "model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  try {
    const auto header = qwenbench::model::parse_safetensors(file, "input");
    for (const auto& [name, entry] : header.tensors) {
      // What a reader would touch lies inside the file.
      if (entry.begin > entry.end || entry.end > size) std::abort();
      const qwenbench::model::TensorView view{entry.dtype, entry.shape, file.data() + entry.begin};
      if (view.bytes() != entry.end - entry.begin) std::abort();
    }
  } catch (const qwenbench::InputError&) {
  }
  return 0;
}
