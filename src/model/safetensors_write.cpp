#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/atomic_file.h"
#include "model/safetensors.h"

namespace qwenbench::model {
namespace {

std::size_t byte_size(const SafetensorsItem& item) {
  std::size_t bytes = size_of(item.dtype);
  for (const std::int64_t size : item.shape) bytes *= static_cast<std::size_t>(size);
  return bytes;
}

/// Length, JSON and padding: data starts at a multiple of 8, so that every tensor is aligned in a mapped file.
std::string header_bytes(const std::vector<SafetensorsItem>& items,
                         const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t offset = 0;
  for (const SafetensorsItem& item : items) {
    if (header.contains(item.name)) throw std::logic_error("write_safetensors: two tensors named " + item.name);
    const std::size_t end = offset + byte_size(item);
    header[item.name] = {
        {"dtype", safetensors_name(item.dtype)}, {"shape", item.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text;
}

}  // namespace

SafetensorsItem safetensors_item(std::string name, const TensorView& view) {
  return {std::move(name), view.dtype, view.shape,
          [view](const AppendBytes& append) { append(view.data, view.bytes()); }};
}

void write_safetensors(const std::filesystem::path& path, std::vector<SafetensorsItem> items,
                       const std::map<std::string, std::string>& metadata) {
  std::sort(items.begin(), items.end(), [](const SafetensorsItem& a, const SafetensorsItem& b) {
    return std::pair(size_of(b.dtype), std::string_view(a.name)) <
           std::pair(size_of(a.dtype), std::string_view(b.name));
  });
  const std::string header = header_bytes(items, metadata);
  write_file_atomically(path, [&](const AppendBytes& append) {
    append(header.data(), header.size());
    for (const SafetensorsItem& item : items) {
      std::size_t left = byte_size(item);
      item.produce([&](const void* data, std::size_t size) {
        if (size > left) throw std::logic_error("write_safetensors: too many bytes for " + item.name);
        left -= size;
        append(data, size);
      });
      if (left != 0) throw std::logic_error("write_safetensors: too few bytes for " + item.name);
    }
  });
}

}  // namespace qwenbench::model
