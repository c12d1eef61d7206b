// Attention of one block of query rows over the keys of one head: scores, online softmax and weighted values, 16 keys
// at a time in the order of their positions, whatever the chunk that the rows came in.
#pragma once

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"

namespace qwenbench::backend::cpu::QWENBENCH_ISA {

#if defined(__AVX2__)
constexpr int kAttentionRows = 6;
#else
constexpr int kAttentionRows = 1;
#endif

struct AttentionScratch {
  float* keys;     // [kTilesAtOnce][head_dim][16]
  float* values;   // [kTilesAtOnce][16][head_dim]
  float* q;        // [kQueryBlock][head_dim]
  float* out;      // [kQueryBlock][head_dim]
  float* maximum;  // [kQueryBlock]
  float* sum;      // [kQueryBlock]

  AttentionScratch(float* base, int d) {
    keys = base;
    values = keys + int64_t{kTilesAtOnce} * kTokenTile * d;
    q = values + int64_t{kTilesAtOnce} * kTokenTile * d;
    out = q + int64_t{kQueryBlock} * d;
    maximum = out + int64_t{kQueryBlock} * d;
    sum = maximum + kQueryBlock;
  }
};

QB_INLINE int64_t tile_offset(const AttentionArgs& a, int tile) {
  if (!a.blocks) return tile * a.tile_stride;
  return a.blocks[tile / a.tiles_per_block] * a.block_stride + tile % a.tiles_per_block * a.tile_stride;
}

template <CacheForm kForm>
constexpr int kElementBytes = kForm == CacheForm::kF32    ? 4
                              : kForm == CacheForm::kBF16 ? 2
                                                          : 1;

QB_INLINE F32x16 load_cached(CacheForm form, const uint8_t* base, int64_t index) {
  switch (form) {
    case CacheForm::kF32:
      return load(reinterpret_cast<const float*>(base) + index);
    case CacheForm::kBF16:
      return load_bf16(reinterpret_cast<const uint16_t*>(base) + index);
    default:
      return load_e4m3(base + index);
  }
}

template <CacheForm kForm>
void unpack_tile(const AttentionArgs& a, int tile, float* keys, float* values) {
  const int64_t offset = tile_offset(a, tile);
  const int d = a.head_dim;
  const int filled = a.kv_length - tile * kTokenTile < kTokenTile ? a.kv_length - tile * kTokenTile : kTokenTile;
  const F32x16 k_scale = set1(a.k_scale), v_scale = set1(a.v_scale);
  for (int i = 0; i < d; ++i) {
    const F32x16 k = load_cached(kForm, a.keys + offset, int64_t{i} * kTokenTile);
    store(keys + int64_t{i} * kTokenTile, kForm == CacheForm::kE4M3 ? mul(k, k_scale) : k);
  }
  for (int t = 0; t < kTokenTile; ++t) {
    for (int i = 0; i < d; i += kLanes) {
      F32x16 v = zero();  // beyond the end lies what an earlier sequence left: weight 0 times that may be NaN
      if (t < filled) v = load_cached(kForm, a.values + offset, int64_t{t} * d + i);
      store(values + int64_t{t} * d + i, kForm == CacheForm::kE4M3 ? mul(v, v_scale) : v);
    }
  }
}

/// e4m3(weight / scale) as a float, of 16 weights from 0 to 1.
QB_INLINE void round_to_e4m3(float* weight, float scale) {
  for (int i = 0; i < kTokenTile; ++i) {
    const float x = weight[i] / scale;
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    const uint32_t normal = (bits + 0x7ffffu + ((bits >> 20) & 1u)) & ~0xfffffu;  // 3 bits of mantissa, ties to even
    const float subnormal = (x + 24576.0f) - 24576.0f;                            // below 2^-6: multiples of 2^-9
    const float rounded = x < 0x1p-6f ? subnormal : __builtin_bit_cast(float, normal);
    weight[i] = rounded > 448.0f ? 448.0f : rounded;
  }
}

/// Masks and scales one tile's scores of one row, moves the row's running maximum and sum, and leaves the weights.
QB_INLINE void update_row(const AttentionArgs& a, const AttentionScratch& s, int row, int first_key, F32x16 score,
                          float* weight) {
  alignas(64) static constexpr float kIota[kTokenTile] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const int d = a.head_dim;
  // Lanes above last_key are masked; the comparison is exact for small integers.
  const F32x16 limit = set1(static_cast<float>(a.last_key[row] - first_key) + 0.5f);
  const F32x16 masked = select_less(load(kIota), limit, mul(score, set1(a.scale)), set1(-__builtin_inff()));
  const float tile_max = reduce_max(masked);
  if (tile_max > s.maximum[row]) {
    alignas(64) float lanes[kLanes];
    store(lanes, exp(set1(s.maximum[row] - tile_max)));
    const float shrink = lanes[0];
    s.sum[row] *= shrink;
    float* out = s.out + int64_t{row} * d;
    for (int i = 0; i < d; i += kLanes) store(out + i, mul(load(out + i), set1(shrink)));
    s.maximum[row] = tile_max;
  }
  const F32x16 p = exp(sub(masked, set1(s.maximum[row])));
  s.sum[row] += reduce_add(p);
  store(weight, p);
  if (a.prob_scale > 0) round_to_e4m3(weight, a.prob_scale);
}

/// Rows [row, row + kRows) against one tile of keys whose first position is first_key.
template <int kRows>
void attend_tile(const AttentionArgs& a, const AttentionScratch& s, const float* keys, const float* values, int row,
                 int first_key) {
  const int d = a.head_dim;
  F32x16 score[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) score[r] = zero();
  const float* q = s.q + int64_t{row} * d;
  for (int i = 0; i < d; ++i) {
    const F32x16 k = load(keys + int64_t{i} * kTokenTile);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) score[r] = fma(set1(q[r * d + i]), k, score[r]);
  }
  alignas(64) float weight[kRows][kTokenTile];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) update_row(a, s, row + r, first_key, score[r], weight[r]);
  for (int i = 0; i < d; i += kLanes) {
    F32x16 acc[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) acc[r] = load(s.out + int64_t{row + r} * d + i);
#pragma GCC unroll 16
    for (int t = 0; t < kTokenTile; ++t) {
      const F32x16 v = load(values + int64_t{t} * d + i);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) acc[r] = fma(set1(weight[r][t]), v, acc[r]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) store(s.out + int64_t{row + r} * d + i, acc[r]);
  }
}

