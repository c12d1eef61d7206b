// Scores teacher-forced requests: final hidden states at the positions that predict the dataset's tokens, every one
// computed through the KV cache of the variant under test.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "engine/session.h"
#include "workload/request.h"

namespace qwenbench::quality {

/// Scored positions of a teacher-forced request: forced[score_from...], one row each.
inline int scored_rows(const workload::Request& request) {
  return static_cast<int>(request.forced.size()) - request.score_from;
}

/// The id that row `row` predicts, and its place in the sequence.
inline std::int32_t target_token(const workload::Request& request, int row) {
  return request.forced[static_cast<std::size_t>(request.score_from + row)];
}
inline int target_position(const workload::Request& request, int row) {
  return static_cast<int>(request.prompt.size()) + request.score_from + row;
}

class Scorer {
 public:
  /// `request` counts in what score() was given; `hidden` is [rows, hidden_size], row i that of scored row first + i.
  using OnRows = std::function<void(std::size_t request, int first, std::span<const float> hidden)>;
  virtual ~Scorer() = default;

  /// Calls on_rows for every scored row of every request, exactly once, in any order. Returns false where
  /// interrupted() ended it before. Throws InputError where a request can never run (it names the request).
  virtual bool score(std::span<const workload::Request> requests, const OnRows& on_rows) = 0;
};

/// Through a Session, all requests at once, as its scheduler will have it.
class SessionScorer : public Scorer {
 public:
  explicit SessionScorer(std::unique_ptr<engine::Session> session) : session_(std::move(session)) {}
  bool score(std::span<const workload::Request> requests, const OnRows& on_rows) override;

 private:
  std::unique_ptr<engine::Session> session_;
};

}  // namespace qwenbench::quality
