// One suite for every communicator between GPUs: sums against the CPU's, all ranks alike, bit for bit. Outputs are
// poisoned beforehand; sizes are odd; calls follow one another without a pause, also from a captured graph.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/cuda_devices.h"
#include "comm/conformance.h"
#include "comm/cuda/device_communicator.h"
#include "kernels/effort.h"

namespace qwenbench::comm {

inline void cuda(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

// ---- bf16 on the host, as bits; its arithmetic is not the kernels' code ----

using Bits = std::vector<std::uint16_t>;

inline float from_bf16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

inline std::uint16_t to_bf16(float value) {  // to nearest, ties to even; no NaNs here
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/// Values whose sum depends on the order of addition; some are zeros of either sign.
inline Bits random_bits(unsigned seed, std::size_t count) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> mantissa(-1.0f, 1.0f);
  Bits bits(count);
  for (auto& b : bits) b = to_bf16(std::ldexp(mantissa(random), static_cast<int>(random() % 12) - 8));
  for (std::size_t i = 0; i < count; i += 7) bits[i] = static_cast<std::uint16_t>(i % 2 ? 0x8000 : 0);
  return bits;
}

/// The same values, as fp32.
inline std::vector<float> random_wide(unsigned seed, std::size_t count) {
  const Bits bits = random_bits(seed, count);
  std::vector<float> values(count);
  std::transform(bits.begin(), bits.end(), values.begin(), from_bf16);
  return values;
}

inline int count_different(const Bits& a, const Bits& b) {
  int different = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) different += a[i] != b[i];
  return different;
}
inline int count_different(const std::vector<float>& a, const std::vector<float>& b) {
  int different = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    different += std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]);
  return different;
}

// ---- one rank ----

/// Device memory with the bytes of a host vector; copies go over one stream, which waits for no other.
template <class T>
class OnDevice {
 public:
  OnDevice(const std::vector<T>& values, cudaStream_t stream) : stream_(stream), count_(values.size()) {
    cuda(cudaMalloc(reinterpret_cast<void**>(&data_), std::max<std::size_t>(1, count_ * sizeof(T))));
    set(values);
  }
  ~OnDevice() { cudaFree(data_); }  // waits for the device: only where no rank waits for another on it
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  void set(const std::vector<T>& values) {
    cuda(cudaMemcpyAsync(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice, stream_));
    cuda(cudaStreamSynchronize(stream_));
  }
  std::vector<T> read() const {
    std::vector<T> values(count_);
    cuda(cudaMemcpyAsync(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost, stream_));
    cuda(cudaStreamSynchronize(stream_));
    return values;
  }
  T* get() const { return data_; }
  __nv_bfloat16* bf16() const { return reinterpret_cast<__nv_bfloat16*>(data_); }

 private:
  cudaStream_t stream_;
  std::size_t count_;
  T* data_ = nullptr;
};

struct DeviceRank {
  DeviceCommunicator& comm;
  Communicator& host;
  cudaStream_t stream;
};

using DeviceFactory = std::function<std::unique_ptr<DeviceCommunicator>(std::shared_ptr<Communicator> host)>;

