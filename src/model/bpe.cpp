#include "model/bpe.h"

#include <queue>

namespace qwenbench::model {
namespace {

/// A merge that was possible when it was queued. The heap gives the lowest rank, then the leftmost.
struct Candidate {
  std::int32_t rank;
  std::int32_t position;
  std::int32_t merged;
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
}

}  // namespace

/// Symbols as a linked list over the bytes of the word; a merged-away symbol has id -1.
struct BytePairEncoder::Word {
  struct Symbol {
    std::int32_t id, previous, next;
  };
  const BytePairEncoder& encoder;
  std::vector<Symbol> symbols;
  std::priority_queue<Candidate> queue;

  void offer(std::int32_t position) {
    const std::int32_t next = position < 0 ? -1 : symbols[static_cast<std::size_t>(position)].next;
    if (next < 0) return;
    const Merge* merge =
        encoder.find(symbols[static_cast<std::size_t>(position)].id, symbols[static_cast<std::size_t>(next)].id);
    if (merge) queue.push({merge->rank, position, merge->merged});
  }

  void merge_all() {
    while (!queue.empty()) {
      const Candidate top = queue.top();
      queue.pop();
      Symbol& left = symbols[static_cast<std::size_t>(top.position)];
      if (left.id < 0 || left.next < 0) continue;
      Symbol& right = symbols[static_cast<std::size_t>(left.next)];
      // Stale where the neighbours changed since. HF compares the result and not the rank: so do we.
      const Merge* merge = encoder.find(left.id, right.id);
      if (!merge || merge->merged != top.merged) continue;
      left.id = top.merged;
      left.next = right.next;
      right.id = -1;
      if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = top.position;
      offer(left.previous);
      offer(top.position);
    }
  }
};

void BytePairEncoder::add_merge(std::int32_t left, std::int32_t right, std::int32_t rank, std::int32_t merged) {
  merges_[key_of(left, right)] = {rank, merged};
}

const BytePairEncoder::Merge* BytePairEncoder::find(std::int32_t left, std::int32_t right) const {
  const auto it = merges_.find(key_of(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void BytePairEncoder::encode(std::string_view word, std::vector<std::int32_t>& ids) const {
  Word state{*this, {}, {}};
  const auto size = static_cast<std::int32_t>(word.size());
  state.symbols.reserve(word.size());
  for (std::int32_t i = 0; i < size; ++i) {
    const auto byte = static_cast<unsigned char>(word[static_cast<std::size_t>(i)]);
    state.symbols.push_back({byte_ids_[byte], i - 1, i + 1 == size ? -1 : i + 1});
  }
  for (std::int32_t i = 0; i < size; ++i) state.offer(i);
  state.merge_all();
  for (const Word::Symbol& symbol : state.symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

}  // namespace qwenbench::model
