#include "calibration/magnitude_histogram.h"

namespace qwenbench::calibration {

MagnitudeHistogram::Page& MagnitudeHistogram::page(int bin) {
  auto& found = pages_[static_cast<std::size_t>(bin / kPage)];
  if (!found) found = std::make_unique<Page>(Page{});
  return *found;
}

void MagnitudeHistogram::add(const float* values, int count) {
  for (int i = 0; i < count; ++i) {
    const int bin = float_to_bf16(values[i]) & 0x7fff;
    ++page(bin)[static_cast<std::size_t>(bin % kPage)];
  }
  total_ += count;
}

void MagnitudeHistogram::add(int bin, std::int64_t count) {
  page(bin)[static_cast<std::size_t>(bin % kPage)] += count;
  total_ += count;
}

void MagnitudeHistogram::add(const MagnitudeHistogram& other) {
  other.for_each([this](int bin, std::int64_t found) { add(bin, found); });
}

std::int64_t MagnitudeHistogram::count(int bin) const {
  const auto& found = pages_[static_cast<std::size_t>(bin / kPage)];
  return found ? (*found)[static_cast<std::size_t>(bin % kPage)] : 0;
}

std::int64_t MagnitudeHistogram::not_finite() const {
  std::int64_t sum = 0;
  for (int bin = kFirstNotFinite; bin < kBins; ++bin) sum += count(bin);
  return sum;
}

float MagnitudeHistogram::largest() const {
  float found = 0;
  for_each([&found](int bin, std::int64_t) {
    if (bin < kFirstNotFinite) found = value(bin);
  });
  return found;
}

float MagnitudeHistogram::percentile(double percent) const {
  const double wanted = static_cast<double>(total_ - not_finite()) * percent / 100;
  double below = 0;
  float found = 0;
  bool reached = false;
  for_each([&](int bin, std::int64_t count) {
    if (reached || bin >= kFirstNotFinite) return;
    below += static_cast<double>(count);
    found = value(bin);
    reached = below >= wanted;
  });
  return found;
}

}  // namespace qwenbench::calibration