/// One group of rows over the tiles that were unpacked; tiles beyond the last key of all its rows are left out.
template <int kRows>
void attend_group(const AttentionArgs& a, const AttentionScratch& s, int row, int first_tile, int tiles) {
  int last = 0;
  for (int r = 0; r < kRows; ++r) last = a.last_key[row + r] > last ? a.last_key[row + r] : last;
  for (int i = 0; i < tiles; ++i) {
    const int first_key = (first_tile + i) * kTokenTile;
    if (first_key > last) return;
    const int64_t offset = int64_t{i} * kTokenTile * a.head_dim;
    attend_tile<kRows>(a, s, s.keys + offset, s.values + offset, row, first_key);
  }
}

template <int kRows>
void attend_remaining(const AttentionArgs& a, const AttentionScratch& s, int row, int first_tile, int tiles) {
  if constexpr (kRows > 0) {
    if (a.rows - row == kRows) return attend_group<kRows>(a, s, row, first_tile, tiles);
    attend_remaining<kRows - 1>(a, s, row, first_tile, tiles);
  }
}

/// Many rows: a few tiles are unpacked to fp32 and used by all of them.
template <CacheForm kForm>
void attend_unpacked(const AttentionArgs& a, const AttentionScratch& s, int tiles) {
  const int d = a.head_dim;
  for (int first = 0; first < tiles; first += kTilesAtOnce) {
    const int count = tiles - first < kTilesAtOnce ? tiles - first : kTilesAtOnce;
    for (int i = 0; i < count; ++i) {
      const int64_t offset = int64_t{i} * kTokenTile * d;
      unpack_tile<kForm>(a, first + i, s.keys + offset, s.values + offset);
    }
    int row = 0;
    for (; row + kAttentionRows <= a.rows; row += kAttentionRows) attend_group<kAttentionRows>(a, s, row, first, count);
    attend_remaining<kAttentionRows - 1>(a, s, row, first, count);
  }
}

/// out += weights times values of one tile, for few rows: vectors of an output row are summed kSideBySide at a time.
/// Meanwhile the tile of keys at next_keys is fetched, a line (of BF16) for each row of values.
template <CacheForm kForm, int kRows>
QB_INLINE void add_values(const AttentionArgs& a, const AttentionScratch& s, int64_t offset, const uint8_t* next_keys,
                          const float (&weight)[kRows][kTokenTile], int filled) {
  constexpr int kSideBySide = 2;
  const int d = a.head_dim;
  const F32x16 v_scale = set1(a.v_scale);
  for (int i = 0; i < d; i += kSideBySide * kLanes) {
    const bool both = i + kLanes < d;  // the last vector of an odd number is computed twice
    const int column[kSideBySide] = {i, both ? i + kLanes : i};
    F32x16 acc[kSideBySide][kRows];
#pragma GCC unroll 8
    for (int j = 0; j < kSideBySide; ++j)
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) acc[j][r] = load(s.out + int64_t{r} * d + column[j]);
    const uint8_t* next = next_keys + int64_t{i} * kTokenTile * kElementBytes<kForm>;
    for (int t = 0; t < filled; ++t) {
      __builtin_prefetch(next + t * kSideBySide * kLanes * kElementBytes<kForm>, 0, 2);
      F32x16 v[kSideBySide];
#pragma GCC unroll 8
      for (int j = 0; j < kSideBySide; ++j) {
        v[j] = load_cached(kForm, a.values + offset, int64_t{t} * d + column[j]);
        if (kForm == CacheForm::kE4M3) v[j] = mul(v[j], v_scale);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const F32x16 p = set1(weight[r][t]);
#pragma GCC unroll 8
        for (int j = 0; j < kSideBySide; ++j) acc[j][r] = fma(p, v[j], acc[j][r]);
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < kSideBySide; ++j)
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) store(s.out + int64_t{r} * d + column[j], acc[j][r]);
  }
}

