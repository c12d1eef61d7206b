// Progress on stderr: a bar on a terminal, plain lines otherwise, nothing with --quiet. NO_COLOR is honoured.
#pragma once

#include <chrono>
#include <cstdint>
#include <ostream>
#include <string>

namespace qwenbench {

enum class ProgressStyle { kNone, kLines, kBar };

/// Bar where stderr is a terminal, lines otherwise, none when quiet.
ProgressStyle progress_style_for_stderr(bool quiet);

/// True where `fd` is a terminal and NO_COLOR is not set.
bool use_color(int fd);

/// One phase with a known amount of work. Redrawn at most ten times a second (a line: every ten seconds).
class Progress {
 public:
  Progress(std::ostream& out, ProgressStyle style, std::string label, std::int64_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(std::int64_t steps = 1) { set(done_ + steps); }
  void set(std::int64_t done);
  void label(std::string text) { label_ = std::move(text); }

 private:
  void draw(bool last);
  std::string time_left() const;

  std::ostream& out_;
  ProgressStyle style_;
  std::string label_;
  std::int64_t total_;
  std::int64_t done_ = 0;
  std::chrono::steady_clock::time_point start_, drawn_;
};

}  // namespace qwenbench
