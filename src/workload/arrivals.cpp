#include <boost/random/gamma_distribution.hpp>
#include <cmath>
#include <limits>

#include "workload/random.h"
#include "workload/workload.h"

namespace qwenbench::workload {

std::vector<double> arrival_times(int count, double request_rate, double burstiness, std::uint64_t seed) {
  std::vector<double> times(static_cast<std::size_t>(count), 0.0);
  if (request_rate == std::numeric_limits<double>::infinity()) return times;
  Generator generator(derive_seed(seed, Stream::kArrivals));
  boost::random::gamma_distribution<double> gap(burstiness, 1 / (request_rate * burstiness));
  double time = 0;
  for (auto& arrival : times) {
    time += gap(generator);
    arrival = std::round(time * 1e6) / 1e6;  // whole microseconds: the hash must not see a last bit of log()
  }
  return times;
}

}  // namespace qwenbench::workload
