// Shared by the two halves of the graph: adds buffers, weights and operations to a plan.
#pragma once

#include <string>
#include <utility>

#include "graph/plan.h"

namespace qwenbench::graph {

class Builder {
 public:
  Builder(Plan& plan, Program& program) : plan_(plan), program_(program) {}

  BufferId buffer(std::string name, Rows rows, int width, Precision precision = Precision::kNarrow) {
    program_.buffers.push_back({std::move(name), rows, width, precision});
    return static_cast<BufferId>(program_.buffers.size()) - 1;
  }
  LinearId linear(LinearSpec spec) {
    plan_.linears.push_back(std::move(spec));
    return static_cast<LinearId>(plan_.linears.size()) - 1;
  }
  /// A whole module [n, k].
  LinearId linear(const std::string& module, int n, int k, Shard shard, bool bias) {
    return linear(LinearSpec{{{module, n, 0, n}}, k, shard, bias});
  }
  NormId norm(NormSpec spec) {
    plan_.norms.push_back(std::move(spec));
    return static_cast<NormId>(plan_.norms.size()) - 1;
  }
  void op(Op operation) { program_.ops.push_back(std::move(operation)); }
  int width_of(LinearId linear) const { return local_n(plan_.linears[linear], plan_.ranks); }

 private:
  Plan& plan_;
  Program& program_;
};

void build_text(Plan& plan);
void build_vision(Plan& plan);

}  // namespace qwenbench::graph
