// The kernels of `sequence.hpp` for one instruction set: ORGANICS_ISA names it, and the compiler's
// flags choose it.
#include "cells/antisymmetric.hpp"
#include "cells/cornn.hpp"
#include "cells/lem.hpp"
#include "cells/lipschitz.hpp"
#include "cells/lstm.hpp"
#include "cells/organics.hpp"
#include "cells/tanh.hpp"

namespace organics {
namespace {

// ---- weights, packed -----------------------------------------------------------------------------

// Where each packed matrix begins: of each receiver, that of its sources, forward and back, and that
// of the input; and that of the input, back.
template <typename T>
struct Packed {
  struct Receiving {
    T *forward, *back, *input;
  } of[4];
  T* input_back;
  T* end;

  template <typename C>
  Packed(const Shape& s, const C& cell, T* base) {
    const Index h = s.hidden;
    for (int i = 0; i < cell.receivers(); ++i) {
      const Receiver r = cell.receiver(i);
      const Index square = r.parts * h * r.sources * h;
      of[i] = {base, base + square, base + 2 * square};
      base = of[i].input + (takes_input<C>(r) ? r.parts * h * s.inputs : 0);
    }
    input_back = base;
    end = input_back + C::kInputs * h * round_up(s.inputs);
  }
};

template <typename T, typename C>
Index packed_size(const Shape& s, const Settings& settings) {
  return Packed<T>(s, C(settings), nullptr).end - static_cast<T*>(nullptr);
}

template <typename T, typename C>
void pack(const Shape& s, const Settings& settings, const Weights<T>& w, T* base, bool backward) {
  const C cell(settings);
  const Index h = s.hidden, m = s.inputs;
  const Packed<T> p(s, cell, base);
  for (int i = 0; i < cell.receivers(); ++i) {
    const Receiver r = cell.receiver(i);
    const Index receives = r.parts * h, sends = r.sources * h;
    if (r.matrix >= 0) {
      const T* const matrix = w.matrix[r.matrix];
      pack_matrix(sends, receives, receives, matrix, 1, sends, p.of[i].forward);
      if (backward) pack_matrix(receives, sends, sends, matrix, sends, 1, p.of[i].back);
    }
    if (takes_input<C>(r))
      pack_matrix(m, receives, receives, w.input + (r.part - C::kInput) * h * m, 1, m,
                  p.of[i].input);
  }
  if (backward) pack_matrix(C::kInputs * h, round_up(m), m, w.input, m, 1, p.input_back);
}

template <typename T, typename C>
Form form(const Settings& settings) {
  const C cell(settings);
  Form f{C::kState, {}, C::kInputs, C::kVectors, cell.kept()};
  for (int i = 0; i < cell.receivers(); ++i) {
    const Receiver r = cell.receiver(i);
    if (r.matrix >= 0) f.matrix[r.matrix] = {r.parts, r.sources};
  }
  return f;
}

// ---- one step ------------------------------------------------------------------------------------

// Few enough samples that a segment of records stays in the cache next to the weights.
constexpr Index kTile = 32;

// All there is of a call, for one cell.
template <typename T, typename C>
struct Call {
  static constexpr Index kState = C::kState, kBoth = C::kState + C::kSeen;

  const Shape& s;
  const C cell;
  const Weights<T>& w;
  const Packed<T> p;
  const Index h, m, record, cotangent;
  Receiver receivers[4];

  Call(const Shape& shape, const Settings& settings, const Weights<T>& weights, const T* packed)
      : s(shape),
        cell(settings),
        w(weights),
        p(shape, cell, const_cast<T*>(packed)),
        h(shape.hidden),
        m(shape.inputs),
        record(C::kRecord * h),
        cotangent(C::kCotangents * h) {
    for (int i = 0; i < cell.receivers(); ++i) receivers[i] = cell.receiver(i);
  }

  Parts<T> parameters(Index i) const { return {const_cast<T*>(w.vectors) + i, h}; }

  // Puts the states of `rows` samples into their records.
  void begin(Index rows, const T* states, T* records) const {
    copy_rows(rows, kState * h, states, kState * h, records, record);
    if constexpr (C::kSeen > 0)
      for (Index r = 0; r < rows; ++r)
        for (Index i = 0; i < h; i += kLanes<T>) cell.see({records + r * record + i, h});
  }

  // The records of `rows` samples in which the state stands are completed from the input `x` and, if
  // they are `given`, from what was kept of the products; the states one step later begin `next`.
  void step(const T* x, const T* given, Index rows, T* records, T* next) const {
    const Index count = cell.kept() * h;
    if (given) copy_rows(rows, count, given, count, records + C::kKept * h, record);
    stage<0>(x, given, rows, records, next);
  }

