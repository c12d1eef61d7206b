#include "parity/engine_runs.h"

#include <map>
#include <numeric>
#include <tuple>

#include "parity/synthetic_checkpoint.h"

namespace qwenbench::parity {
namespace {

constexpr int kBlockSize = 64;

std::vector<backend::StepInput::VisualSpan> visual_spans(const Case& c) {
  std::vector<backend::StepInput::VisualSpan> spans;
  for (int p = 0; p < static_cast<int>(c.images.size()); ++p) {
    spans.push_back({c.picture_begin.at(p), c.images[p]->num_tokens(), 0, p});
  }
  return spans;
}

}  // namespace

std::shared_ptr<engine::Model> load_model(const std::string& name, int ranks, int threads) {
  static std::map<std::tuple<std::string, int, int>, std::shared_ptr<engine::Model>> models;
  auto& model = models[{name, ranks, threads}];
  if (!model) {
    profile::EngineOptions options;
    options.device = profile::Device::kCpu;
    options.tensor_parallel_size = ranks;
    options.cpu_threads = threads;
    model = engine::Model::load(*model::open_checkpoint(checkpoint(name)), options);
  }
  return model;
}

std::vector<float> forward(engine::Model& model, const Case& c, profile::KvCacheDtype dtype) {
  const int n = c.length();
  std::vector<std::int32_t> rows(c.ids.size()), blocks(c.ids.size() / kBlockSize + 1);
  std::iota(rows.begin(), rows.end(), 0);
  std::iota(blocks.begin(), blocks.end(), 0);
  const std::vector<backend::StepInput::Sequence> sequences{{0, n, n, blocks}};
  const auto visual = visual_spans(c);
  backend::StepInput step;
  step.tokens = c.ids;
  step.positions = c.positions;
  step.sequences = sequences;
  step.visual = visual;
  step.output_rows = rows;
  std::vector<float> hidden(c.ids.size() * static_cast<std::size_t>(model.config().text.hidden_size));
  model.run([&](backend::Executor& executor, int rank) {
    const backend::KvCacheOptions cache_options{dtype, static_cast<int>(blocks.size()), kBlockSize, c.scales, {},
                                                false};
    const auto cache = executor.make_cache(cache_options);
    std::vector<std::shared_ptr<const backend::VisualFeatures>> pictures;
    for (const auto& image : c.images) pictures.push_back(executor.encode(*image));
    executor.execute(step, *cache, pictures);
    if (rank == 0) executor.read_hidden(hidden);
  });
  return model.logits(hidden, n);
}

int first_scored(const Case& c) {
  return c.images.empty() ? 0 : c.picture_begin.back() + c.images.back()->num_tokens();  // vision_end
}

workload::Request forced_request(const Case& c) {
  workload::Request request;
  const auto split = c.ids.begin() + first_scored(c) + 1;
  request.prompt.assign(c.ids.begin(), split);
  request.forced.assign(split, c.ids.end());
  request.forced.push_back(0);  // what the last position is asked to predict; its own state is never needed
  request.images = c.images;
  return request;
}

engine::SessionOptions session_options(profile::KvCacheDtype dtype) {
  engine::SessionOptions options;
  options.engine.device = profile::Device::kCpu;
  options.engine.limit_mm_per_prompt["image"] = 4;
  options.engine.block_size = kBlockSize;
  options.kv_cache_dtype = dtype;
  options.num_blocks = 64;
  return options;
}

std::vector<float> drain(engine::Session& session, engine::RequestId id) {
  std::vector<float> hidden;
  while (!session.idle()) {
    for (const auto& event : session.step().scores) {
      if (event.request == id) hidden.insert(hidden.end(), event.hidden.begin(), event.hidden.end());
    }
  }
  return hidden;
}

std::vector<float> score(engine::Model& model, engine::Session& session, const Case& c) {
  const auto hidden = drain(session, session.submit(forced_request(c)));
  return model.logits(hidden, static_cast<int>(hidden.size()) / model.config().text.hidden_size);
}

}  // namespace qwenbench::parity