/// Runs fn on one thread a rank, each with its communicator and stream; rank r uses device r % devices. An exception
/// becomes errors[rank].
inline std::vector<std::exception_ptr> on_devices(const DeviceFactory& make, int size,
                                                  const std::function<void(DeviceRank&)>& fn) {
  auto made = make_threads(size);
  std::vector<std::shared_ptr<Communicator>> hosts;
  for (auto& host : made) hosts.push_back(std::move(host));
  std::vector<std::exception_ptr> errors(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        cuda(cudaSetDevice(rank % cuda_device_count()));
        cudaStream_t stream = nullptr;
        cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        const auto comm = make(hosts[rank]);
        DeviceRank mine{*comm, *hosts[rank], stream};
        fn(mine);
        cuda(cudaStreamDestroy(stream));
      } catch (...) {
        errors[rank] = std::current_exception();
        hosts[rank]->abort();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return errors;
}

// ---- sums ----

inline Bits sum_of(const std::vector<Bits>& parts) {
  Bits sum(parts[0].size());
  for (std::size_t i = 0; i < sum.size(); ++i) {
    float total = from_bf16(parts[0][i]);
    for (std::size_t r = 1; r < parts.size(); ++r) total += from_bf16(parts[r][i]);
    sum[i] = to_bf16(total);
  }
  return sum;
}

inline void check_device_all_reduce(const DeviceFactory& make, int size) {
  std::vector<std::size_t> counts = {1, 7, 8, 9, 4095, 4097, 5120, 81920, 300001, 5000003, 0, 3};
  std::erase_if(counts, [](std::size_t count) { return test::is_too_large(static_cast<long long>(count)); });
  std::vector<std::vector<Bits>> results(counts.size(), std::vector<Bits>(size));
  require_no_errors(on_devices(make, size, [&](DeviceRank& mine) {
    std::vector<std::unique_ptr<OnDevice<std::uint16_t>>> values;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      values.push_back(std::make_unique<OnDevice<std::uint16_t>>(
          random_bits(static_cast<unsigned>(10 * i + mine.comm.rank()), counts[i]), mine.stream));
    }
    mine.host.barrier();
    for (std::size_t i = 0; i < counts.size(); ++i) mine.comm.all_reduce(values[i]->bf16(), counts[i], mine.stream);
    mine.comm.synchronize(mine.stream);
    for (std::size_t i = 0; i < counts.size(); ++i) results[i][mine.comm.rank()] = values[i]->read();
    mine.host.barrier();
  }));
  for (std::size_t i = 0; i < counts.size(); ++i) {
    CAPTURE(counts[i]);
    std::vector<Bits> parts;
    for (int r = 0; r < size; ++r) parts.push_back(random_bits(static_cast<unsigned>(10 * i + r), counts[i]));
    const Bits expected = sum_of(parts);
    for (const Bits& result : results[i]) {
      if (size <= 2) CHECK(count_different(result, expected) == 0);
      CHECK(count_different(result, results[i][0]) == 0);
    }
    // More ranks: NCCL may round in between.
    double error = 0, norm = 0;
    for (std::size_t at = 0; at < expected.size(); ++at) {
      error += std::pow(from_bf16(results[i][0][at]) - from_bf16(expected[at]), 2);
      norm += std::pow(from_bf16(expected[at]), 2);
    }
    CHECK(std::sqrt(error) <= 0.01 * std::sqrt(norm));
  }
}

inline void check_device_all_gather(const DeviceFactory& make, int size) {
  struct Shape {
    int rows;
    std::size_t row_bytes;
  };
  std::vector<Shape> shapes = {{1, 2}, {1, 303872}, {3, 34}, {5, 4096}, {32, 1998}, {33, 303872}, {2, 16}};
  std::erase_if(shapes, [](const Shape& shape) {
    return test::is_too_large(shape.rows * static_cast<long long>(shape.row_bytes) / 2);
  });
  std::vector<std::vector<Bits>> results(shapes.size(), std::vector<Bits>(size));
  require_no_errors(on_devices(make, size, [&](DeviceRank& mine) {
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      const std::size_t count = shapes[i].rows * shapes[i].row_bytes / 2;
      OnDevice<std::uint16_t> part(random_bits(static_cast<unsigned>(100 * i + mine.comm.rank()), count), mine.stream);
      OnDevice<std::uint16_t> out(Bits(count * size, 0xffff), mine.stream);
      mine.host.barrier();
      for (int repeat = 0; repeat < 4; ++repeat) {
        mine.comm.all_gather(part.get(), shapes[i].rows, shapes[i].row_bytes, out.get(), mine.stream);
      }
      mine.comm.synchronize(mine.stream);
      results[i][mine.comm.rank()] = out.read();
      mine.host.barrier();
    }
  }));
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    CAPTURE(shapes[i].row_bytes);
    const std::size_t width = shapes[i].row_bytes / 2;
    Bits expected(shapes[i].rows * width * size);
    for (int r = 0; r < size; ++r) {
      const Bits part = random_bits(static_cast<unsigned>(100 * i + r), shapes[i].rows * width);
      for (int row = 0; row < shapes[i].rows; ++row) {
        std::copy_n(part.begin() + row * width, width, expected.begin() + (row * size + r) * width);
      }
    }
    for (const Bits& result : results[i]) CHECK(count_different(result, expected) == 0);
  }
}

// ---- the fused operation ----

struct AddNormCase {
  int rows, width;
  bool bias = false, features = false, norm = true, layer_norm = false;
};

