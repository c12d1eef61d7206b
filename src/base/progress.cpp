#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace qwenbench {
namespace {

constexpr int kBarWidth = 28;

double seconds(std::chrono::steady_clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

ProgressStyle progress_style_for_stderr(bool quiet) {
  if (quiet) return ProgressStyle::kNone;
  return ::isatty(STDERR_FILENO) ? ProgressStyle::kBar : ProgressStyle::kLines;
}

bool use_color(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  return ::isatty(fd) && !(no_color && *no_color);
}

Progress::Progress(std::ostream& out, ProgressStyle style, std::string label, std::int64_t total)
    : out_(out),
      style_(style),
      label_(std::move(label)),
      total_(std::max<std::int64_t>(total, 1)),
      start_(std::chrono::steady_clock::now()),
      drawn_(start_) {
  if (style_ == ProgressStyle::kBar) draw(false);
}

Progress::~Progress() { draw(true); }

void Progress::set(std::int64_t done) {
  done_ = std::min(done, total_);
  const double interval = style_ == ProgressStyle::kBar ? 0.1 : 10.0;
  const auto now = std::chrono::steady_clock::now();
  if (seconds(now - drawn_) < interval) return;
  drawn_ = now;
  draw(false);
}

std::string Progress::time_left() const {
  const double elapsed = seconds(std::chrono::steady_clock::now() - start_);
  if (done_ == 0 || elapsed < 0.5) return "";
  const std::int64_t left = std::lround(elapsed / static_cast<double>(done_) * static_cast<double>(total_ - done_));
  return fmt::format("{}:{:02} left", left / 60, left % 60);
}

void Progress::draw(bool last) {
  const double share = static_cast<double>(done_) / static_cast<double>(total_);
  if (style_ == ProgressStyle::kBar) {
    const int filled = static_cast<int>(share * kBarWidth);
    out_ << fmt::format("\r\x1b[2K{:<24} [{}{}] {:3.0f}% {}", label_, std::string(filled, '#'),
                        std::string(kBarWidth - filled, '.'), share * 100, last ? "" : time_left());
    if (last) out_ << '\n';
    out_.flush();
  } else if (style_ == ProgressStyle::kLines) {
    const double elapsed = seconds(std::chrono::steady_clock::now() - start_);
    if (last)
      out_ << fmt::format("{}: {:.0f}% in {:.1f} s\n", label_, share * 100, elapsed);
    else
      out_ << fmt::format("{}: {:.0f}% {}\n", label_, share * 100, time_left());
    out_.flush();
  }
}

}  // namespace qwenbench
