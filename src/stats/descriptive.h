// Location, spread and quantiles of a sample. Any unit; results are in the sample's unit.
#pragma once

#include <span>
#include <vector>

namespace qwenbench::stats {

/// Arithmetic mean; throws std::invalid_argument for an empty sample.
double mean(std::span<const double> samples);

/// Sample standard deviation (divided by n - 1); throws std::invalid_argument below two samples.
double sample_std(std::span<const double> samples);

/// Quantile q (0..1) of an ascending sample with linear interpolation between order statistics at h = q (n - 1):
/// type 7 of Hyndman and Fan (1996), NumPy's default. Throws std::invalid_argument for an empty sample or q outside
/// 0..1.
double quantile_sorted(std::span<const double> ascending, double q);

/// The same for a sample in any order.
double quantile(std::span<const double> samples, double q);
double median(std::span<const double> samples);

std::vector<double> sorted(std::span<const double> samples);

}  // namespace qwenbench::stats
