// Every weight format against the values that its own reference library computes
// (scripts/fixtures/make_checkpoint_fixtures.py).
#include <cstring>
#include <functional>

#include "model/model_files.h"
#include "model/weights.h"

using namespace qwenbench;
using namespace qwenbench::model;

namespace {

struct Expected {
  std::string module;
  std::int64_t first_row, n, k;
  LinearSource::Kind kind;
  int group_size;
};

using Kind = LinearSource::Kind;
const Expected kExpected[] = {
    {"dense_bf16", 0, 4, 64, Kind::kDense, 0},
    {"dense_f16", 0, 4, 64, Kind::kDense, 0},
    {"dense_f32", 0, 4, 64, Kind::kDense, 0},
    {"packed_sym_g32", 0, 12, 128, Kind::kInt4, 32},
    {"packed_asym_g32", 0, 12, 128, Kind::kInt4, 32},
    {"packed_sym_g128", 0, 8, 256, Kind::kInt4, 128},
    {"packed_asym_g128", 0, 8, 256, Kind::kInt4, 128},
    {"packed_sym_actorder", 0, 8, 128, Kind::kInt4, 32},
    {"packed_asym_actorder", 0, 8, 256, Kind::kInt4, 128},
    {"packed_asym_f16", 0, 8, 128, Kind::kInt4, 32},
    {"awq_g32", 0, 32, 64, Kind::kInt4, 32},
    {"awq_g128", 0, 32, 256, Kind::kInt4, 128},
    {"fp8_block", 120, 128, 256, Kind::kFp8Block, 0},
    {"fp8_edge", 124, 132, 136, Kind::kFp8Block, 0},
};

/// The definition of a form's values, from what a backend reads: codes, groups, scales.
std::vector<float> from_parts(const LinearSource& linear, std::int64_t begin, std::int64_t end) {
  const std::int64_t k = linear.k();
  std::vector<float> out(static_cast<std::size_t>((end - begin) * k));
  if (linear.kind() == Kind::kDense) {
    const std::vector<float> all = linear.dense().to_floats();
    return {all.begin() + begin * k, all.begin() + end * k};
  }
  if (linear.kind() == Kind::kFp8Block) {
    for (std::int64_t i = 0; i < (end - begin) * k; ++i) {
      const std::int64_t row = begin + i / k, column = i % k;
      out[static_cast<std::size_t>(i)] =
          e4m3_to_float(linear.fp8_codes()[static_cast<std::size_t>(row * k + column)]) *
          linear.fp8_scales()[static_cast<std::size_t>(row / 128 * ((k + 127) / 128) + column / 128)];
    }
    return out;
  }
  const std::int64_t groups = k / linear.group_size();
  std::vector<std::uint8_t> codes(out.size()), zeros(static_cast<std::size_t>((end - begin) * groups));
  std::vector<float> scales(zeros.size());
  linear.read_codes(begin, end, codes.data());
  linear.read_groups(begin, end, scales.data(), zeros.data());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto column = static_cast<std::int64_t>(i) % k;
    const std::int64_t group = linear.group_index().empty() ? column / linear.group_size()
                                                            : linear.group_index()[static_cast<std::size_t>(column)];
    const auto at = static_cast<std::size_t>(static_cast<std::int64_t>(i) / k * groups + group);
    const float value = static_cast<float>(codes[i] - zeros[at]) * scales[at];
    out[i] = linear.scale_dtype() == DType::kBF16 ? round_to_bf16(value) : fp16_to_float(float_to_fp16(value));
  }
  return out;
}

std::vector<float> dequantized(const LinearSource& linear, std::int64_t begin, std::int64_t end) {
  std::vector<float> out(static_cast<std::size_t>((end - begin) * linear.k()));
  linear.dequantize(begin, end, out.data());
  return out;
}

}  // namespace

TEST_CASE("linear: every format dequantizes to the reference library's values, bit for bit") {
  const auto checkpoint = open_checkpoint(kFixtures / "linears");
  const SafetensorsFile expected(kFixtures / "linears" / "expected.safetensors");
  CHECK(expected.header().tensors.size() == std::size(kExpected));
  for (const Expected& test : kExpected) {
    CAPTURE(test.module);
    const auto linear = checkpoint->linear(test.module, test.n, test.k);
    CHECK(linear->kind() == test.kind);
    if (test.kind == Kind::kInt4) CHECK(linear->group_size() == test.group_size);
    const auto want = expected.find(test.module + "@" + std::to_string(test.first_row));
    REQUIRE(want);
    const std::int64_t rows = want->shape[0];
    REQUIRE(want->shape == std::vector<std::int64_t>{rows, test.k});
    const auto got = dequantized(*linear, test.first_row, test.first_row + rows);
    REQUIRE(got.size() * sizeof(float) == want->bytes());
    CHECK(std::memcmp(got.data(), want->data, want->bytes()) == 0);
  }
}

