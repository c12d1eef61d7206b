// Communicators between GPUs. With one GPU the ranks of p2p share it, which tests all but the link; NCCL then runs with
// one rank.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "comm/cuda/choose.h"
#include "comm/device_conformance.h"

using namespace qwenbench;

namespace {

/// While a rank waits on a shared device, the driver must not want it idle in order to load the other's kernels.
const bool kEagerLoading = setenv("CUDA_MODULE_LOADING", "EAGER", 1) == 0;

bool have_device() {
  static const bool have = [] {
    if (cuda_device_count() > 0) return true;
    std::puts("skipped: no CUDA device");
    return false;
  }();
  return have;
}

comm::DeviceFactory p2p(comm::DeviceCommunicatorOptions options = {}) {
  if (test::is_reduced()) options.time_out_s *= 12;  // a sanitizer runs
  return [options](std::shared_ptr<comm::Communicator> host) { return comm::make_p2p(std::move(host), options); };
}

comm::DeviceFactory nccl() {
  return [](std::shared_ptr<comm::Communicator> host) { return comm::make_nccl(std::move(host)); };
}

comm::DeviceFactory through_host() {
  return [](std::shared_ptr<comm::Communicator> host) { return comm::make_host(std::move(host)); };
}

/// Two devices without peer access: p2p cannot be tested across them.
bool have_peers() {
  const std::vector<int> devices = {0, 1 % cuda_device_count()};
  int can = 1;
  if (devices[1] != 0) comm::cuda(cudaDeviceCanAccessPeer(&can, 0, 1));
  if (!can) std::puts("skipped: no peer access between GPU 0 and GPU 1");
  return can != 0;
}

}  // namespace

TEST_CASE("p2p: sums and gathers of every size, on two to four ranks") {
  if (!have_device() || !have_peers()) return;
  if (cuda_device_count() == 1) std::puts("p2p: one GPU, the ranks share it");
  for (const int size : {2, 3, 4}) {
    CAPTURE(size);
    comm::check_device_all_reduce(p2p(), size);
    comm::check_device_all_gather(p2p(), size);
  }
  comm::check_device_nans(p2p(), 2);
}

TEST_CASE("p2p: all-reduce, addition and norm, one-shot and two-shot") {
  if (!have_device() || !have_peers()) return;
  for (const int size : {2, 3, 4}) {
    CAPTURE(size);
    comm::check_device_add_norm(p2p(), size, true);
  }
  comm::DeviceCommunicatorOptions always_two_shot;
  always_two_shot.two_shot_bytes = 0;
  for (const int size : {2, 3}) {
    CAPTURE(size);
    comm::check_device_add_norm(p2p(always_two_shot), size, true);
  }
}

TEST_CASE("p2p: a captured graph, replayed while ranks come late") {
  if (!have_device() || !have_peers()) return;
  for (const int size : {2, 3}) comm::check_device_graph(p2p(), size, true);
}

TEST_CASE("p2p: a rank that aborts is not waited for") {
  if (!have_device() || !have_peers()) return;
  comm::DeviceCommunicatorOptions patient;
  patient.time_out_s = 1000;
  comm::check_device_abort(p2p(patient), 2);
  comm::check_device_abort(p2p(patient), 3);
}

TEST_CASE("p2p: a rank that does not come is not waited for beyond the time-out, and later calls not at all") {
  if (!have_device() || !have_peers()) return;
  comm::DeviceCommunicatorOptions impatient;
  impatient.time_out_s = 0.2;
  const auto errors = comm::on_devices(p2p(impatient), 2, [&](comm::DeviceRank& mine) {
    comm::OnDevice<std::uint16_t> values(comm::Bits(1000, 0), mine.stream);
    mine.host.barrier();
    if (mine.comm.rank() == 0) {
      mine.comm.all_reduce(values.bf16(), 1000, mine.stream);
      std::string message;
      try {
        mine.comm.synchronize(mine.stream);
      } catch (const DeviceError& error) {
        message = error.what();
      }
      CHECK(message.find("did not come") != std::string::npos);
      for (int call = 0; call < 100; ++call) mine.comm.all_reduce(values.bf16(), 1000, mine.stream);
      CHECK_THROWS_AS(mine.comm.synchronize(mine.stream), DeviceError);
    }
    mine.host.barrier();
  });
  comm::require_no_errors(errors);
}

TEST_CASE("p2p: bad arguments are refused") {
  if (!have_device() || !have_peers()) return;
  comm::require_no_errors(comm::on_devices(p2p(), 2, [&](comm::DeviceRank& mine) {
    comm::OnDevice<std::uint16_t> values(comm::Bits(64, 0), mine.stream);
    CHECK_THROWS_AS(mine.comm.all_reduce(values.bf16() + 1, 8, mine.stream), DeviceError);
    CHECK_THROWS_AS(mine.comm.all_gather(values.get(), 1, 3, values.get(), mine.stream), DeviceError);
    kernels::AddNorm args;
    args.rows = 1;
    args.width = 12;
    CHECK_THROWS_AS(mine.comm.all_reduce_add_norm(args, mine.stream), DeviceError);
    mine.host.barrier();
  }));
}

TEST_CASE("through the host: the same suite") {
  if (!have_device()) return;
  for (const int size : {2, 3}) {
    CAPTURE(size);
    comm::check_device_all_reduce(through_host(), size);
    comm::check_device_all_gather(through_host(), size);
    comm::check_device_add_norm(through_host(), size, false);  // the sum is rounded before the addition
    comm::check_device_abort(through_host(), size);
  }
  comm::check_device_nans(through_host(), 2);
  comm::check_device_seconds(through_host(), 2);
}

TEST_CASE("p2p: time in collectives counts the wait for a late rank") {
  if (!have_device() || !have_peers()) return;
  comm::check_device_seconds(p2p(), 2);
}

TEST_CASE("NCCL: the same suite") {
  if (!have_device()) return;
  if (!comm::has_nccl()) {
    std::puts("skipped: this build has no NCCL");
    return;
  }
  const int size = std::min(2, cuda_device_count());
  if (size < 2) std::puts("NCCL: one GPU, hence one rank; two ranks skipped");
  comm::check_device_all_reduce(nccl(), size);
  comm::check_device_all_gather(nccl(), size);
  comm::check_device_add_norm(nccl(), size, size == 1);
  comm::check_device_graph(nccl(), size, size == 1);
  comm::check_device_nans(nccl(), size);
  if (size > 1) comm::check_device_abort(nccl(), size);
}

TEST_CASE("the choice between them") {
  if (!have_device()) return;
  const std::vector<int> one = {0}, shared = {0, 0};
  CHECK(comm::choose_all_reduce("auto", one).kind == comm::AllReduce::kNone);
  CHECK(comm::choose_all_reduce("auto", shared).kind == comm::AllReduce::kHost);
  CHECK(comm::choose_all_reduce("host", shared).kind == comm::AllReduce::kHost);
  CHECK(comm::choose_all_reduce("p2p", shared).kind == comm::AllReduce::kP2p);
  CHECK_THROWS_AS(comm::choose_all_reduce("nccl", shared), DeviceError);  // one GPU for two ranks
  if (cuda_device_count() < 2) return;
  const std::vector<int> two = {0, 1};
  const auto choice = comm::choose_all_reduce("auto", two);
  CHECK((choice.kind == comm::AllReduce::kP2p) == choice.peer_access);
  CHECK(!choice.why.empty());
  if (comm::has_nccl()) CHECK(comm::choose_all_reduce("nccl", two).kind == comm::AllReduce::kNccl);
}
