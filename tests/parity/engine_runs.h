// Two ways to get logits of a case: every position in one step of the executors, or a teacher-forced request of a
// Session.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/session.h"
#include "parity/oracle_case.h"

namespace qwenbench::parity {

/// A checkpoint of fixtures/parity on the CPU; models are kept, one for each (name, ranks, threads).
std::shared_ptr<engine::Model> load_model(const std::string& name, int ranks = 1, int threads = 1);

/// Logits of every position, pictures included: one forward step with the case's own positions, without a Session.
std::vector<float> forward(engine::Model& model, const Case& c,
                           profile::KvCacheDtype dtype = profile::KvCacheDtype::kFloat32);

/// Everything after the last picture is forced, so that its positions are scored (all of them where there is none).
workload::Request forced_request(const Case& c);

/// The first position that such a request scores.
int first_scored(const Case& c);

engine::SessionOptions session_options(profile::KvCacheDtype dtype = profile::KvCacheDtype::kFloat32);

/// Runs the session until it is idle; returns the final hidden states of `id`, in order of position.
std::vector<float> drain(engine::Session& session, engine::RequestId id);

/// drain(), then the logits.
std::vector<float> score(engine::Model& model, engine::Session& session, const Case& c);

}  // namespace qwenbench::parity