/// Few rows, as in decoding: keys and values are converted as they stream by. kSideBySide tiles (and vectors of an
/// output row) are computed together to fill the pipeline; each keeps its own order of operations. The caches of all
/// sequences are read once a step and lie far from the core, tile by tile in other places: what is read next is fetched
/// while this is computed, the values of a tile beside its keys, the next keys beside the values.
template <CacheForm kForm, int kRows>
void attend_streaming(const AttentionArgs& a, const AttentionScratch& s, int tiles) {
  constexpr int kSideBySide = 2;
  const int d = a.head_dim;
  const F32x16 k_scale = set1(a.k_scale);
  for (int first = 0; first < tiles; first += kSideBySide) {
    const int count = tiles - first < kSideBySide ? tiles - first : kSideBySide;
    int64_t offset[kSideBySide];
    for (int j = 0; j < kSideBySide; ++j) offset[j] = tile_offset(a, first + (j < count ? j : 0));
    F32x16 score[kSideBySide][kRows];
#pragma GCC unroll 8
    for (int j = 0; j < kSideBySide; ++j)
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) score[j][r] = zero();
    for (int i = 0; i < d; ++i) {
      F32x16 k[kSideBySide];
#pragma GCC unroll 8
      for (int j = 0; j < kSideBySide; ++j) {
        __builtin_prefetch(a.values + offset[j] + int64_t{i} * kTokenTile * kElementBytes<kForm>, 0, 2);
        k[j] = load_cached(kForm, a.keys + offset[j], int64_t{i} * kTokenTile);
        if (kForm == CacheForm::kE4M3) k[j] = mul(k[j], k_scale);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const F32x16 q = set1(s.q[r * d + i]);
#pragma GCC unroll 8
        for (int j = 0; j < kSideBySide; ++j) score[j][r] = fma(q, k[j], score[j][r]);
      }
    }
    for (int j = 0; j < count; ++j) {
      const int first_key = (first + j) * kTokenTile;
      alignas(64) float weight[kRows][kTokenTile];
      for (int r = 0; r < kRows; ++r) update_row(a, s, r, first_key, score[j][r], weight[r]);
      const int filled = a.kv_length - first_key < kTokenTile ? a.kv_length - first_key : kTokenTile;
      const int next = first + kSideBySide + j < tiles ? first + kSideBySide + j : first;
      add_values<kForm, kRows>(a, s, offset[j], a.keys + tile_offset(a, next), weight, filled);
    }
  }
}

template <CacheForm kForm>
void attention_form(const AttentionArgs& a) {
  const int d = a.head_dim;
  const AttentionScratch s(a.scratch, d);
  int last = 0;
  for (int r = 0; r < a.rows; ++r) {
    for (int i = 0; i < d; i += kLanes) {
      store(s.q + int64_t{r} * d + i, load(a.q_rows[r] + i));
      store(s.out + int64_t{r} * d + i, zero());
    }
    s.maximum[r] = -__builtin_inff();
    s.sum[r] = 0;
    last = a.last_key[r] > last ? a.last_key[r] : last;
  }
  const int tiles = last / kTokenTile + 1;
  if (a.rows == 1)
    attend_streaming<kForm, 1>(a, s, tiles);
  else if (a.rows == 2)
    attend_streaming<kForm, 2>(a, s, tiles);
  else if (a.rows == 4)
    attend_streaming<kForm, 4>(a, s, tiles);
  else
    attend_unpacked<kForm>(a, s, tiles);
  for (int r = 0; r < a.rows; ++r) {
    const F32x16 total = set1(s.sum[r]);
    for (int i = 0; i < d; i += kLanes) {
      F32x16 sum = load(s.out + int64_t{r} * d + i);
      if (a.prob_scale > 0) sum = mul(sum, set1(a.out_scale));
      store(a.out_rows[r] + i, div(sum, total));
    }
  }
}

inline void attention(const AttentionArgs& a) {
  switch (a.form) {
    case CacheForm::kF32:
      return attention_form<CacheForm::kF32>(a);
    case CacheForm::kBF16:
      return attention_form<CacheForm::kBF16>(a);
    case CacheForm::kE4M3:
      return attention_form<CacheForm::kE4M3>(a);
  }
}

}  // namespace qwenbench::backend::cpu::QWENBENCH_ISA
