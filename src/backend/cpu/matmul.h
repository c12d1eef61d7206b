// Matrix product kernels of one instruction set (see kernels.h for the order of summation).
#pragma once

#include <math.h>  // NOLINT(modernize-deprecated-headers)

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"

namespace qwenbench::backend::cpu::QWENBENCH_ISA {

// ---- loaders: element k of a panel as 16 lanes ----

/// An element that is stored as it is. Reading it fetches the same element of the next panel: a core reads one panel
/// after the other, each only once, and would wait for the shared cache at every line.
template <class Element, F32x16 (*kLoad)(const Element*)>
struct DensePanel {
  const Element* p;
  int64_t next_panel;  // in elements
  DensePanel(const PackedMatrix& w, int panel)
      : p(reinterpret_cast<const Element*>(w.data) + int64_t{panel} * w.k * kPanel),
        next_panel(int64_t{w.k} * kPanel) {}
  static constexpr bool kGrouped = false;
  static constexpr int kPanelsOfOneRow = 4;
  QB_INLINE void set_group(int) {}
  QB_INLINE F32x16 at(int k) const {
    const Element* element = p + int64_t{k} * kPanel;
    __builtin_prefetch(element + next_panel, 0, 2);
    return kLoad(element);
  }
};
using F32Panel = DensePanel<float, load>;
using F16Panel = DensePanel<uint16_t, load_fp16>;
using BF16Panel = DensePanel<uint16_t, load_bf16>;

/// A panel that was unpacked into scratch memory.
struct UnpackedPanel {
  const float* p;
  static constexpr bool kGrouped = false;
  QB_INLINE void set_group(int) {}
  QB_INLINE F32x16 at(int k) const { return load(p + int64_t{k} * kPanel); }
};

/// Codes of 4 bits with fp16 scales: fp16((u - zero) * scale).
struct Int4F16Panel {
  const uint8_t* p;
  const uint16_t* scales;
  const uint8_t* zeros;
  F32x16 scale, zero;
  Int4F16Panel(const PackedMatrix& w, int panel)
      : p(w.data + int64_t{panel} * w.k * (kPanel / 2)),
        scales(w.scales + int64_t{panel} * w.groups * kPanel),
        zeros(w.zeros + int64_t{panel} * w.groups * kPanel),
        scale(set1(0)),
        zero(set1(0)) {}
  static constexpr bool kGrouped = true;
  static constexpr int kPanelsOfOneRow = 2;
  QB_INLINE void set_group(int g) {
    scale = load_fp16(scales + g * kPanel);
    zero = load_u8(zeros + g * kPanel);
  }
  QB_INLINE F32x16 at(int k) const {
    return round_fp16(mul(sub(load_nibbles(p + int64_t{k} * (kPanel / 2)), zero), scale));
  }
};

/// Codes of 4 bits with bf16 scales: bf16(d * scale), d = u - zero, rounded by Dekker's splitting, which costs one
/// instruction. d * scale has at most 12 significant bits; hence d * scale * (2^16 + 1), computed in fp32, is
/// 2^16 d * scale plus d * scale rounded to its upper 8 bits, ties to even. A scale has 8 bits: both multiples of it
/// are exact. This holds for every scale from 2^-126 to 2^107.
struct Int4BF16Panel {
  const uint8_t* p;
  const uint16_t* scales;
  const uint8_t* zeros;
  F32x16 scale_split, minus_scale_raised, zero;  // (2^16 + 1) scale, -2^16 scale
  Int4BF16Panel(const PackedMatrix& w, int panel)
      : p(w.data + int64_t{panel} * w.k * (kPanel / 2)),
        scales(w.scales + int64_t{panel} * w.groups * kPanel),
        zeros(w.zeros + int64_t{panel} * w.groups * kPanel),
        scale_split(set1(0)),
        minus_scale_raised(set1(0)),
        zero(set1(0)) {}
  static constexpr bool kGrouped = true;
  static constexpr int kPanelsOfOneRow = 2;
  QB_INLINE void set_group(int g) {
    const F32x16 scale = load_bf16(scales + g * kPanel);
    scale_split = mul(scale, set1(0x1p16f + 1));
    minus_scale_raised = mul(scale, set1(-0x1p16f));
    zero = load_u8(zeros + g * kPanel);
  }
  QB_INLINE F32x16 at(int k) const {
    const F32x16 d = sub(load_nibbles(p + int64_t{k} * (kPanel / 2)), zero);
    return fma(d, minus_scale_raised, mul(d, scale_split));
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
  static constexpr int kPanelsOfOneRow = 2;
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

/// acc[m][p] = sum over k in [begin, end) of x[m][k] * panel p, in order.
template <int kRows, int kPanels, class Panel>
QB_INLINE void segment_product(const PackedMatrix& w, Panel* panels, const float* x, int64_t stride, int begin, int end,
                               F32x16 (&acc)[kRows][kPanels]) {
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) acc[m][p] = zero();
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
}

/// acc[m][p] = sum over k of x[m][k] * panel p, segment by segment, the segments' sums as a balanced tree: after
/// segment s, one finished subtree is waiting for each bit set in s + 1. (The subtrees wait as floats: GCC copies a
/// struct of vectors in halves.)
template <int kRows, int kPanels, class Panel>
QB_INLINE void product(const PackedMatrix& w, Panel* panels, const float* x, int64_t stride,
                       F32x16 (&acc)[kRows][kPanels]) {
  alignas(64) float waiting[4][kRows][kPanels][kLanes];
  const int length = (w.k + w.segments - 1) / w.segments;
  int segment = 0;
  do {
    const int begin = segment * length < w.k ? segment * length : w.k;
    const int end = begin + length < w.k ? begin + length : w.k;
    segment_product(w, panels, x, stride, begin, end, acc);
    int level = 0;
    for (; (segment >> level) & 1; ++level)
#pragma GCC unroll 16
      for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) acc[m][p] = add(load(waiting[level][m][p]), acc[m][p]);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) store(waiting[level][m][p], acc[m][p]);
  } while (++segment < w.segments);
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

/// tile() of `rows` rows, at most kRows.
template <int kRows, class Panel>
void tile_of(int rows, const MatmulArgs& a, Panel panel, int row, int index) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return tile<kRows, 1>(a, &panel, row, index);
    tile_of<kRows - 1>(rows, a, panel, row, index);
  }
}

