#include "base/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/error.h"

namespace qwenbench {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what, int error) {
  throw InputError(fmt::format("cannot write {}: {}: {}; choose another place with -o FILE", path.string(), what,
                               std::strerror(error)));
}

/// The temporary file beside the target; removed unless it was renamed.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& target) : target_(target) {
    std::error_code ignored;
    if (target.has_parent_path()) std::filesystem::create_directories(target.parent_path(), ignored);
    name_ = target.string() + ".XXXXXX";
    fd_ = ::mkstemp(name_.data());
    if (fd_ < 0) fail(target_, "no temporary file beside it", errno);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!renamed_) ::unlink(name_.c_str());
  }

  void append(const void* data, std::size_t size) {
    const char* bytes = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t written = ::write(fd_, bytes, size);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail(target_, "write", errno);
      bytes += written;
      size -= static_cast<std::size_t>(written);
    }
  }

  void commit() {
    if (::fchmod(fd_, 0644) != 0) fail(target_, "chmod", errno);
    if (::fsync(fd_) != 0) fail(target_, "flush to disk", errno);
    const int closed = ::close(fd_);
    fd_ = -1;
    if (closed != 0) fail(target_, "close", errno);
    if (::rename(name_.c_str(), target_.c_str()) != 0) fail(target_, "rename", errno);
    renamed_ = true;
  }

 private:
  std::filesystem::path target_;
  std::string name_;
  int fd_ = -1;
  bool renamed_ = false;
};

}  // namespace

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  TemporaryFile file(path);
  file.append(content.data(), content.size());
  file.commit();
}

void write_file_atomically(
    const std::filesystem::path& path,
    const std::function<void(const std::function<void(const void*, std::size_t)>& append)>& produce) {
  TemporaryFile file(path);
  produce([&](const void* data, std::size_t size) { file.append(data, size); });
  file.commit();
}

void require_writable(const std::filesystem::path& path) { TemporaryFile probe(path); }

std::string read_file(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) throw InputError(path.string() + " is a directory, not a file");
  std::ifstream in(path, std::ios::binary);
  if (!in) throw InputError(fmt::format("cannot read {}: {}", path.string(), std::strerror(errno)));
  std::ostringstream content;
  content << in.rdbuf();
  if (in.bad()) throw InputError(fmt::format("cannot read {}: {}", path.string(), std::strerror(errno)));
  return std::move(content).str();
}

}  // namespace qwenbench
