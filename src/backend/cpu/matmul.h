// Matrix product kernels of one instruction set (see kernels.h for the order of summation).
#pragma once

#include <math.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"

namespace qwenbench::backend::cpu::QWENBENCH_ISA {

// ---- loaders: element k of a panel as 16 lanes ----

struct F32Panel {
  const float* p;
  F32Panel(const PackedMatrix& w, int panel)
      : p(reinterpret_cast<const float*>(w.data) + int64_t{panel} * w.k * kPanel) {}
  explicit F32Panel(const float* unpacked) : p(unpacked) {}
  static constexpr bool kGrouped = false;
  QB_INLINE void set_group(int) {}
  QB_INLINE F32x16 at(int k) const { return load(p + int64_t{k} * kPanel); }
};

struct BF16Panel {
  const uint16_t* p;
  BF16Panel(const PackedMatrix& w, int panel)
      : p(reinterpret_cast<const uint16_t*>(w.data) + int64_t{panel} * w.k * kPanel) {}
  static constexpr bool kGrouped = false;
  QB_INLINE void set_group(int) {}
  QB_INLINE F32x16 at(int k) const { return load_bf16(p + int64_t{k} * kPanel); }
};

struct F16Panel {
  const uint16_t* p;
  F16Panel(const PackedMatrix& w, int panel)
      : p(reinterpret_cast<const uint16_t*>(w.data) + int64_t{panel} * w.k * kPanel) {}
  static constexpr bool kGrouped = false;
  QB_INLINE void set_group(int) {}
  QB_INLINE F32x16 at(int k) const { return load_fp16(p + int64_t{k} * kPanel); }
};

template <bool kScaleIsF16>
struct Int4Panel {
  const uint8_t* p;
  const uint16_t* scales;
  const uint8_t* zeros;
  F32x16 scale, zero;
  Int4Panel(const PackedMatrix& w, int panel)
      : p(w.data + int64_t{panel} * w.k * (kPanel / 2)),
        scales(w.scales + int64_t{panel} * w.groups * kPanel),
        zeros(w.zeros + int64_t{panel} * w.groups * kPanel),
        scale(set1(0)),
        zero(set1(0)) {}
  static constexpr bool kGrouped = true;
  QB_INLINE void set_group(int g) {
    scale = kScaleIsF16 ? load_fp16(scales + g * kPanel) : load_bf16(scales + g * kPanel);
    zero = load_u8(zeros + g * kPanel);
  }
  QB_INLINE F32x16 at(int k) const {
    const F32x16 w = mul(sub(load_nibbles(p + int64_t{k} * (kPanel / 2)), zero), scale);
    return kScaleIsF16 ? round_fp16(w) : round_bf16(w);
  }
};

struct E4M3Panel {
  const uint8_t* p;
  const float* scales;
  F32x16 scale;
  E4M3Panel(const PackedMatrix& w, int panel)
      : p(w.data + int64_t{panel} * w.k * kPanel),
        scales(w.block_scales + int64_t{panel} * w.groups * kPanel),
        scale(set1(0)) {}
  static constexpr bool kGrouped = true;
  QB_INLINE void set_group(int g) { scale = load(scales + g * kPanel); }
  QB_INLINE F32x16 at(int k) const { return mul(load_e4m3(p + int64_t{k} * kPanel), scale); }
};

// ---- the product ----

/// The columns of a segment, cut where the group changes.
template <class Body>
QB_INLINE void for_group_runs(const PackedMatrix& w, int begin, int end, bool grouped, Body body) {
  if (!grouped) return body(begin, end, 0);
  while (begin < end) {
    const int group = begin / w.group_size;
    const int stop = (group + 1) * w.group_size < end ? (group + 1) * w.group_size : end;
    body(begin, stop, group);
    begin = stop;
  }
}

/// acc[m][p] = sum over k of x[m][k] * panel p, segment by segment, the segments' sums as a balanced tree: after
/// segment s, one finished subtree is waiting for each bit set in s + 1.
template <int kRows, int kPanels, class Panel>
QB_INLINE void product(const PackedMatrix& w, Panel* panels, const float* x, int64_t stride,
                       F32x16 (&acc)[kRows][kPanels]) {
  F32x16 waiting[4][kRows][kPanels];
  const int length = (w.k + w.segments - 1) / w.segments;
  int level = 0;
  for (int segment = 0; segment < w.segments; ++segment) {
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) acc[m][p] = zero();
    const int begin = segment * length < w.k ? segment * length : w.k;
    const int end = begin + length < w.k ? begin + length : w.k;
    for_group_runs(
        w, begin, end, Panel::kGrouped, [&](int run_begin, int run_end, int group) __attribute__((always_inline)) {
#pragma GCC unroll 4
          for (int p = 0; p < kPanels; ++p) panels[p].set_group(group);
          for (int k = run_begin; k < run_end; ++k) {
            F32x16 b[kPanels];
#pragma GCC unroll 4
            for (int p = 0; p < kPanels; ++p) b[p] = panels[p].at(k);
#pragma GCC unroll 16
            for (int m = 0; m < kRows; ++m) {
              const F32x16 a = set1(x[m * stride + k]);
#pragma GCC unroll 4
              for (int p = 0; p < kPanels; ++p) acc[m][p] = fma(a, b[p], acc[m][p]);
            }
          }
        });
    for (level = 0; (segment >> level) & 1; ++level)
      for (int m = 0; m < kRows; ++m)
        for (int p = 0; p < kPanels; ++p) acc[m][p] = add(waiting[level][m][p], acc[m][p]);
    for (int m = 0; m < kRows; ++m)
      for (int p = 0; p < kPanels; ++p) waiting[level][m][p] = acc[m][p];
  }
}

