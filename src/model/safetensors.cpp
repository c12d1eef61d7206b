#include "model/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"

namespace qwenbench::model {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are used as they lie in the file");

constexpr std::uint64_t kMaxHeader = 100'000'000;  // the reference implementation's limit
constexpr std::size_t kMaxRank = 8;
constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3, DType::kI64, DType::kI32,
                             DType::kI16, DType::kI8,  DType::kU8,   DType::kBool,   DType::kF64};

/// Reads the header as a stream of events: memory stays bounded, depth is limited, and a repeated key is seen.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& where, std::uint64_t data_begin) : where_(where), data_begin_(data_begin) {}

  SafetensorsHeader take() { return std::move(header_); }

  bool start_object(std::size_t) override {
    if (place_ == Place::kFile) return go(Place::kTensors);
    if (place_ != Place::kTensors) return unexpected("an object");
    if (name_ == "__metadata__") return go(Place::kMetadata);
    entry_ = {};
    seen_dtype_ = seen_shape_ = seen_offsets_ = false;
    return go(Place::kTensor);
  }

  bool key(string_t& text) override {
    if (place_ == Place::kTensors) {
      name_ = text;
      if (name_ == "__metadata__" ? std::exchange(seen_metadata_, true) : header_.tensors.contains(name_)) {
        fail("appears twice");
      }
    } else {
      key_ = text;
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) finish_tensor();
    return go(place_ == Place::kTensors ? Place::kEnd : Place::kTensors);
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kTensor) return unexpected("a list");
    numbers_.clear();
    if (key_ == "shape") return once(seen_shape_), go(Place::kShape);
    if (key_ == "data_offsets") return once(seen_offsets_), go(Place::kOffsets);
    return unexpected("a list");
  }

  bool end_array() override {
    if (place_ == Place::kShape) {
      entry_.shape.assign(numbers_.begin(), numbers_.end());
    } else {
      if (numbers_.size() != 2) fail(fmt::format("data_offsets holds {} numbers, not 2", numbers_.size()));
      begin_ = numbers_[0], end_ = numbers_[1];
    }
    return go(Place::kTensor);
  }

  bool string(string_t& text) override {
    if (place_ == Place::kMetadata) {
      if (!header_.metadata.emplace(key_, text).second) fail("metadata key " + one_line(key_, 60) + " appears twice");
      return true;
    }
    if (place_ != Place::kTensor || key_ != "dtype") return unexpected("a string");
    once(seen_dtype_);
    const auto* found = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                     [&](DType dtype) { return safetensors_name(dtype) == text; });
    if (found == std::end(kDTypes)) fail(fmt::format("dtype \"{}\" is not supported", one_line(text, 40)));
    entry_.dtype = *found;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kShape && place_ != Place::kOffsets) return unexpected("a number");
    if (numbers_.size() == kMaxRank) fail(fmt::format("{} has more than {} numbers", key_, kMaxRank));
    // No file can hold 2^62 bytes; below it, sums and conversions to signed cannot overflow.
    if (value >= (std::uint64_t{1} << 62)) fail(fmt::format("{} holds {}, more than any file can hold", key_, value));
    numbers_.push_back(value);
    return true;
  }

  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return unexpected("a number that is no integer"); }
  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("true or false"); }
  bool binary(binary_t&) override { return unexpected("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& cause) override {
    throw InputError(
        fmt::format("{}: broken safetensors header at byte {}: {}", where_, position, one_line(cause.what(), 120)));
  }

 private:
  enum class Place { kFile, kTensors, kMetadata, kTensor, kShape, kOffsets, kEnd };

  bool go(Place place) {
    place_ = place;
    return true;
  }

  [[noreturn]] void fail(const std::string& message) const {
    throw InputError(
        fmt::format("{}: tensor {}: {}; the file is damaged or no checkpoint", where_, one_line(name_, 120), message));
  }

  bool unexpected(const char* what) const {
    if (place_ == Place::kFile)
      throw InputError(fmt::format("{}: the safetensors header is {}, not an object", where_, what));
    fail(fmt::format("{} where the header must not have one{}", what,
                     key_.empty() ? "" : " (key " + one_line(key_, 40) + ")"));
  }

  void once(bool& seen) const {
    if (seen) fail(key_ + " appears twice");
    seen = true;
  }

  void finish_tensor() {
    if (!seen_dtype_ || !seen_shape_ || !seen_offsets_) {
      fail(fmt::format("{} is missing", !seen_dtype_ ? "dtype" : !seen_shape_ ? "shape" : "data_offsets"));
    }
    std::uint64_t bytes = size_of(entry_.dtype);
    for (const std::int64_t size : entry_.shape) {
      if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(size), &bytes))
        fail("the size of its shape overflows");
    }
    if (begin_ > end_) fail(fmt::format("data_offsets [{}, {}] run backwards", begin_, end_));
    if (end_ - begin_ != bytes) {
      fail(fmt::format("has {} bytes, but its dtype and shape need {}", end_ - begin_, bytes));
    }
    entry_.begin = data_begin_ + begin_;
    entry_.end = data_begin_ + end_;
    if (bytes > 0 && entry_.begin % size_of(entry_.dtype) != 0) fail("its data is not aligned to its element size");
    header_.tensors.emplace(name_, std::move(entry_));
  }

  const std::string& where_;
  std::uint64_t data_begin_;
  SafetensorsHeader header_;
  Place place_ = Place::kFile;
  std::string name_, key_;
  SafetensorsEntry entry_;
  std::uint64_t begin_ = 0, end_ = 0;
  std::vector<std::uint64_t> numbers_;
  bool seen_dtype_ = false, seen_shape_ = false, seen_offsets_ = false, seen_metadata_ = false;
};

