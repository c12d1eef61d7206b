// The safetensors file format: 8 bytes of header length (little-endian), a JSON header, the tensors' bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "model/mapped_file.h"
#include "model/weights.h"

namespace qwenbench::model {

/// One tensor of a file; [begin, end) are bytes from the start of the file.
struct SafetensorsEntry {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::size_t begin = 0, end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> tensors;
  std::map<std::string, std::string> metadata;
};

/// Checks and reads the header of a whole file in memory; the tensors' bytes are not touched. As strict as the
/// reference implementation (tensors cover the data exactly: no hole, no overlap, nothing behind them), and stricter in
/// four points: names are unique, keys known, ranks at most 8, data aligned to its element size. Throws InputError
/// naming `where`, the tensor and the fault. Memory is bounded by the header's length.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& where);

/// A mapped file with a checked header.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::string& path() const { return path_; }
  const SafetensorsHeader& header() const { return header_; }
  /// The view lives as long as this object.
  TensorView view(const SafetensorsEntry& entry) const;
  std::optional<TensorView> find(const std::string& name) const;

 private:
  std::string path_;
  MappedFile file_;
  SafetensorsHeader header_;
};

using AppendBytes = std::function<void(const void* data, std::size_t size)>;

/// A tensor to write: `produce` appends exactly its bytes, in as many pieces as it likes.
struct SafetensorsItem {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::function<void(const AppendBytes&)> produce;
};

/// An item that writes memory which the caller keeps until then.
SafetensorsItem safetensors_item(std::string name, const TensorView& view);

/// Writes atomically (base/atomic_file.h). Tensors are laid out by descending alignment, then name; `produce` is called
/// in that order, so nothing but one piece need be in memory. Throws InputError where the file cannot be written,
/// std::logic_error where names repeat or a `produce` appends another number of bytes than the shape says.
void write_safetensors(const std::filesystem::path& path, std::vector<SafetensorsItem> items,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace qwenbench::model