/// The inputs that are equal on all ranks, the parts that are not, and what must come out.
struct AddNormData {
  AddNormData(const AddNormCase& c, int size, unsigned seed) : shape(c) {
    const std::size_t count = static_cast<std::size_t>(c.rows) * c.width;
    for (int r = 0; r < size; ++r) parts.push_back(random_bits(seed + 1000 + r, count));
    residual = random_wide(seed, count);
    bias = random_bits(seed + 1, c.width);
    weight = random_bits(seed + 2, c.width);
    norm_bias = random_bits(seed + 3, c.width);
    const int num_features = 3;
    features = random_bits(seed + 4, static_cast<std::size_t>(num_features) * c.width);
    feature_of_row.resize(c.rows);
    for (int row = 0; row < c.rows; ++row) feature_of_row[row] = (row * 5) % (num_features + 1) - 1;
  }

  /// residual after one call more; parts stay as they are.
  void step() {
    for (std::size_t i = 0; i < residual.size(); ++i) {
      float sum = from_bf16(parts[0][i]);
      for (std::size_t r = 1; r < parts.size(); ++r) sum += from_bf16(parts[r][i]);
      float value = residual[i] + sum;
      const std::size_t row = i / shape.width, column = i % shape.width;
      if (shape.bias) value += from_bf16(bias[column]);
      if (shape.features && feature_of_row[row] >= 0)
        value += from_bf16(features[feature_of_row[row] * shape.width + column]);
      residual[i] = value;
    }
  }

  /// norm(residual) in double.
  std::vector<double> normed() const {
    std::vector<double> out(residual.size());
    for (int row = 0; row < shape.rows; ++row) {
      const std::size_t base = static_cast<std::size_t>(row) * shape.width;
      double mean = 0, square = 0;
      for (int i = 0; i < shape.width && shape.layer_norm; ++i) mean += residual[base + i];
      mean /= shape.width;
      for (int i = 0; i < shape.width; ++i) square += std::pow(residual[base + i] - mean, 2) / shape.width;
      for (int i = 0; i < shape.width; ++i) {
        out[base + i] = (residual[base + i] - mean) / std::sqrt(square + kEps) * from_bf16(weight[i]);
        if (shape.layer_norm) out[base + i] += from_bf16(norm_bias[i]);
      }
    }
    return out;
  }

  static constexpr float kEps = 1e-6f;
  AddNormCase shape;
  std::vector<Bits> parts;
  std::vector<float> residual;
  Bits bias, weight, norm_bias, features;
  std::vector<int> feature_of_row;
};

/// A case on one rank's device.
class AddNormOnDevice {
 public:
  AddNormOnDevice(const AddNormData& data, const DeviceRank& mine)
      : data_(data),
        part_bits_(data.parts[mine.comm.rank()]),
        part_(part_bits_, mine.stream),
        scratch_(part_bits_, mine.stream),
        residual_(data.residual, mine.stream),
        out_(Bits(data.residual.size(), 0xffff), mine.stream),
        bias_(data.bias, mine.stream),
        weight_(data.weight, mine.stream),
        norm_bias_(data.norm_bias, mine.stream),
        features_(data.features, mine.stream),
        feature_of_row_(data.feature_of_row, mine.stream) {}

  /// A call may destroy the partial, so that each starts from a fresh copy.
  void call(DeviceRank& mine) {
    const AddNormCase& c = data_.shape;
    cuda(cudaMemcpyAsync(scratch_.get(), part_.get(), 2 * part_bits_.size(), cudaMemcpyDeviceToDevice, mine.stream));
    kernels::AddNorm args;
    args.residual = residual_.get();
    args.partial = scratch_.bf16();
    if (c.bias) args.bias = bias_.bf16();
    if (c.features) args.features = features_.bf16(), args.feature_of_row = feature_of_row_.get();
    if (c.norm) args.out = out_.bf16(), args.weight = weight_.bf16();
    if (c.layer_norm) args.norm_bias = norm_bias_.bf16();
    args.eps = AddNormData::kEps;
    args.rows = c.rows;
    args.width = c.width;
    mine.comm.all_reduce_add_norm(args, mine.stream);
  }

  std::vector<float> residual() const { return residual_.read(); }
  Bits out() const { return out_.read(); }

 private:
  const AddNormData& data_;
  const Bits part_bits_;
  OnDevice<std::uint16_t> part_, scratch_;
  OnDevice<float> residual_;
  OnDevice<std::uint16_t> out_, bias_, weight_, norm_bias_, features_;
  OnDevice<int> feature_of_row_;
};

