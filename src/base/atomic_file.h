// Files that matter: written to a temporary name, flushed to disk, renamed. A crash leaves the old file or the new one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string_view>

namespace qwenbench {

/// Throws InputError (exit 2) naming the path and the cause (read-only folder, full disk, ...); nothing is left behind.
/// The folder is created where it is missing.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// The same for files written in pieces: `produce` is called with a function that appends bytes.
void write_file_atomically(
    const std::filesystem::path& path,
    const std::function<void(const std::function<void(const void*, std::size_t)>& append)>& produce);

/// Throws InputError now if a file could not be written at `path` later: called before hours of work.
void require_writable(const std::filesystem::path& path);

/// The whole file; throws InputError that names it.
std::string read_file(const std::filesystem::path& path);

}  // namespace qwenbench