TEST_CASE("linear: the parts that backends repack say the same as dequantize, for any range of rows") {
  const auto checkpoint = open_checkpoint(kFixtures / "linears");
  for (const Expected& test : kExpected) {
    CAPTURE(test.module);
    const auto linear = checkpoint->linear(test.module, test.n, test.k);
    const auto all = dequantized(*linear, 0, test.n);
    CHECK(from_parts(*linear, 0, test.n) == all);
    const std::vector<float> middle(all.begin() + 1 * test.k, all.begin() + (test.n - 1) * test.k);
    CHECK(dequantized(*linear, 1, test.n - 1) == middle);
    CHECK(from_parts(*linear, 1, test.n - 1) == middle);
    CHECK(dequantized(*linear, 2, 2).empty());
  }
}

TEST_CASE("linear: an accessor of another kind is a programmer's error") {
  const auto checkpoint = open_checkpoint(kFixtures / "linears");
  const auto dense = checkpoint->linear("dense_bf16", 4, 64);
  CHECK_THROWS_AS((void)dense->group_size(), std::logic_error);
  CHECK_THROWS_AS((void)dense->fp8_codes(), std::logic_error);
  CHECK_THROWS_AS((void)checkpoint->linear("awq_g32", 32, 64)->dense(), std::logic_error);
}

namespace {

/// A checkpoint of one module `m` whose tensors are those of a fixture module, changed by `change`.
using Tensors = std::map<std::string, std::pair<TensorView, std::vector<std::byte>>>;

std::string error_after(const std::string& module, std::int64_t n, std::int64_t k,
                        const std::function<void(Tensors&)>& change) {
  const SafetensorsFile source(kFixtures / "linears" / "model.safetensors");
  Tensors tensors;
  for (const auto& [name, entry] : source.header().tensors) {
    if (!name.starts_with(module + ".")) continue;
    const TensorView view = source.view(entry);
    tensors[std::string("m").append(name, module.size())] = {view, {view.data, view.data + view.bytes()}};
  }
  change(tensors);
  std::vector<SafetensorsItem> items;
  for (auto& [name, tensor] : tensors) {
    const auto& [view, bytes] = tensor;
    items.push_back(item<std::byte>(name, view.dtype, view.shape, bytes));
  }
  TemporaryFolder folder;
  std::filesystem::copy(kFixtures / "linears" / "config.json", folder.path() / "config.json");
  write_safetensors(folder.path() / "model.safetensors", items);
  const auto checkpoint = open_checkpoint(folder.path());
  const std::string text = error_of([&] { (void)checkpoint->linear("m", n, k); });
  CHECK_CONTAINS(text, folder.path().string());
  return text;
}

/// The same element count in another shape or type.
void retype(Tensors& tensors, const std::string& name, DType dtype, std::vector<std::int64_t> shape) {
  auto& [view, bytes] = tensors.at(name);
  view.dtype = dtype, view.shape = std::move(shape);
  bytes.resize(view.bytes());
}

void set_word(Tensors& tensors, const std::string& name, std::size_t index, std::int32_t value) {
  std::memcpy(tensors.at(name).second.data() + index * 4, &value, 4);
}

const std::string kPacked = "packed_asym_g32";

}  // namespace

