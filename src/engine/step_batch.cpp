#include "engine/step_batch.h"

#include <algorithm>

namespace qwenbench::engine {

void StepBatch::clear() {
  tokens_.clear();
  output_rows_.clear();
  positions_.clear();
  sequences_.clear();
  visual_.clear();
  pictures_.clear();
  to_encode_.clear();
  sampled_.clear();
  scored_.clear();
}

void StepBatch::build(const Schedule& schedule, EncoderCache& cache, int ranks) {
  clear();
  // What samples comes first: so do its output rows, which ascend.
  for (const bool forced : {false, true})
    for (const Chunk& chunk : schedule.chunks)
      if (chunk.sequence->forced() == forced) add(chunk, cache, ranks);
}

void StepBatch::add(const Chunk& chunk, EncoderCache& cache, int ranks) {
  const int first_row = static_cast<int>(tokens_.size());
  Sequence& sequence = *chunk.sequence;
  add_rows(chunk);
  add_pictures(chunk, first_row, cache, ranks);
  const int first_wanted = sequence.first_wanted();
  if (first_wanted >= chunk.end()) return;
  const int count = sequence.forced() ? chunk.end() - first_wanted : 1;
  if (sequence.forced())
    scored_.push_back({&sequence, static_cast<int>(output_rows_.size()), sequence.next_score, count});
  else
    sampled_.push_back(&sequence);
  for (int i = 0; i < count; ++i) output_rows_.push_back(first_row + first_wanted - chunk.first + i);
}

void StepBatch::add_rows(const Chunk& chunk) {
  const Sequence& sequence = *chunk.sequence;
  sequences_.push_back({static_cast<int>(tokens_.size()), chunk.count, chunk.end(), sequence.blocks});
  for (int token = chunk.first; token < chunk.end(); ++token) {
    tokens_.push_back(sequence.tokens[token]);
    positions_.push_back(sequence.positions.at(token));
  }
}

void StepBatch::add_pictures(const Chunk& chunk, int first_row, EncoderCache& cache, int ranks) {
  Sequence& sequence = *chunk.sequence;
  for (std::size_t i = 0; i < sequence.pictures.size(); ++i) {
    const PictureSpan& span = sequence.pictures[i];
    const int begin = std::max(span.first, chunk.first), end = std::min(span.first + span.count, chunk.end());
    if (begin >= end) continue;
    if (!sequence.features[i]) sequence.features[i] = picture(sequence, static_cast<int>(i), cache, ranks);
    visual_.push_back(
        {first_row + begin - chunk.first, end - begin, begin - span.first, static_cast<int>(pictures_.size())});
    pictures_.push_back(sequence.features[i]);
  }
}

std::shared_ptr<const EncodedPicture> StepBatch::picture(const Sequence& sequence, int index, EncoderCache& cache,
                                                         int ranks) {
  const auto& image = sequence.request.images[index];
  if (auto known = cache.find(image->sha256)) return known;
  auto encoded = std::make_shared<EncodedPicture>();
  encoded->ranks.resize(ranks);
  encoded->tokens = sequence.pictures[index].count;
  cache.insert(image->sha256, encoded);
  to_encode_.push_back({encoded, image});
  return encoded;
}

backend::StepInput StepBatch::input(backend::KvObserver* observer) const {
  return {tokens_, positions_, sequences_, visual_, output_rows_, observer};
}

std::vector<std::shared_ptr<const backend::VisualFeatures>> StepBatch::features(int rank) const {
  std::vector<std::shared_ptr<const backend::VisualFeatures>> features;
  for (const auto& picture : pictures_) features.push_back(picture->ranks[rank]);
  return features;
}

}  // namespace qwenbench::engine