/// All rows against one panel, in tiles of nearly equal height: one of a row or two would not fill the pipeline.
template <class Panel>
void all_rows(const MatmulArgs& a, Panel panel, int index) {
  int row = 0;
  for (int tiles = (a.rows + kTileRows - 1) / kTileRows; tiles > 0; --tiles) {
    const int height = (a.rows - row + tiles - 1) / tiles;
    tile_of<kTileRows>(height, a, panel, row, index);
    row += height;
  }
}

/// scratch = a grouped panel in fp32, [k][16].
template <class Panel>
void unpack(const PackedMatrix& w, Panel panel, float* scratch) {
  if (w.group_of_k) {
    for (int k = 0; k < w.k; ++k) {
      panel.set_group(w.group_of_k[k]);
      store(scratch + int64_t{k} * kPanel, panel.at(k));
    }
    return;
  }
  for_group_runs(w, 0, w.k, true, [&](int begin, int end, int group) {
    panel.set_group(group);
    for (int k = begin; k < end; ++k) store(scratch + int64_t{k} * kPanel, panel.at(k));
  });
}

/// Many rows: each panel is used by all of them; grouped weights are unpacked to fp32 first, once.
template <class Panel>
void many_rows(const MatmulArgs& a, int panel_begin, int panel_end) {
  for (int index = panel_begin; index < panel_end; ++index) {
    Panel panel(*a.weight, index);
    if constexpr (Panel::kGrouped) {
      unpack(*a.weight, panel, a.scratch);
      all_rows(a, UnpackedPanel{a.scratch}, index);
    } else {
      all_rows(a, panel, index);
    }
  }
}

template <class Panel>
void matmul_form(const MatmulArgs& a, int panel_begin, int panel_end) {
  if (a.weight->group_of_k || kTileRows == 1) return many_rows<Panel>(a, panel_begin, panel_end);
#if defined(__AVX2__)
  switch (a.rows) {
    case 1:
      return few_rows<1, Panel::kPanelsOfOneRow, Panel>(a, panel_begin, panel_end);
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
      return a.weight->scale_is_f16 ? matmul_form<Int4F16Panel>(a, panel_begin, panel_end)
                                    : matmul_form<Int4BF16Panel>(a, panel_begin, panel_end);
    case PackedMatrix::Form::kE4M3:
      return matmul_form<E4M3Panel>(a, panel_begin, panel_end);
  }
}

}  // namespace qwenbench::backend::cpu::QWENBENCH_ISA
