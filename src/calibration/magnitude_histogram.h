// How often every bf16 magnitude occurs. The cache rounds to bf16 before it scales, so that such a histogram answers
// every question about a scale exactly.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "base/dtype.h"

namespace qwenbench::calibration {

/// Counts of |bf16(x)| by its 15 bits; from 0x7f80 on it is infinite or NaN. A page of bins is taken with the first
/// value of its exponent: 1 KiB each, some 30 of them for real data.
class MagnitudeHistogram {
 public:
  static constexpr int kBins = 1 << 15;
  static constexpr int kFirstNotFinite = 0x7f80;

  void add(const float* values, int count);
  void add(int bin, std::int64_t count);
  void add(const MagnitudeHistogram& other);

  std::int64_t total() const { return total_; }
  std::int64_t not_finite() const;
  std::int64_t count(int bin) const;
  /// Largest finite magnitude; 0 where there is none.
  float largest() const;
  /// Smallest magnitude that at least `percent` of the finite values do not exceed; 0 where there are none.
  float percentile(double percent) const;

  /// fn(bin, count) for every bin that is not empty, ascending.
  template <class Function>
  void for_each(const Function& fn) const {
    for (std::size_t page = 0; page < pages_.size(); ++page) {
      if (!pages_[page]) continue;
      for (int i = 0; i < kPage; ++i) {
        if (const std::int64_t found = (*pages_[page])[i]; found > 0) fn(static_cast<int>(page) * kPage + i, found);
      }
    }
  }

  static float value(int bin) { return bf16_to_float(static_cast<std::uint16_t>(bin)); }

 private:
  static constexpr int kPage = 128;  // one exponent
  using Page = std::array<std::int64_t, kPage>;
  Page& page(int bin);

  std::array<std::unique_ptr<Page>, kBins / kPage> pages_;
  std::int64_t total_ = 0;
};

}  // namespace qwenbench::calibration
