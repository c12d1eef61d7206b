#include "model/dummy_values.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "base/thread_pool.h"

namespace qwenbench::model {
namespace {

constexpr float kWeightStd = 0.02f;
constexpr float kInt4Scale = 0.004f;   // uniform codes less their zero point have a standard deviation near 5
constexpr float kFp8CodeStd = 100.0f;  // fills E4M3's range of 448 up to 3.5 standard deviations

/// SplitMix64's output function (Steele, Lea, Flood 2014): a bijection that turns a counter into random bits.
std::uint64_t mix(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

/// FNV-1a.
std::uint64_t hash_name(const std::string& name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

/// Random numbers by position.
class Random {
 public:
  Random(const std::string& name, std::uint64_t seed) : key_(mix(seed) ^ hash_name(name)) {}

  std::uint64_t bits(std::size_t position) const { return mix(key_ + position * 0x9e3779b97f4a7c15u); }
  float uniform(std::size_t position) const { return static_cast<float>(bits(position) >> 40) * 0x1p-24f; }

  /// Mean 0, standard deviation 1: the sum of four uniform numbers, within +-3.5.
  float normal(std::size_t position) const {
    const std::uint64_t value = bits(position);
    const auto sum =
        static_cast<std::int32_t>((value & 0xffff) + (value >> 16 & 0xffff) + (value >> 32 & 0xffff) + (value >> 48));
    return static_cast<float>(sum - 131070) * (1.0f / 37837.0f);
  }

 private:
  std::uint64_t key_;
};

/// bytes become value(0), value(1), ...: by position, so that it does not matter which thread makes them.
template <class T, class Value>
void fill(std::vector<std::byte>& bytes, const Value& value) {
  constexpr std::size_t kEach = std::size_t{1} << 20;  // elements that are worth a thread
  const std::size_t count = bytes.size() / sizeof(T);
  ThreadPool pool(static_cast<int>(std::clamp<std::size_t>(count / kEach, 1, available_cores())));
  pool.parallel_for(static_cast<std::int64_t>(count), [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      const auto element = static_cast<T>(value(i));
      std::memcpy(bytes.data() + i * sizeof(T), &element, sizeof(T));
    }
  });
}

template <class Value>
void fill_floats(std::vector<std::byte>& bytes, DType dtype, const Value& value) {
  switch (dtype) {
    case DType::kBF16:
      return fill<std::uint16_t>(bytes, [&](std::size_t i) { return float_to_bf16(value(i)); });
    case DType::kF16:
      return fill<std::uint16_t>(bytes, [&](std::size_t i) { return float_to_fp16(value(i)); });
    case DType::kF32:
      return fill<float>(bytes, value);
    case DType::kF8E4M3:
      return fill<std::uint8_t>(bytes, [&](std::size_t i) { return float_to_e4m3(value(i)); });
    default:
      throw std::logic_error("fill_floats: not a floating-point tensor");
  }
}

/// Shape of the tensor beside `name` whose last part is `suffix`.
const std::vector<std::int64_t>& sibling_shape(const std::string& name, const char* suffix, const TensorIndex& index) {
  return index.at(name.substr(0, name.rfind('.') + 1) + suffix).shape;
}

}  // namespace

std::vector<std::byte> dummy_values(const TensorSpec& spec, const TensorIndex& index, std::uint64_t seed) {
  const std::string& name = spec.name;
  const Random random(name, seed);
  std::vector<std::byte> bytes(TensorView{spec.dtype, spec.shape, nullptr}.bytes());
  if (name.ends_with(".weight_packed") || name.ends_with(".qweight")) {
    fill<std::uint32_t>(bytes, [&](std::size_t i) { return random.bits(i); });
  } else if (name.ends_with(".weight_zero_point") || name.ends_with(".qzeros")) {  // eight nibbles of 6 to 9
    fill<std::uint32_t>(bytes, [&](std::size_t i) { return (random.bits(i) & 0x33333333u) + 0x66666666u; });
  } else if (name.ends_with(".weight_shape")) {
    const auto& packed = sibling_shape(name, "weight_packed", index);
    fill<std::int64_t>(bytes, [&](std::size_t i) { return i == 0 ? packed[0] : packed[1] * 8; });
  } else if (name.ends_with(".weight_g_idx")) {
    const auto groups = static_cast<std::size_t>(sibling_shape(name, "weight_scale", index)[1]);
    fill<std::int32_t>(bytes, [&](std::size_t i) { return i % groups; });
  } else if (name.ends_with(".weight_scale") || name.ends_with(".scales")) {
    fill_floats(bytes, spec.dtype, [&](std::size_t i) { return kInt4Scale * (0.75f + 0.5f * random.uniform(i)); });
  } else if (name.ends_with(".weight_scale_inv")) {
    fill_floats(bytes, spec.dtype,
                [&](std::size_t i) { return kWeightStd / kFp8CodeStd * (0.75f + 0.5f * random.uniform(i)); });
  } else if (spec.dtype == DType::kF8E4M3) {
    fill_floats(bytes, spec.dtype, [&](std::size_t i) { return kFp8CodeStd * random.normal(i); });
  } else {
    const bool norm = name.ends_with("norm.weight") || name.ends_with("norm1.weight") || name.ends_with("norm2.weight");
    const float centre = norm ? 1.0f : 0.0f;
    fill_floats(bytes, spec.dtype, [&](std::size_t i) { return centre + kWeightStd * random.normal(i); });
  }
  return bytes;
}

}  // namespace qwenbench::model