  template <int number>
  void stage(const T* x, const T* given, Index rows, T* records, T* next) const {
    for (int i = 0; i < cell.receivers(); ++i) {
      const Receiver& r = receivers[i];
      if (r.stage != number || (given && !r.again)) continue;
      Factors<T> sources, input;
      if (r.matrix >= 0) sources = {r.sources * h, records + r.source * h, record, p.of[i].forward};
      if (takes_input<C>(r)) input = {m, x, m, p.of[i].input};
      multiply(rows, r.parts * h, sources, input, records + r.part * h, record, false);
    }
    for (Index r = 0; r < rows; ++r) {
      for (Index i = 0; i < h; i += kLanes<T>) {
        const Parts<T> e{records + r * record + i, h}, n{next + r * record + i, h};
        if (!given) cell.template open<number>(parameters(i), e);
        cell.template move<number>(parameters(i), e, n);
      }
    }
    if constexpr (number + 1 < C::kStages) stage<number + 1>(x, given, rows, records, next);
  }

  // Whether sample `r` has ended before step `t`.
  static bool ended(const std::int32_t* lengths, Index r, Index t) {
    return lengths && t >= lengths[r];
  }

  // The samples of the records `now` that have ended are to have the same state in `next`.
  void hold(const std::int32_t* lengths, Index rows, Index t, const T* now, T* next) const {
    for (Index r = 0; r < rows; ++r)
      if (ended(lengths, r, t))
        copy_rows(1, kBoth * h, now + r * record, record, next + r * record, record);
  }

  // From the cotangents `d` of the state after a step those of its products, `g`, and of the state
  // before; and gradients of the cell's further parameters. Of a sample that has ended `d` passes as
  // it is.
  template <int number = C::kStages - 1>
  void pull_back(const Gradients<T>& gradient, const std::int32_t* lengths, Index t, Index rows,
                 T* records, T* cotangents, T* d) const {
    for (Index r = 0; r < rows; ++r) {
      T* const g = cotangents + r * cotangent;
      if (ended(lengths, r, t)) {
        for (Index i = 0; i < cotangent; ++i) g[i] = 0;
        continue;
      }
      for (Index i = 0; i < h; i += kLanes<T>)
        cell.template pull_back<number>(parameters(i), {gradient.vectors + i, h},
                                        {records + r * record + i, h}, {g + i, h},
                                        {d + r * kBoth * h + i, h});
    }
    for (int i = 0; i < cell.receivers(); ++i) {
      const Receiver& r = receivers[i];
      if (r.stage != number || r.matrix < 0) continue;
      const Factors<T> from{r.parts * h, cotangents + r.cotangent * h, cotangent, p.of[i].back};
      multiply(rows, r.sources * h, from, {}, d + r.back * h, kBoth * h, r.back < kState);
    }
    if constexpr (number > 0)
      pull_back<number - 1>(gradient, lengths, t, rows, records, cotangents, d);
    else if constexpr (C::kSeen > 0)
      for (Index r = 0; r < rows; ++r)
        for (Index i = 0; i < h; i += kLanes<T>)
          cell.unsee({records + r * record + i, h}, {cotangents + r * cotangent + i, h},
                     {d + r * kBoth * h + i, h});
  }