struct AddNormResult {
  std::vector<float> residual;
  Bits out;
};

/// After `calls` calls in a row. `exact`: sums are fp32 in rank order, so that the residual is known to the bit.
inline void check_add_norm_result(AddNormData data, const std::vector<AddNormResult>& results, int calls, bool exact) {
  CAPTURE(data.shape.rows);
  CAPTURE(data.shape.width);
  for (int call = 0; call < calls; ++call) data.step();
  if (exact) CHECK(count_different(results[0].residual, data.residual) == 0);
  for (const auto& result : results) {
    CHECK(count_different(result.residual, results[0].residual) == 0);
    CHECK(count_different(result.out, results[0].out) == 0);
  }
  if (!exact) return;
  const std::vector<double> expected = data.normed();
  int wrong = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double got = from_bf16(results[0].out[i]);
    if (!data.shape.norm) {
      wrong += results[0].out[i] != 0xffff;                                                // left alone
    } else if (!(std::abs(got - expected[i]) <= 0.0042 * std::abs(expected[i]) + 1e-4)) {  // one rounding to bf16
      ++wrong;
    }
  }
  CHECK(wrong == 0);
}

inline std::vector<AddNormCase> add_norm_cases() {
  std::vector<AddNormCase> cases = {
      {1, 5120},
      {2, 5120, true},
      {16, 5120, false, true},
      {32, 5120, false, true, false},
      {51, 5120},
      {52, 5120},
      {1, 8},
      {3, 64, true, true},
      {17, 1152, true, false, true, true},
      {5, 8192},
      {7, 8200},
      {2, 16384, true, true, true, true},
      {3, 24576},
      {1, 32768},
      {205, 5120},
      {1031, 5120, false, true},
      {4096, 1152, true, false, true, true},
  };
  std::mt19937 random(7);
  for (int i = 0; i < test::rounds(12); ++i) {
    const auto flag = [&] { return random() % 2 == 0; };
    AddNormCase c{static_cast<int>(1 + random() % 300),
                  static_cast<int>(8 * (1 + random() % 900)),
                  flag(),
                  flag(),
                  flag(),
                  flag()};
    cases.push_back(c);
  }
  std::erase_if(cases, [](const AddNormCase& c) { return test::is_too_large(std::int64_t{c.rows} * c.width); });
  return cases;
}

/// Each shape three times over, all queued at once: the buffers take turns while sizes change.
inline void check_device_add_norm(const DeviceFactory& make, int size, bool exact) {
  const auto cases = add_norm_cases();
  std::vector<AddNormData> data;
  for (std::size_t i = 0; i < cases.size(); ++i) data.emplace_back(cases[i], size, static_cast<unsigned>(10000 * i));
  std::vector<std::vector<AddNormResult>> results(cases.size(), std::vector<AddNormResult>(size));
  require_no_errors(on_devices(make, size, [&](DeviceRank& mine) {
    std::vector<std::unique_ptr<AddNormOnDevice>> on_device;
    for (const auto& d : data) on_device.push_back(std::make_unique<AddNormOnDevice>(d, mine));
    mine.host.barrier();
    for (int call = 0; call < 3; ++call) {
      for (const auto& d : on_device) d->call(mine);
    }
    mine.comm.synchronize(mine.stream);
    for (std::size_t i = 0; i < data.size(); ++i) {
      results[i][mine.comm.rank()] = {on_device[i]->residual(), on_device[i]->out()};
    }
    mine.host.barrier();
  }));
  for (std::size_t i = 0; i < data.size(); ++i) check_add_norm_result(data[i], results[i], 3, exact);
}