QB_INLINE F32x16 gelu_erf(F32x16 x) {
  float lanes[kLanes];
  store(lanes, x);
  for (float& v : lanes) v = 0.5f * v * (1.0f + erff(v * 0.707106781f));
  return load(lanes);
}

QB_INLINE void finish(const MatmulArgs& a, int row, int panel, F32x16 sum) {
  const int column = panel * kPanel;
  const int count = a.weight->n - column < kPanel ? a.weight->n - column : kPanel;
  float lanes[kLanes];
  if (a.bias) {
    if (count == kPanel) {
      sum = add(sum, load(a.bias + column));
    } else {
      store(lanes, zero());
      for (int i = 0; i < count; ++i) lanes[i] = a.bias[column + i];
      sum = add(sum, load(lanes));
    }
  }
  if (a.activation == MatmulActivation::kGeluTanh) sum = gelu_tanh(sum);
  if (a.activation == MatmulActivation::kGeluErf) sum = gelu_erf(sum);
  float* out = a.y + row * a.y_stride + column;
  if (count == kPanel) return store(out, sum);
  store(lanes, sum);
  for (int i = 0; i < count; ++i) out[i] = lanes[i];
}

template <int kRows, int kPanels, class Panel>
void tile(const MatmulArgs& a, Panel* panels, int row, int panel) {
  F32x16 acc[kRows][kPanels];
  product<kRows, kPanels>(*a.weight, panels, a.x + row * a.x_stride, a.x_stride, acc);
  for (int m = 0; m < kRows; ++m)
    for (int p = 0; p < kPanels; ++p) finish(a, row + m, panel + p, acc[m][p]);
}

/// Few rows: weights are converted as they stream by, several panels at once where that fills the pipeline.
template <int kRows, int kPanels, class Panel>
void few_rows(const MatmulArgs& a, int panel_begin, int panel_end) {
  int panel = panel_begin;
  for (; panel + kPanels <= panel_end; panel += kPanels) {
    alignas(Panel) unsigned char storage[kPanels][sizeof(Panel)];
    Panel* panels = reinterpret_cast<Panel*>(storage);
    for (int p = 0; p < kPanels; ++p) new (panels + p) Panel(*a.weight, panel + p);
    tile<kRows, kPanels>(a, panels, 0, panel);
  }
  for (; panel < panel_end; ++panel) {
    Panel one(*a.weight, panel);
    tile<kRows, 1>(a, &one, 0, panel);
  }
}

/// Rows of a register tile: as many as leave room for a panel vector and a broadcast.
#if defined(__AVX512F__) && defined(__AVX512DQ__)
constexpr int kTileRows = 12;
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 1;
#endif

/// Rows left over after the full tiles.
template <int kRows>
void remaining_rows(const MatmulArgs& a, F32Panel* panel, int row, int index) {
  if constexpr (kRows > 0) {
    if (a.rows - row == kRows) return tile<kRows, 1>(a, panel, row, index);
    remaining_rows<kRows - 1>(a, panel, row, index);
  }
}

/// Many rows: each panel is unpacked to fp32 once and used by all of them.
template <class Panel>
void many_rows(const MatmulArgs& a, int panel_begin, int panel_end) {
  const PackedMatrix& w = *a.weight;
  for (int index = panel_begin; index < panel_end; ++index) {
    Panel source(w, index);
    if (Panel::kGrouped && w.group_of_k) {
      for (int k = 0; k < w.k; ++k) {
        source.set_group(w.group_of_k[k]);
        store(a.scratch + int64_t{k} * kPanel, source.at(k));
      }
    } else {
      for_group_runs(w, 0, w.k, Panel::kGrouped, [&](int begin, int end, int group) {
        source.set_group(group);
        for (int k = begin; k < end; ++k) store(a.scratch + int64_t{k} * kPanel, source.at(k));
      });
    }
    F32Panel panel(a.scratch);
    int row = 0;
    for (; row + kTileRows <= a.rows; row += kTileRows) tile<kTileRows, 1>(a, &panel, row, index);
    remaining_rows<kTileRows - 1>(a, &panel, row, index);
  }
}

template <class Panel>
void matmul_form(const MatmulArgs& a, int panel_begin, int panel_end) {
  if (a.weight->group_of_k || kTileRows == 1) return many_rows<Panel>(a, panel_begin, panel_end);
#if defined(__AVX2__)
  switch (a.rows) {
    case 1:
      return few_rows<1, 4, Panel>(a, panel_begin, panel_end);
    case 2:
      return few_rows<2, 2, Panel>(a, panel_begin, panel_end);
    case 3:
      return few_rows<3, 2, Panel>(a, panel_begin, panel_end);
    case 4:
      return few_rows<4, 1, Panel>(a, panel_begin, panel_end);
    default:
      return many_rows<Panel>(a, panel_begin, panel_end);
  }
#endif
}

inline void matmul(const MatmulArgs& a, int panel_begin, int panel_end) {
  switch (a.weight->form) {
    case PackedMatrix::Form::kF32:
      return matmul_form<F32Panel>(a, panel_begin, panel_end);
    case PackedMatrix::Form::kF16:
      return matmul_form<F16Panel>(a, panel_begin, panel_end);
    case PackedMatrix::Form::kBF16:
      return matmul_form<BF16Panel>(a, panel_begin, panel_end);
    case PackedMatrix::Form::kInt4:
      return a.weight->scale_is_f16 ? matmul_form<Int4Panel<true>>(a, panel_begin, panel_end)
                                    : matmul_form<Int4Panel<false>>(a, panel_begin, panel_end);
    case PackedMatrix::Form::kE4M3:
      return matmul_form<E4M3Panel>(a, panel_begin, panel_end);
  }
}

}  // namespace qwenbench::backend::cpu::QWENBENCH_ISA
