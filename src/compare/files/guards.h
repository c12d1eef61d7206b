// What two runs must have in common to be comparable, and what else differs between them.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "compare/files/run.h"

namespace qwenbench::compare {

struct Difference {
  std::string name;         // "environment.driver_version", "engine.max_num_seqs", ...
  std::string base, other;  // what each says
  bool forbids = false;     // not comparable: other requests, dataset, model, GPU model, random weights

  bool operator==(const Difference&) const = default;
};

/// `expected`: keys that stand in rows or columns, and differ on purpose.
std::vector<Difference> find_differences(const Run& base, const Run& other, const std::set<std::string>& expected);

/// One host by what its timings depend on: the key of a noise floor.
std::string host_of(const report::Environment& environment);

}  // namespace qwenbench::compare