  // The gradients of the weights by the records and cotangents of so many samples and steps.
  void accumulate_all(Index samples, const T* records, const T* inputs, const T* cotangents,
                      const Gradients<T>& gradient, T* panel) const {
    for (int i = 0; i < cell.receivers(); ++i) {
      const Receiver& r = receivers[i];
      if (r.matrix >= 0)
        accumulate(r.sources * h, r.parts * h, samples, records + r.source * h, record,
                   cotangents + r.cotangent * h, cotangent, gradient.matrix[r.matrix],
                   panel);
    }
    accumulate(m, C::kInputs * h, samples, inputs, m, cotangents + C::kCInput * h, cotangent,
               gradient.input, panel);
  }
};

// ---- the sequence --------------------------------------------------------------------------------

template <typename T, typename C>
Index scratch_size(const Shape& s, bool backward) {
  const Index h = s.hidden;
  if (!backward) return 2 * kTile * C::kRecord * h;
  return kTile * ((s.segment + 1) * C::kRecord * h + s.segment * (C::kCotangents * h + s.inputs) +
                  Call<T, C>::kBoth * h + round_up(s.inputs)) +
         kSamples * kPanel<T>;
}

template <typename T, typename C>
void forward(const Shape& s, const Settings& settings, const Weights<T>& w, const T* packed,
             const Forward<T>& f, Index first, Index last, T* scratch) {
  const Call<T, C> call(s, settings, w, packed);
  const Index h = s.hidden, record = call.record, state = C::kState * h;
  const Index count = call.cell.kept() * h;
  for (Index start = first; start < last; start += kTile) {
    const Index rows = smaller(kTile, last - start);
    const std::int32_t* const lengths = f.lengths ? f.lengths + start : nullptr;
    T* now = scratch;
    T* next = scratch + kTile * record;
    call.begin(rows, f.initial + start * state, now);
    for (Index t = 0; t < s.steps; ++t) {
      const Index at = t * s.batch + start;
      if (f.kept && t % s.segment == 0)
        copy_rows(rows, state, now, record, f.kept + (t / s.segment * s.batch + start) * state,
                  state);
      call.step(f.x + at * s.inputs, nullptr, rows, now, next);
      if (lengths) call.hold(lengths, rows, t, now, next);
      if (f.products)
        stream_rows(rows, count, now + C::kKept * h, record, f.products + at * count);
      if (f.outputs) copy_rows(rows, h, next, record, f.outputs + at * h, h);
      T* const done = now;
      now = next;
      next = done;
    }
    copy_rows(rows, state, now, record, f.final_state + start * state, state);
  }
#if defined(__SSE2__)
  _mm_sfence();  // what was streamed is there for other threads
#endif
}

template <typename T, typename C>
void backward(const Shape& s, const Settings& settings, const Weights<T>& w, const T* packed,
              const Backward<T>& f, const Gradients<T>& gradient, Index first, Index last,
              T* scratch) {
  const Call<T, C> call(s, settings, w, packed);
  const Index h = s.hidden, m = s.inputs, record = call.record, cotangent = call.cotangent;
  const Index state = C::kState * h, both = call.kBoth * h, count = call.cell.kept() * h;
  T* const records = scratch;
  T* const cotangents = records + kTile * (s.segment + 1) * record;
  T* const inputs = cotangents + kTile * s.segment * cotangent;
  T* const d = inputs + kTile * s.segment * m;
  T* const d_input = d + kTile * both;
  T* const panel = d_input + kTile * round_up(m);
  const Index segments = (s.steps + s.segment - 1) / s.segment;
  for (Index begins = first; begins < last; begins += kTile) {
    const Index rows = smaller(kTile, last - begins);
    const std::int32_t* const lengths = f.lengths ? f.lengths + begins : nullptr;
    copy_rows(rows, state, f.d_final + begins * state, state, d, both);
    for (Index segment = segments - 1; segment >= 0; --segment) {
      const Index start = segment * s.segment;
      const Index steps = smaller(s.segment, s.steps - start);
      call.begin(rows, f.kept + (segment * s.batch + begins) * state, records);
      for (Index t = 0; t < steps; ++t) {
        const Index at = (start + t) * s.batch + begins;
        T* const here = records + t * rows * record;
        T* const x = inputs + t * rows * m;
        copy_rows(rows, m, f.x + at * m, m, x, m);
        call.step(x, f.products ? f.products + at * count : nullptr, rows, here,
                  here + rows * record);
        if (lengths) call.hold(lengths, rows, start + t, here, here + rows * record);
      }
      for (Index t = steps - 1; t >= 0; --t) {
        const Index at = (start + t) * s.batch + begins;
        T* const g = cotangents + t * rows * cotangent;
        if (f.d_outputs)
          for (Index r = 0; r < rows; ++r)
            for (Index i = 0; i < h; ++i) d[r * both + i] += f.d_outputs[(at + r) * h + i];
        call.pull_back(gradient, lengths, start + t, rows, records + t * rows * record, g, d);
        if (f.d_x) {
          const Index wide = round_up(m);
          const Factors<T> from{C::kInputs * h, g + C::kCInput * h, cotangent, call.p.input_back};
          multiply(rows, wide, from, {}, d_input, wide, false);
          copy_rows(rows, m, d_input, wide, f.d_x + at * m, m);
        }
      }
      call.accumulate_all(steps * rows, records, inputs, cotangents, gradient, panel);
    }
    copy_rows(rows, state, d, both, f.d_initial + begins * state, state);
  }
}

template <typename T, typename C>
constexpr Kernel<T> kernel() {
  return {form<T, C>, packed_size<T, C>, scratch_size<T, C>, pack<T, C>, forward<T, C>,
          backward<T, C>};
}

}  // namespace

#define ORGANICS_JOIN(a, b) a##b
#define ORGANICS_NAME(a, b) ORGANICS_JOIN(a, b)
#define ORGANICS_KERNELS(T, name)                                                              \
  extern const Kernel<T> ORGANICS_NAME(name, ORGANICS_ISA)[kCellCount];                        \
  const Kernel<T> ORGANICS_NAME(name, ORGANICS_ISA)[kCellCount] = {                            \
      kernel<T, Organics<T, 0>>(),   kernel<T, Lstm<T>>(),                                     \
      kernel<T, Antisymmetric<T>>(), kernel<T, AntisymmetricGated<T>>(),                       \
      kernel<T, Cornn<T>>(),         kernel<T, Lipschitz<T>>(),                                \
      kernel<T, Tanh<T>>(),          kernel<T, Lem<T>>(),                                      \
      kernel<T, Organics<T, 1>>(),   kernel<T, Organics<T, 4>>(),                              \
  };
ORGANICS_KERNELS(float, kFloat_)
ORGANICS_KERNELS(double, kDouble_)

}  // namespace organics
