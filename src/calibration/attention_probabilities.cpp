#include "calibration/attention_probabilities.h"

#include <algorithm>

#include "base/dtype.h"
#include "calibration/scales.h"

namespace qwenbench::calibration {

AttentionProbabilities::AttentionProbabilities(const StatisticsShape& shape)
    : shape_(shape), sums_(static_cast<std::size_t>(shape.layers * shape.query_heads)) {}

void AttentionProbabilities::add(const KeptRequest& request, ThreadPool& pool) {
  pool.parallel_for(static_cast<std::int64_t>(sums_.size()), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      add_head(request, static_cast<int>(i) / shape_.query_heads, static_cast<int>(i) % shape_.query_heads);
  });
  ++requests_;
  longest_ = std::max(longest_, request.tokens());
}

void AttentionProbabilities::add_head(const KeptRequest& request, int layer, int head) {
  const int d = shape_.head_dim, kv_head = head / (shape_.query_heads / shape_.kv_heads);
  const std::vector<float> keys = request.values(Kind::kKey, layer, kv_head);
  const std::vector<float> queries = request.values(Kind::kQuery, layer, head);
  Sums& sums = sums_[static_cast<std::size_t>(layer * shape_.query_heads + head)];
  std::vector<double> weights;
  for (const int position : sampled_positions(request.tokens())) {
    const double sum =
        exponentials(queries.data() + static_cast<std::ptrdiff_t>(position) * d, keys, position, d, weights);
    double unit = 0, chosen = 0;
    for (const double weight : weights) {
      const auto p = static_cast<float>(weight);
      sums.largest = std::max(sums.largest, p);
      if (float_to_e4m3(p) == 0) {
        ++sums.unit_entries;
        unit += weight;
      }
      if (float_to_e4m3(p / kProbScale) == 0) {
        ++sums.chosen_entries;
        chosen += weight;
      }
    }
    sums.unit_mass += unit / sum;
    sums.chosen_mass += chosen / sum;
    sums.entries += static_cast<std::int64_t>(weights.size());
    ++sums.queries;
  }
}

std::vector<HeadProbabilities> AttentionProbabilities::heads() const {
  std::vector<HeadProbabilities> rows;
  for (std::size_t i = 0; i < sums_.size(); ++i) {
    const Sums& sums = sums_[i];
    if (sums.queries == 0) continue;
    const auto queries = static_cast<double>(sums.queries), entries = static_cast<double>(sums.entries);
    rows.push_back({static_cast<int>(i) / shape_.query_heads,
                    static_cast<int>(i) % shape_.query_heads,
                    sums.queries,
                    sums.entries,
                    sums.largest,
                    {static_cast<double>(sums.unit_entries) / entries, sums.unit_mass / queries},
                    {static_cast<double>(sums.chosen_entries) / entries, sums.chosen_mass / queries}});
  }
  return rows;
}

HeadProbabilities all_heads(const std::vector<HeadProbabilities>& heads) {
  HeadProbabilities all;
  for (const HeadProbabilities& head : heads) {
    all.queries += head.queries;
    all.entries += head.entries;
    all.largest = std::max(all.largest, head.largest);
    for (const auto part : {&HeadProbabilities::unit, &HeadProbabilities::chosen}) {
      (all.*part).entries += (head.*part).entries * static_cast<double>(head.entries);
      (all.*part).mass += (head.*part).mass * static_cast<double>(head.queries);
    }
  }
  for (const auto part : {&HeadProbabilities::unit, &HeadProbabilities::chosen}) {
    if (all.entries > 0) (all.*part).entries /= static_cast<double>(all.entries);
    if (all.queries > 0) (all.*part).mass /= static_cast<double>(all.queries);
  }
  return all;
}

}  // namespace qwenbench::calibration