/// The tensors lie one behind the other and fill the data exactly.
void check_layout(const SafetensorsHeader& header, std::size_t data_begin, std::size_t file_size,
                  const std::string& where) {
  std::vector<const std::pair<const std::string, SafetensorsEntry>*> order;
  for (const auto& item : header.tensors) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  std::size_t position = data_begin;
  for (const auto* item : order) {
    const auto& [name, entry] = *item;
    if (entry.end > file_size) {
      throw InputError(
          fmt::format("{}: tensor {}: ends at byte {} of a file of {}; the file is cut short: fetch it again", where,
                      one_line(name, 120), entry.end, file_size));
    }
    if (entry.begin != position) {
      throw InputError(fmt::format("{}: tensor {}: {} bytes {} the tensor before it; the file is damaged", where,
                                   one_line(name, 120),
                                   entry.begin > position ? entry.begin - position : position - entry.begin,
                                   entry.begin > position ? "are unused behind" : "overlap"));
    }
    position = entry.end;
  }
  if (position != file_size) {
    throw InputError(
        fmt::format("{}: {} bytes behind the last tensor; the file is damaged", where, file_size - position));
  }
}

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& where) {
  std::uint64_t length = 0;
  if (file.size() < sizeof(length))
    throw InputError(fmt::format("{}: {} bytes, too short for a safetensors file", where, file.size()));
  std::memcpy(&length, file.data(), sizeof(length));
  if (length > kMaxHeader) {
    throw InputError(fmt::format("{}: header of {} bytes, more than the {} allowed: not a safetensors file", where,
                                 length, kMaxHeader));
  }
  if (length > file.size() - sizeof(length)) {
    throw InputError(fmt::format("{}: header of {} bytes in a file of {}; the file is cut short: fetch it again", where,
                                 length, file.size()));
  }
  const char* text = reinterpret_cast<const char*>(file.data()) + sizeof(length);
  // The JSON library would take a NUL for the end of the text, and skip a byte order mark.
  if (length == 0 || text[0] != '{' || std::memchr(text, 0, length) != nullptr) {
    throw InputError(fmt::format("{}: the header is not a JSON object: not a safetensors file", where));
  }
  HeaderReader reader(where, sizeof(length) + length);
  if (!nlohmann::json::sax_parse(text, text + length, &reader)) {
    throw InputError(fmt::format("{}: broken safetensors header", where));
  }
  SafetensorsHeader header = reader.take();
  check_layout(header, sizeof(length) + length, file.size(), where);
  return header;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path.string()), file_(path), header_(parse_safetensors(file_.bytes(), path_)) {}

TensorView SafetensorsFile::view(const SafetensorsEntry& entry) const {
  return {entry.dtype, entry.shape, file_.bytes().data() + entry.begin};
}

std::optional<TensorView> SafetensorsFile::find(const std::string& name) const {
  const auto found = header_.tensors.find(name);
  if (found == header_.tensors.end()) return std::nullopt;
  return view(found->second);
}

}  // namespace qwenbench::model