/// A step's worth of calls captured once and replayed: whose turn it is must not be frozen into the graph. One rank
/// comes late now and then.
inline void check_device_graph(const DeviceFactory& make, int size, bool exact) {
  const std::vector<AddNormCase> cases = {{1, 5120}, {16, 5120}, {60, 1024, true}, {1, 5120}};
  const int replays = test::rounds(100);
  std::vector<AddNormData> data;
  for (std::size_t i = 0; i < cases.size(); ++i) data.emplace_back(cases[i], size, static_cast<unsigned>(77 + 500 * i));
  std::vector<std::vector<AddNormResult>> results(cases.size(), std::vector<AddNormResult>(size));
  require_no_errors(on_devices(make, size, [&](DeviceRank& mine) {
    std::vector<std::unique_ptr<AddNormOnDevice>> on_device;
    for (const auto& d : data) on_device.push_back(std::make_unique<AddNormOnDevice>(d, mine));
    mine.host.barrier();
    for (const auto& d : on_device) d->call(mine);  // NCCL connects in its first call
    mine.comm.synchronize(mine.stream);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    cuda(cudaStreamBeginCapture(mine.stream, cudaStreamCaptureModeThreadLocal));
    for (const auto& d : on_device) d->call(mine);
    cuda(cudaStreamEndCapture(mine.stream, &graph));
    cuda(cudaGraphInstantiate(&exec, graph, 0));
    mine.host.barrier();
    for (int replay = 1; replay < replays; ++replay) {
      if (replay % 20 == mine.comm.rank()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      cuda(cudaGraphLaunch(exec, mine.stream));
    }
    mine.comm.synchronize(mine.stream);
    for (std::size_t i = 0; i < data.size(); ++i) {
      results[i][mine.comm.rank()] = {on_device[i]->residual(), on_device[i]->out()};
    }
    mine.host.barrier();
    cuda(cudaGraphExecDestroy(exec));
    cuda(cudaGraphDestroy(graph));
  }));
  for (std::size_t i = 0; i < data.size(); ++i) check_add_norm_result(data[i], results[i], replays, exact);
}

/// NaNs arrive as NaNs, also those whose bits mean "nothing here yet".
inline void check_device_nans(const DeviceFactory& make, int size) {
  std::vector<Bits> results(size);
  require_no_errors(on_devices(make, size, [&](DeviceRank& mine) {
    Bits bits(64, to_bf16(1.0f));
    if (mine.comm.rank() == 0) bits[10] = bits[11] = bits[20] = 0xffff;
    OnDevice<std::uint16_t> values(bits, mine.stream);
    mine.host.barrier();
    mine.comm.all_reduce(values.bf16(), bits.size(), mine.stream);
    mine.comm.synchronize(mine.stream);
    results[mine.comm.rank()] = values.read();
    mine.host.barrier();
  }));
  for (const Bits& result : results) {
    for (int i = 0; i < 64; ++i) {
      CHECK(std::isnan(from_bf16(result[i])) == (i == 10 || i == 11 || i == 20));
    }
  }
}

/// The last rank comes late: the others have waited for it.
inline void check_device_seconds(const DeviceFactory& make, int size) {
  constexpr double kLate = 0.05;
  require_no_errors(on_devices(make, size, [&](DeviceRank& mine) {
    OnDevice<std::uint16_t> values(Bits(1000, 0), mine.stream);
    mine.host.barrier();
    mine.comm.all_reduce(values.bf16(), 1000, mine.stream);
    mine.comm.synchronize(mine.stream);
    const double before = mine.comm.seconds().value();
    CHECK(before > 0);
    mine.host.barrier();
    if (mine.comm.rank() == size - 1) std::this_thread::sleep_for(std::chrono::duration<double>(kLate));
    mine.comm.all_reduce(values.bf16(), 1000, mine.stream);
    mine.comm.synchronize(mine.stream);
    const double took = mine.comm.seconds().value() - before;
    if (mine.comm.rank() != size - 1) CHECK(took > kLate / 2);
    mine.host.barrier();
  }));
}

/// The last rank aborts instead of coming: all others throw, then and later.
inline void check_device_abort(const DeviceFactory& make, int size) {
  const auto errors = on_devices(make, size, [&](DeviceRank& mine) {
    OnDevice<std::uint16_t> values(Bits(1000, 0), mine.stream);
    mine.host.barrier();
    for (int call = 0; call < 5; ++call) {
      if (mine.comm.rank() == size - 1 && call == 3) {
        mine.host.abort();
        return;
      }
      mine.comm.all_reduce(values.bf16(), 1000, mine.stream);
      mine.comm.synchronize(mine.stream);
    }
  });
  for (int rank = 0; rank + 1 < size; ++rank) {
    REQUIRE(errors[rank]);
    CHECK_THROWS_AS(std::rethrow_exception(errors[rank]), DeviceError);
  }
  CHECK(!errors[size - 1]);
}

}  // namespace qwenbench::comm
