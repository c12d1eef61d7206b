#include "model/safetensors.h"

#include <cstring>

#include "model/model_files.h"
#include "model/weights.h"

using namespace qwenbench;
using namespace qwenbench::model;

namespace {

SafetensorsHeader parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes.data(), bytes.size())), "F");
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

/// One way in which a header can be wrong. Headers are padded so that data starts at a multiple of 8.
struct Hostile {
  const char* what;
  std::string header;
  std::size_t data_bytes;
  const char* message;
};

std::string padded(std::string header) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return header;
}

const Hostile kHostile[] = {
    {"overlap", "{" + tensor("a", "F32", "[2]", "[0,8]") + "," + tensor("b", "F32", "[2]", "[4,12]") + "}", 12,
     "overlap"},
    {"the same bytes twice", "{" + tensor("a", "F32", "[2]", "[0,8]") + "," + tensor("b", "F32", "[2]", "[0,8]") + "}",
     8, "overlap"},
    {"hole", "{" + tensor("a", "F32", "[1]", "[0,4]") + "," + tensor("b", "F32", "[1]", "[8,12]") + "}", 12, "unused"},
    {"hole at the start", "{" + tensor("a", "F32", "[1]", "[4,8]") + "}", 8, "unused"},
    {"beyond the file", "{" + tensor("a", "F32", "[4]", "[0,16]") + "}", 8, "cut short"},
    {"bytes behind", "{" + tensor("a", "F32", "[1]", "[0,4]") + "}", 8, "behind the last tensor"},
    {"no tensors but data", "{}", 8, "behind the last tensor"},
    {"size and shape", "{" + tensor("a", "F32", "[3]", "[0,8]") + "}", 8,
     "has 8 bytes, but its dtype and shape need 12"},
    {"size and dtype", "{" + tensor("a", "BF16", "[2]", "[0,8]") + "}", 8, "need 4"},
    {"backwards", "{" + tensor("a", "F32", "[2]", "[8,0]") + "}", 8, "backwards"},
    {"shape overflows", "{" + tensor("a", "F32", "[4294967296,4294967296,4]", "[0,0]") + "}", 0, "overflows"},
    {"shape overflows to the right size",
     "{" + tensor("a", "I8", "[4611686018427387903,4,4,4611686018427387903]", "[0,16]") + "}", 16, "overflows"},
    {"huge number", "{" + tensor("a", "F32", "[18446744073709551615]", "[0,8]") + "}", 8, "more than any file"},
    {"huge offsets", "{" + tensor("a", "F32", "[2]", "[18446744073709551608,18446744073709551615]") + "}", 8,
     "more than any file"},
    {"number beyond 64 bits", "{" + tensor("a", "F32", "[99999999999999999999999]", "[0,8]") + "}", 8, "no integer"},
    {"negative", "{" + tensor("a", "F32", "[-2]", "[0,8]") + "}", 8, "negative"},
    {"float", "{" + tensor("a", "F32", "[2.0]", "[0,8]") + "}", 8, "no integer"},
    {"too many dimensions", "{" + tensor("a", "F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") + "}", 8, "more than 8"},
    {"one offset", "{" + tensor("a", "F32", "[2]", "[8]") + "}", 8, "not 2"},
    {"three offsets", "{" + tensor("a", "F32", "[2]", "[0,8,8]") + "}", 8, "not 2"},
    {"unknown dtype", "{" + tensor("a", "F33", "[2]", "[0,8]") + "}", 8, "\"F33\" is not supported"},
    {"twice", "{" + tensor("a", "F32", "[1]", "[0,4]") + "," + tensor("a", "F32", "[1]", "[4,8]") + "}", 8,
     "tensor a: appears twice"},
    {"key twice", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     "dtype appears twice"},
    {"metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "appears twice"},
    {"no dtype", "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype is missing"},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "shape is missing"},
    {"no offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "data_offsets is missing"},
    {"unknown key", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":[1]}}", 8, "key x"},
    {"nested list", "{\"a\":{\"dtype\":\"F32\",\"shape\":[[2]],\"data_offsets\":[0,8]}}", 8, "a list"},
    {"a number as tensor", "{\"a\":1}", 0, "a number"},
    {"null", "{\"a\":null}", 0, "null"},
    {"bool", "{\"a\":{\"dtype\":true}}", 0, "true or false"},
    {"metadata not text", "{\"__metadata__\":{\"k\":1}}", 0, "a number"},
    {"deep", "{\"a\":" + std::string(100'000, '[') + "}", 0, "a list"},
    {"deep objects",
     [] {
       std::string text = "{";
       for (int i = 0; i < 50'000; ++i) text += "\"a\":{";
       return text;
     }(),
     0, "an object"},
    {"a list", "[]", 0, "not a JSON object"},
    {"nothing", "", 0, "not a JSON object"},
    {"cut", "{\"a\":{\"dtype\":\"F3", 0, "broken"},
    {"garbage behind", "{} {}", 0, "broken"},
    {"bad UTF-8", "{\"\xff\":{}}", 0, "broken"},
    {"byte order mark", "\xef\xbb\xbf{}", 0, "not a JSON object"},
    {"line breaks in a name", "{\"a\\nb\":1}", 0, "tensor a b:"},
};

}  // namespace

TEST_CASE("safetensors: hostile headers are refused with one line") {
  for (const Hostile& hostile : kHostile) {
    CAPTURE(hostile.what);
    CHECK_CONTAINS(error_of([&] { parse(safetensors_bytes(padded(hostile.header), hostile.data_bytes)); }),
                   hostile.message);
  }
  const std::string nul = "{}" + std::string(6, '\0');
  CHECK_CONTAINS(error_of([&] { parse(safetensors_bytes(nul, 0)); }), "not a JSON object");
}

TEST_CASE("safetensors: hostile header lengths") {
  CHECK_CONTAINS(error_of([] { parse(""); }), "too short");
  CHECK_CONTAINS(error_of([] { parse("1234567"); }), "too short");
  for (const std::uint64_t length : {std::uint64_t{9}, std::uint64_t{100'000'000}, std::uint64_t{100'000'001},
                                     ~std::uint64_t{0}, ~std::uint64_t{0} - 7}) {
    std::string bytes = safetensors_bytes("{}      ", 0);
    std::memcpy(bytes.data(), &length, sizeof(length));
    CHECK_CONTAINS(error_of([&] { parse(bytes); }),
                   length > 100'000'000 ? "more than the 100000000 allowed" : "cut short");
  }
}

TEST_CASE("safetensors: data that is not aligned to its elements is refused") {
  const std::string header =
      padded("{" + tensor("a", "U8", "[1]", "[0,1]") + "," + tensor("b", "F32", "[1]", "[1,5]") + "}");
  CHECK_CONTAINS(error_of([&] { parse(safetensors_bytes(header, 5)); }), "aligned");
}

TEST_CASE("safetensors: a good header") {
  const std::string header =
      padded("{\"__metadata__\":{\"format\":\"pt\"}," + tensor("b", "BF16", "[]", "[8,10]") + "," +
             tensor("a", "F32", "[2,1]", "[0,8]") + "," + tensor("empty", "F32", "[0,7]", "[10,10]") + "}");
  const SafetensorsHeader parsed = parse(safetensors_bytes(header, 10));
  CHECK(parsed.metadata.at("format") == "pt");
  REQUIRE(parsed.tensors.size() == 3);
  CHECK(parsed.tensors.at("a").shape == std::vector<std::int64_t>{2, 1});
  CHECK(parsed.tensors.at("a").begin == 8 + header.size());
  CHECK(parsed.tensors.at("b").dtype == DType::kBF16);
  CHECK(parsed.tensors.at("b").shape.empty());
}

TEST_CASE("safetensors: what we write, we read") {
  TemporaryFolder folder;
  const auto path = folder.path() / "sub" / "x.safetensors";
  write_safetensors(path,
                    {item<std::uint8_t>("codes", DType::kU8, {3}, {1, 2, 3}),
                     item<float>("logits \"1\"", DType::kF32, {2, 2}, {1, 2, 3, 4}),
                     item<std::int64_t>("ids", DType::kI64, {1}, {-5}), item<float>("none", DType::kF32, {0, 4}, {})},
                    {{"model", "tiny"}});
  const SafetensorsFile file(path);
  CHECK(file.header().metadata.at("model") == "tiny");
  CHECK(file.find("logits \"1\"")->to_floats() == std::vector<float>{1, 2, 3, 4});
  CHECK(file.find("codes")->data[2] == std::byte{3});
  CHECK(file.find("none")->bytes() == 0);
  CHECK_FALSE(file.find("other"));
  CHECK_CONTAINS(error_of([&] { (void)file.find("ids")->to_floats(); }), "I64");
}

TEST_CASE("safetensors: a writer that keeps not to its shape leaves no file") {
  TemporaryFolder folder;
  const auto path = folder.path() / "x.safetensors";
  CHECK_THROWS_AS(write_safetensors(path, {item<float>("a", DType::kF32, {3}, {1, 2})}), std::logic_error);
  CHECK_THROWS_AS(write_safetensors(path, {item<float>("a", DType::kF32, {1}, {1, 2})}), std::logic_error);
  CHECK_THROWS_AS(
      write_safetensors(path, {item<float>("a", DType::kF32, {1}, {1}), item<float>("a", DType::kF32, {1}, {1})}),
      std::logic_error);
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("safetensors: files that cannot be mapped") {
  TemporaryFolder folder;
  CHECK_CONTAINS(error_of([&] { SafetensorsFile(folder.path() / "none"); }), "No such file");
  CHECK_CONTAINS(error_of([&] { SafetensorsFile{folder.path()}; }), "not a file");
  write_file_atomically(folder.path() / "empty", "");
  CHECK_CONTAINS(error_of([&] { SafetensorsFile(folder.path() / "empty"); }), "empty");
}
