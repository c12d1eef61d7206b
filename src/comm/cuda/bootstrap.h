// Bytes over a host communicator, which carries floats: each byte travels as one float, exact in every implementation.
#pragma once

#include <cstring>
#include <type_traits>
#include <vector>

#include "comm/communicator.h"

namespace qwenbench::comm {

/// What each rank calls `mine`, in rank order. A collective call.
template <class T>
std::vector<T> gather_objects(Communicator& host, const T& mine) {
  static_assert(std::is_trivially_copyable_v<T>);
  unsigned char bytes[sizeof(T)];
  std::memcpy(bytes, &mine, sizeof(T));
  const std::vector<float> sent(bytes, bytes + sizeof(T));
  std::vector<float> received(sent.size() * host.size());
  host.all_gather(sent, received);
  std::vector<T> all(host.size());
  for (std::size_t i = 0; i < received.size(); ++i) {
    bytes[i % sizeof(T)] = static_cast<unsigned char>(received[i]);
    if ((i + 1) % sizeof(T) == 0) std::memcpy(&all[i / sizeof(T)], bytes, sizeof(T));
  }
  return all;
}

}  // namespace qwenbench::comm
