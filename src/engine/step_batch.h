// A schedule laid out as the backend takes it: rows of tokens, positions, block tables, pictures. Built once a step,
// read by every rank.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "engine/encoder_cache.h"
#include "engine/scheduler.h"

namespace qwenbench::engine {

class StepBatch {
 public:
  /// A picture whose features this step needs and nobody has yet.
  struct ToEncode {
    std::shared_ptr<EncodedPicture> picture;
    std::shared_ptr<const workload::Image> image;
  };
  /// Output rows [first, first + count): states that predict forced[first_score + i].
  struct Scored {
    Sequence* sequence;
    int first_output;
    int first_score;
    int count;
  };

  /// Sequences get hold of the pictures that their chunk shows: from `cache`, or new ones to be encoded by `ranks`
  /// ranks.
  void build(const Schedule& schedule, EncoderCache& cache, int ranks);

  /// Valid until the next build(), while the sequences' block tables stay as they are.
  backend::StepInput input(backend::KvObserver* observer) const;
  std::vector<std::shared_ptr<const backend::VisualFeatures>> features(int rank) const;

  std::span<const ToEncode> to_encode() const { return to_encode_; }
  /// Output rows come in this order: first the ones to be sampled, one a sequence, then those that are scored.
  std::span<Sequence* const> sampled() const { return sampled_; }
  std::span<const Scored> scored() const { return scored_; }
  int num_outputs() const { return static_cast<int>(output_rows_.size()); }

 private:
  void clear();
  void add(const Chunk& chunk, EncoderCache& cache, int ranks);
  void add_rows(const Chunk& chunk);
  void add_pictures(const Chunk& chunk, int first_row, EncoderCache& cache, int ranks);
  std::shared_ptr<const EncodedPicture> picture(const Sequence& sequence, int index, EncoderCache& cache, int ranks);

  std::vector<std::int32_t> tokens_, output_rows_;
  std::vector<std::array<std::int32_t, 3>> positions_;
  std::vector<backend::StepInput::Sequence> sequences_;
  std::vector<backend::StepInput::VisualSpan> visual_;
  std::vector<std::shared_ptr<const EncodedPicture>> pictures_;
  std::vector<ToEncode> to_encode_;
  std::vector<Sequence*> sampled_;
  std::vector<Scored> scored_;
};

}  // namespace qwenbench::engine
