#include "stats/student.h"

#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "stats/descriptive.h"

namespace qwenbench::stats {

double student_quantile(double p, double degrees_of_freedom) {
  return boost::math::quantile(boost::math::students_t(degrees_of_freedom), p);
}

double student_upper_tail(double t, double degrees_of_freedom) {
  return boost::math::cdf(boost::math::complement(boost::math::students_t(degrees_of_freedom), t));
}

double normal_quantile(double p) { return boost::math::quantile(boost::math::normal(), p); }

double normal_upper_tail(double z) { return boost::math::cdf(boost::math::complement(boost::math::normal(), z)); }

Interval MeanEstimate::interval(double level) const {
  if (std_error == 0) return {mean, mean};
  const double t = student_quantile(0.5 + level / 2, static_cast<double>(n - 1));
  return {mean - t * std_error, mean + t * std_error};
}

double MeanEstimate::p_value(double null) const {
  if (std_error == 0) return mean == null ? 1 : 0;
  return 2 * student_upper_tail(std::abs(mean - null) / std_error, static_cast<double>(n - 1));
}

MeanEstimate estimate_mean(std::span<const double> samples) {
  MeanEstimate result;
  result.n = samples.size();
  result.std_error = sample_std(samples) / std::sqrt(static_cast<double>(samples.size()));
  result.mean = mean(samples);
  return result;
}

MeanEstimate paired_log_ratio(std::span<const double> baseline, std::span<const double> candidate) {
  if (baseline.size() != candidate.size()) throw std::invalid_argument("paired samples differ in number");
  std::vector<double> log_ratios;
  log_ratios.reserve(baseline.size());
  for (std::size_t i = 0; i < baseline.size(); ++i) {
    const bool positive = baseline[i] > 0 && candidate[i] > 0;
    if (!positive || !std::isfinite(baseline[i]) || !std::isfinite(candidate[i])) {
      throw std::invalid_argument("a ratio needs positive, finite samples");
    }
    log_ratios.push_back(std::log(candidate[i] / baseline[i]));
  }
  return estimate_mean(log_ratios);
}

}  // namespace qwenbench::stats