TEST_CASE("linear: wrong shapes and types name the tensor") {
  CHECK_CONTAINS(error_after(kPacked, 12, 64, [](Tensors&) {}),
                 "m.weight_shape says [12, 128], config.json asks for [12, 64]");
  CHECK_CONTAINS(error_after(kPacked, 12, 128,
                             [](Tensors& t) {
                               retype(t, "m.weight_packed", DType::kI32, {12, 15});
                             }),
                 "m.weight_packed has shape [12, 15], config.json asks for [12, 16]");
  CHECK_CONTAINS(error_after(kPacked, 12, 128,
                             [](Tensors& t) {
                               retype(t, "m.weight_packed", DType::kF32, {12, 16});
                             }),
                 "m.weight_packed has dtype F32, must be I32");
  CHECK_CONTAINS(error_after(kPacked, 12, 128,
                             [](Tensors& t) {
                               retype(t, "m.weight_zero_point", DType::kI32, {1, 4});
                             }),
                 "m.weight_zero_point has shape [1, 4], config.json asks for [2, 4]");
  CHECK_CONTAINS(error_after(kPacked, 12, 128,
                             [](Tensors& t) {
                               retype(t, "m.weight_scale", DType::kI32, {12, 4});
                             }),
                 "m.weight_scale has dtype I32, must be BF16 or F16 or F32");
  CHECK_CONTAINS(error_after(kPacked, 12, 128,
                             [](Tensors& t) {
                               retype(t, "m.weight_scale", DType::kBF16, {12, 3});
                             }),
                 "does not divide 128 columns");
  CHECK_CONTAINS(error_after(kPacked, 12, 128,
                             [](Tensors& t) {
                               retype(t, "m.weight_scale", DType::kBF16, {12, 0});
                             }),
                 "does not divide 128 columns");
  CHECK_CONTAINS(error_after(kPacked, 12, 128, [](Tensors& t) { retype(t, "m.weight_scale", DType::kBF16, {48}); }),
                 "does not divide");
  CHECK_CONTAINS(error_after(kPacked, 12, 128, [](Tensors& t) { t.erase("m.weight_scale"); }),
                 "m.weight_scale is missing");
  CHECK_CONTAINS(error_after("awq_g32", 32, 64,
                             [](Tensors& t) {
                               retype(t, "m.qweight", DType::kI32, {64, 8});
                             }),
                 "m.qweight has shape");
  CHECK_CONTAINS(error_after("awq_g32", 33, 64, [](Tensors&) {}), "multiple of 8");
  CHECK_CONTAINS(error_after("awq_g32", 32, 64, [](Tensors& t) { t.erase("m.qzeros"); }), "m.qzeros is missing");
  CHECK_CONTAINS(error_after("fp8_block", 128, 256,
                             [](Tensors& t) {
                               retype(t, "m.weight_scale_inv", DType::kF32, {2, 1});
                             }),
                 "m.weight_scale_inv has shape [2, 1], config.json asks for [1, 2]");
  CHECK_CONTAINS(error_after("dense_bf16", 4, 64,
                             [](Tensors& t) {
                               retype(t, "m.weight", DType::kI64, {4, 64});
                             }),
                 "dtype I64");
  CHECK_CONTAINS(error_after("dense_bf16", 64, 4, [](Tensors&) {}), "has shape [4, 64], config.json asks for [64, 4]");
}

TEST_CASE("linear: a group index that names no group, or groups of unequal size") {
  const std::string module = "packed_sym_actorder";
  CHECK_CONTAINS(error_after(module, 8, 128, [](Tensors& t) { set_word(t, "m.weight_g_idx", 5, 4); }),
                 "holds group 4, must be 0 to 3");
  CHECK_CONTAINS(error_after(module, 8, 128, [](Tensors& t) { set_word(t, "m.weight_g_idx", 5, -1); }),
                 "holds group -1");
  CHECK_CONTAINS(error_after(module, 8, 128,
                             [](Tensors& t) {
                               for (std::size_t i = 0; i < 128; ++i) set_word(t, "m.weight_g_idx", i, 0);
                             }),
                 "gives a group 128 columns, must be 32");
}

TEST_CASE("linear: no form, two forms, or one that is not read") {
  CHECK_CONTAINS(error_after(kPacked, 12, 128, [](Tensors& t) { t["m.qweight"] = t["m.weight_packed"]; }),
                 "module m is stored in two forms, compressed-tensors pack-quantized and AutoAWQ GEMM");
  CHECK_CONTAINS(error_after("dense_bf16", 4, 64, [](Tensors& t) { t["m.weight_packed"] = t["m.weight"]; }),
                 "two forms, dense and");
  CHECK_CONTAINS(error_after("fp8_block", 128, 256, [](Tensors& t) { t.erase("m.weight_scale_inv"); }),
                 "without blocks");
  CHECK_CONTAINS(error_after("fp8_block", 128, 256, [](Tensors& t) { t.erase("m.weight"); }), "m.weight is missing");
  CHECK_CONTAINS(error_after("dense_bf16", 4, 64, [](Tensors& t) { t["m.weight_scale"] = t["m.weight"]; }),
                 "without blocks");
  CHECK_CONTAINS(error_after("dense_bf16", 4, 64, [](Tensors& t) { t["m.weight_scale_2"] = t["m.weight"]; }),
                 "not supported");
  TemporaryFolder folder;
  std::filesystem::copy(kFixtures / "linears" / "config.json", folder.path() / "config.json");
  write_safetensors(folder.path() / "model.safetensors", {item<float>("other.weight", DType::kF32, {1}, {1})});
  CHECK_CONTAINS(error_of([&] { (void)open_checkpoint(folder.path())->linear("m", 4, 4); }),
                 "module m has no weight in a known form");
}
