// What XLA and other programs call: checks the shapes, chooses the instruction set, and spreads tiles
// over threads.
#include <algorithm>
#include <atomic>
#include <cfenv>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__SSE2__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "contraction.hpp"
#include "sequence.hpp"
#include "xla/ffi/api/ffi.h"

#define ORGANICS_EXPORT __attribute__((visibility("default")))

namespace organics {

extern const Kernel<float> kFloat_base[kCellCount];
extern const Kernel<double> kDouble_base[kCellCount];
extern const Kernel<float> kBfloat16_base[kCellCount];
extern const Contract kContract_base;
// defined is what hatch_build.py has compiled
#if defined(ORGANICS_AVX2)
extern const Kernel<float> kFloat_avx2[kCellCount];
extern const Kernel<double> kDouble_avx2[kCellCount];
extern const Kernel<float> kBfloat16_avx2[kCellCount];
extern const Contract kContract_avx2;
#endif
#if defined(ORGANICS_AVX512)
extern const Kernel<float> kFloat_avx512[kCellCount];
extern const Kernel<double> kDouble_avx512[kCellCount];
extern const Kernel<float> kBfloat16_avx512[kCellCount];
extern const Contract kContract_avx512;
#endif
// products of numbers in bfloat16, with all else as for AVX-512
#if defined(ORGANICS_AVX512) && defined(ORGANICS_AVX512BF16)
#define ORGANICS_PAIRS
extern const Kernel<float> kBfloat16_avx512bf16[kCellCount];
#endif
#if defined(ORGANICS_PAIRS) && defined(ORGANICS_AMX) && defined(__linux__)
#define ORGANICS_TILES
extern const Kernel<float> kBfloat16_amx[kCellCount];
#endif

namespace {

namespace ffi = xla::ffi;

enum class Isa { kBase, kAvx2, kAvx512, kAvx512Bf16, kAmx };

constexpr const char* kNames[] = {"base", "avx2", "avx512", "avx512bf16", "amx"};

#if defined(ORGANICS_TILES)
// Whether the processor has tile registers and products of them, and the system lets this process
// use them, which it has to be asked.
bool tiles_allowed() {
  constexpr unsigned kBfloat16 = 1u << 22, kTile = 1u << 24;
  constexpr long kAsk = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, of <asm/prctl.h>
  unsigned a, b, c, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kBfloat16) && (d & kTile) &&
         syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
}
#endif

// Whether the library has it and the processor can run it.
bool supported(Isa isa) {
  bool has = isa == Isa::kBase;
#if defined(ORGANICS_AVX2) || defined(ORGANICS_AVX512)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#endif
#if defined(ORGANICS_AVX2)
  has |= isa == Isa::kAvx2 && avx2;
#endif
#if defined(ORGANICS_AVX512)
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  has |= isa == Isa::kAvx512 && avx512;
#endif
#if defined(ORGANICS_PAIRS)
  const bool pairs = avx512 && __builtin_cpu_supports("avx512bf16");
  has |= isa == Isa::kAvx512Bf16 && pairs;
#endif
#if defined(ORGANICS_TILES)
  has |= isa == Isa::kAmx && pairs && tiles_allowed();
#endif
  return has;
}

std::atomic<Isa> chosen{Isa::kBase};

Isa isa() { return chosen.load(std::memory_order_relaxed); }

// The kernels of all cells.
template <typename T>
const Kernel<T>* kernels();
template <>
const Kernel<float>* kernels() {
#if defined(ORGANICS_AVX512)
  if (isa() >= Isa::kAvx512) return kFloat_avx512;
#endif
#if defined(ORGANICS_AVX2)
  if (isa() == Isa::kAvx2) return kFloat_avx2;
#endif
  return kFloat_base;
}
template <>
const Kernel<double>* kernels() {
#if defined(ORGANICS_AVX512)
  if (isa() >= Isa::kAvx512) return kDouble_avx512;
#endif
#if defined(ORGANICS_AVX2)
  if (isa() == Isa::kAvx2) return kDouble_avx2;
#endif
  return kDouble_base;
}

// The same with products of numbers in bfloat16.
const Kernel<float>* bfloat16_kernels() {
#if defined(ORGANICS_TILES)
  if (isa() == Isa::kAmx) return kBfloat16_amx;
#endif
#if defined(ORGANICS_PAIRS)
  if (isa() >= Isa::kAvx512Bf16) return kBfloat16_avx512bf16;
#endif
#if defined(ORGANICS_AVX512)
  if (isa() >= Isa::kAvx512) return kBfloat16_avx512;
#endif
#if defined(ORGANICS_AVX2)
  if (isa() == Isa::kAvx2) return kBfloat16_avx2;
#endif
  return kBfloat16_base;
}

Contract contraction() {
#if defined(ORGANICS_AVX512)
  if (isa() >= Isa::kAvx512) return kContract_avx512;
#endif
#if defined(ORGANICS_AVX2)
  if (isa() == Isa::kAvx2) return kContract_avx2;
#endif
  return kContract_base;
}

// Has this thread round upwards, and compute with numbers however small, until it is left.
class RoundUpwards {
 public:
  RoundUpwards() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
    std::fesetround(FE_UPWARD);
  }
  ~RoundUpwards() { std::fesetenv(&before_); }
  // whether it does
  bool holds() const {
    const volatile double one = 1.0, small = 1e-300;
    return one + small > 1.0 && -one - small == -1.0 && small * 1e-15 > 0.0;
  }

 private:
  std::fenv_t before_;
};

Index processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// Asks for large pages for what is to be written for the first time: else that takes longer than
// computing it.
void expect_writing(void* data, std::size_t bytes) {
#if defined(__linux__)
  constexpr std::size_t kPage = std::size_t{1} << 21;
  const auto begin = (reinterpret_cast<std::uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<std::uintptr_t>(data) + bytes) / kPage * kPage;
  if (data && begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Numbers too small for full precision count as zero meanwhile: vanishing gradients are such, and
// processors take many times longer with them.
class FlushDenormals {
 public:
#if defined(__SSE2__)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#endif
};

template <typename T>
class Numbers {  // aligned to the cache line
 public:
  explicit Numbers(Index count)
      : data_(static_cast<T*>(::operator new(sizeof(T) * count, std::align_val_t{64}))) {}
  ~Numbers() { ::operator delete(data_, std::align_val_t{64}); }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

// Calls work() on so many threads, this one among them, or on fewer if no more are to be had.
template <typename Work>
void on_threads(Index count, const Work& work) {
  std::exception_ptr failure;
  std::mutex mutex;
  const auto run = [&] {
    try {
      FlushDenormals flush;
      work();
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(count);
  try {
    while (static_cast<Index>(threads.size()) + 1 < count) threads.emplace_back(run);
  } catch (const std::exception&) {
    // the threads that there are do all of the work
  }
  run();
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

// Tasks 0 to count - 1, which threads take one after the other.
class Tasks {
 public:
  explicit Tasks(Index count) : count(count) {}

  // Calls work(task) until there are no tasks left.
  template <typename Work>
  void take(const Work& work) {
    for (Index i = next_++; i < count; i = next_++) work(i);
  }

  const Index count;

 private:
  std::atomic<Index> next_{0};
};

constexpr Index kLeast = 4;  // samples that are worth a thread

Index threads_for(Index samples, Index threads) {
  return std::max<Index>(1, std::min(threads > 0 ? threads : processors(), samples / kLeast));
}

// Gradients are summed over each of so many shares of the batch, and these sums then in order: that
// depends on the batch alone, so the gradients depend neither on the number of threads nor on which
// of them is quicker. Fewer than sixteen samples take longer for each, so there are fewer only if
// there were not four shares else; and no more than 32 shares, as each has sums of its own to keep.
Index shares_of_sums(Index batch) {
  const Index few = std::min<Index>(batch / kLeast, 4), many = std::min<Index>(batch / 16, 32);
  return std::max<Index>({1, few, many});
}

constexpr Index kAtOnce = 64;  // tasks whose packed weights and sums are kept at a time

// The packed weights of the members `first` to `last`, or the same for all of them.
template <typename T>
class PackedWeights {
 public:
  template <typename WeightsOf>
  PackedWeights(const Kernel<T>& k, const Shape& s, const Settings& settings, bool backward,
                Index first, Index last, bool one, Index threads, const WeightsOf& weights_of)
      : first_(first),
        step_(one ? 0 : k.packed_size(s, settings)),
        numbers_((one ? 1 : last - first) * k.packed_size(s, settings)) {
    Tasks tasks(one ? 1 : last - first);
    on_threads(std::min(threads, tasks.count), [&] {
      tasks.take([&](Index i) {
        k.pack(s, settings, weights_of(first + i), numbers_.get() + i * step_, backward);
      });
    });
  }

  const T* of(Index member) const { return numbers_.get() + (member - first_) * step_; }

 private:
  const Index first_, step_;
  const Numbers<T> numbers_;
};

// The functions `_of` give what belongs to a member of the call; `one` says that all of them have
// the same weights.
template <typename T, typename WeightsOf, typename ForwardOf>
void run_forward(const Kernel<T>& k, const Shape& s, const Settings& settings, Index members,
                 bool one, Index threads, const WeightsOf& weights_of,
                 const ForwardOf& forward_of) {
  const Index count = threads_for(s.batch * std::min(members, kAtOnce), threads);
  for (Index first = 0; first < members; first += kAtOnce) {
    const Index last = std::min(members, first + kAtOnce);
    // the number of shares changes no result, as nothing is summed over them
    const Index shares = (last - first) % count == 0 ? 1 : std::min(count, s.batch);
    const PackedWeights<T> packed(k, s, settings, false, first, last, one, count, weights_of);
    Tasks tasks((last - first) * shares);
    on_threads(std::min(count, tasks.count), [&] {
      const Numbers<T> scratch(k.scratch_size(s, false));
      tasks.take([&](Index task) {
        const Index member = first + task / shares, i = task % shares;
        k.forward(s, settings, weights_of(member), packed.of(member), forward_of(member),
                  s.batch * i / shares, s.batch * (i + 1) / shares, scratch.get());
      });
    });
  }
}

// How long each of the gradients is.
struct GradientSizes {
  Index matrix[kMatrices], input, vectors, all = 0;

  GradientSizes(const Shape& s, const Form& form)
      : input(form.inputs * s.hidden * s.inputs), vectors(form.vectors * s.hidden) {
    for (int j = 0; j < kMatrices; ++j) {
      matrix[j] = form.matrix[j].receives * form.matrix[j].sends * s.hidden * s.hidden;
      all += matrix[j];
    }
    all += input + vectors;
  }

  template <typename T>
  Gradients<T> at(T* base) const {
    Gradients<T> g;
    for (int j = 0; j < kMatrices; base += matrix[j++]) g.matrix[j] = base;
    g.input = base;
    g.vectors = base + input;
    return g;
  }
};

// The kernels' (sends, receives) becomes the (receives, sends) of the weights.
template <typename T>
void transpose(Index sends, Index receives, const T* from, T* to) {
  for (Index k = 0; k < sends; ++k)
    for (Index i = 0; i < receives; ++i) to[i * sends + k] = from[k * receives + i];
}

template <typename T, typename WeightsOf, typename BackwardOf, typename GradientsOf>
void run_backward(const Kernel<T>& k, const Shape& s, const Settings& settings, Index members,
                  bool one, Index threads, const WeightsOf& weights_of,
                  const BackwardOf& backward_of, const GradientsOf& gradients_of) {
  const Form form = k.form(settings);
  const GradientSizes sizes(s, form);
  const Index h = s.hidden, shares = shares_of_sums(s.batch);
  const Index at_once = std::min(members, std::max<Index>(1, kAtOnce / shares));
  const Index count = threads_for(s.batch * at_once, threads);
  const Numbers<T> sums(at_once * shares * sizes.all);
  for (Index first = 0; first < members; first += at_once) {
    const Index last = std::min(members, first + at_once);
    const PackedWeights<T> packed(k, s, settings, true, first, last, one, count, weights_of);
    Tasks tasks((last - first) * shares), ends(last - first);
    on_threads(std::min(count, tasks.count), [&] {
      const Numbers<T> scratch(k.scratch_size(s, true));
      tasks.take([&](Index task) {
        const Index member = first + task / shares, i = task % shares;
        T* const base = sums.get() + task * sizes.all;
        std::fill_n(base, sizes.all, T(0));
        k.backward(s, settings, weights_of(member), packed.of(member), backward_of(member),
                   sizes.at(base), s.batch * i / shares, s.batch * (i + 1) / shares, scratch.get());
      });
    });
    on_threads(std::min(count, ends.count), [&] {
      ends.take([&](Index i) {
        T* const base = sums.get() + i * shares * sizes.all;
        for (Index share = 1; share < shares; ++share)
          for (Index j = 0; j < sizes.all; ++j) base[j] += base[share * sizes.all + j];
        const Gradients<T> sum = sizes.at(base), out = gradients_of(first + i);
        for (int j = 0; j < kMatrices; ++j)
          transpose(form.matrix[j].sends * h, form.matrix[j].receives * h, sum.matrix[j],
                    out.matrix[j]);
        transpose(s.inputs, form.inputs * h, sum.input, out.input);
        std::copy_n(sum.vectors, sizes.vectors, out.vectors);
      });
    });
  }
}

// ---- what is refused -----------------------------------------------------------------------------

struct Refused : std::exception {
  explicit Refused(std::string what) : text("organics: " + std::move(what)) {}
  const char* what() const noexcept override { return text.c_str(); }
  const std::string text;
};

Index cell_of(std::string_view name) {
  for (Index cell = 0; cell < kCellCount; ++cell)
    if (name == kCells[cell]) return cell;
  throw Refused("there is no cell `" + std::string(name) + "`");
}

// The kernel of a cell, with products of numbers in bfloat16 or of all numbers' type.
template <typename T>
const Kernel<T>& kernel_of(Index cell, bool bfloat16) {
  if constexpr (std::is_same_v<T, float>) {
    if (bfloat16) return bfloat16_kernels()[cell];
  } else if (bfloat16) {
    throw Refused("products in bfloat16 are of numbers in float32");
  }
  return kernels<T>()[cell];
}

void require_sizes(const Shape& s) {
  if (s.hidden % kMultiple != 0) throw Refused("the number of neurons must be a multiple of 16");
  if (s.steps < 1 || s.batch < 1 || s.hidden < 1 || s.inputs < 1)
    throw Refused("there must be at least one step, sample, neuron and input");
  if (s.segment < 1) throw Refused("`segment` must be at least 1");
}

// ---- what XLA hands over -------------------------------------------------------------------------

using In = ffi::AnyBuffer;
using Out = ffi::Result<ffi::AnyBuffer>;

std::string words(const std::vector<Index>& sizes) {
  std::string text;
  for (const Index size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "(" + text + ")";
}

// A call: its cell, its sizes, and its members, which `jax.vmap` makes one call of. An array has the
// axes first that `vmap` has added, of size 1 where it is the same for all members.
class Problem {
 public:
  // The sizes follow from the input, the cell, and a result with as many rows as the state.
  Problem(std::string_view name, ffi::Span<const double> numbers, int64_t segment, In x, Out state)
      : type(x.element_type()), cell(cell_of(name)) {
    if (numbers.size() != kSettings) throw Refused("a cell has 4 settings");
    std::copy(numbers.begin(), numbers.end(), settings.values);
    form = kernels<float>()[cell].form(settings);
    const auto given = x.dimensions(), rows = state->dimensions();
    if (given.size() < 3) throw Refused("`x` must have shape (steps, batch, inputs)");
    if (rows.size() + 1 != given.size() || rows.back() % (form.state * kMultiple) != 0)
      throw Refused("the state must have shape (batch, " + std::to_string(form.state) +
                    " H), H a multiple of 16");
    axes_.assign(rows.begin(), rows.end() - 2);
    for (const Index size : axes_) members *= size;
    const auto sizes = given.end() - 3;
    s = {sizes[0], sizes[1], rows.back() / form.state, sizes[2], segment};
    require_sizes(s);
    s.segment = std::min<Index>(segment, s.steps);
  }

  // An array of these sizes, by member: where its numbers begin, null if it may be and is empty.
  template <typename T>
  class Of {
   public:
    Of(const Problem& problem, ffi::AnyBuffer buffer, Index size)
        : problem_(problem), buffer_(buffer), size_(size) {}

    T* operator()(Index member) const {
      if (size_ == 0) return nullptr;
      return static_cast<T*>(buffer_.untyped_data()) + size_ * which(member);
    }

    // Whether it is the same for all members.
    bool one() const {
      const auto have = buffer_.dimensions();
      return std::all_of(have.begin(), have.begin() + problem_.axes_.size(),
                         [](Index size) { return size == 1; });
    }

   private:
    Index which(Index member) const {
      Index found = 0, rest = problem_.members;
      for (std::size_t i = 0; i < problem_.axes_.size(); ++i) {
        rest /= problem_.axes_[i];
        if (buffer_.dimensions()[i] != 1)
          found = found * problem_.axes_[i] + member / rest % problem_.axes_[i];
      }
      return found;
    }

    const Problem& problem_;
    const ffi::AnyBuffer buffer_;
    const Index size_;
  };

  template <typename T>
  Of<T> array(const std::string& what, ffi::AnyBuffer buffer, const std::vector<Index>& sizes,
              bool optional = false) const {
    const bool whole = std::is_same_v<T, std::int32_t>;
    const auto have = buffer.dimensions();
    const std::size_t more = axes_.size();
    bool good = buffer.element_type() == (whole ? ffi::DataType::S32 : type) &&
                have.size() == more + sizes.size();
    for (std::size_t i = 0; good && i < more; ++i) good = have[i] == 1 || have[i] == axes_[i];
    if (good && optional && buffer.element_count() == 0) return {*this, buffer, 0};
    good = good && std::equal(sizes.begin(), sizes.end(), have.begin() + more);
    if (!good) throw Refused(what + " must have shape " + words(sizes) + " and the input's type");
    Index size = 1;
    for (const Index n : sizes) size *= n;
    return {*this, buffer, size};
  }

  Index segments() const { return (s.steps + s.segment - 1) / s.segment; }

  const ffi::DataType type;
  const Index cell;
  Index members = 1;
  Settings settings;
  Form form;
  Shape s;

 private:
  std::vector<Index> axes_;
};

// Weights, or their gradients.
template <typename T>
struct WeightArrays {
  using Of = Problem::Of<T>;
  const std::vector<Of> matrix;
  const Of input, vectors;

  WeightArrays(const Problem& p, const std::string& what, ffi::AnyBuffer first,
               ffi::AnyBuffer second, ffi::AnyBuffer third, ffi::AnyBuffer input,
               ffi::AnyBuffer vectors)
      : matrix{of(p, what, 0, first), of(p, what, 1, second), of(p, what, 2, third)},
        input(p.array<T>(what + " of the input", input, {p.form.inputs * p.s.hidden, p.s.inputs})),
        vectors(p.array<T>(what + " of each neuron", vectors, {p.form.vectors, p.s.hidden})) {}

  static Of of(const Problem& p, const std::string& what, int j, ffi::AnyBuffer buffer) {
    const auto& [receives, sends] = p.form.matrix[j];
    return p.array<T>(what + " of matrix " + std::to_string(j), buffer,
                      {receives * p.s.hidden, sends * p.s.hidden});
  }

  // As `Weights` or `Gradients`.
  template <typename Pointers>
  Pointers of(Index member) const {
    return {{matrix[0](member), matrix[1](member), matrix[2](member)}, input(member),
            vectors(member)};
  }

  bool one() const {
    return matrix[0].one() && matrix[1].one() && matrix[2].one() && input.one() && vectors.one();
  }
};

// Runs `work` with a number of the buffers' type, and turns exceptions into errors.
template <typename Work>
ffi::Error with_type(ffi::DataType type, const Work& work) {
  try {
    if (type == ffi::DataType::F32)
      work(float{});
    else if (type == ffi::DataType::F64)
      work(double{});
    else
      throw Refused("numbers must be float32 or float64");
  } catch (const Refused& refused) {
    return ffi::Error::InvalidArgument(refused.what());
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "organics: out of memory");
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("organics: ") + error.what());
  }
  return ffi::Error::Success();
}

ffi::Error forward(In x, In initial, In lengths, In first, In second, In third, In input, In vectors,
                   Out final_state, Out kept, Out products, Out outputs, std::string_view cell,
                   ffi::Span<const double> settings, int64_t segment, int64_t threads,
                   bool bfloat16) {
  return with_type(x.element_type(), [&](auto number) {
    using T = decltype(number);
    const Problem p(cell, settings, segment, x, final_state);
    const auto [T_, B, h, m, segment_] = p.s;
    const Index state = p.form.state * h;
    const WeightArrays<T> weights(p, "the weights", first, second, third, input, vectors);
    const auto of_x = p.array<T>("`x`", x, {T_, B, m});
    const auto of_initial = p.array<T>("the state", initial, {B, state});
    const auto of_final = p.array<T>("the final state", *final_state, {B, state});
    const auto of_kept =
        p.array<T>("the kept states", *kept, {p.segments(), B, state}, true);
    const auto of_products =
        p.array<T>("the products", *products, {T_, B, p.form.kept * h}, true);
    const auto of_outputs = p.array<T>("the outputs", *outputs, {T_, B, h}, true);
    const auto of_lengths = p.array<std::int32_t>("the lengths", lengths, {B}, true);
    expect_writing(products->untyped_data(), products->size_bytes());
    run_forward<T>(
        kernel_of<T>(p.cell, bfloat16), p.s, p.settings, p.members, weights.one(), threads,
        [&](Index i) { return weights.template of<Weights<T>>(i); },
        [&](Index i) {
          return Forward<T>{of_x(i),        of_initial(i), of_final(i),  of_kept(i),
                            of_products(i), of_outputs(i), of_lengths(i)};
        });
  });
}

ffi::Error backward(In x, In kept, In products, In lengths, In first, In second, In third, In input,
                    In vectors, In d_final, In d_outputs, Out d_x, Out d_initial, Out d_first,
                    Out d_second, Out d_third, Out d_input, Out d_vectors, std::string_view cell,
                    ffi::Span<const double> settings, int64_t segment, int64_t threads,
                    bool bfloat16) {
  return with_type(x.element_type(), [&](auto number) {
    using T = decltype(number);
    const Problem p(cell, settings, segment, x, d_initial);
    const auto [T_, B, h, m, segment_] = p.s;
    const Index state = p.form.state * h;
    const WeightArrays<T> weights(p, "the weights", first, second, third, input, vectors);
    const WeightArrays<T> gradients(p, "the gradients", *d_first, *d_second, *d_third, *d_input,
                                    *d_vectors);
    const auto of_x = p.array<T>("`x`", x, {T_, B, m});
    const auto of_kept = p.array<T>("the kept states", kept, {p.segments(), B, state});
    const auto of_products = p.array<T>("the products", products, {T_, B, p.form.kept * h}, true);
    const auto of_d_final = p.array<T>("the final state's cotangent", d_final, {B, state});
    const auto of_d_outputs =
        p.array<T>("the outputs' cotangents", d_outputs, {T_, B, h}, true);
    const auto of_d_initial = p.array<T>("the state's cotangent", *d_initial, {B, state});
    const auto of_d_x = p.array<T>("the input's cotangents", *d_x, {T_, B, m}, true);
    const auto of_lengths = p.array<std::int32_t>("the lengths", lengths, {B}, true);
    run_backward<T>(
        kernel_of<T>(p.cell, bfloat16), p.s, p.settings, p.members, weights.one(), threads,
        [&](Index i) { return weights.template of<Weights<T>>(i); },
        [&](Index i) {
          return Backward<T>{of_x(i),         of_kept(i),      of_products(i), of_d_final(i),
                             of_d_outputs(i), of_d_initial(i), of_d_x(i),      of_lengths(i)};
        },
        [&](Index i) { return gradients.template of<Gradients<T>>(i); });
  });
}

}  // namespace

// all else in the library is hidden, and the macro does not say that these are not
extern "C" ORGANICS_EXPORT XLA_FFI_Error* organics_forward(XLA_FFI_CallFrame*);
extern "C" ORGANICS_EXPORT XLA_FFI_Error* organics_backward(XLA_FFI_CallFrame*);

XLA_FFI_DEFINE_HANDLER_SYMBOL(organics_forward, forward,
                              ffi::Ffi::Bind()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<std::string_view>("cell")
                                  .Attr<ffi::Span<const double>>("settings")
                                  .Attr<int64_t>("segment")
                                  .Attr<int64_t>("threads")
                                  .Attr<bool>("bfloat16"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(organics_backward, backward,
                              ffi::Ffi::Bind()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<std::string_view>("cell")
                                  .Attr<ffi::Span<const double>>("settings")
                                  .Attr<int64_t>("segment")
                                  .Attr<int64_t>("threads")
                                  .Attr<bool>("bfloat16"));

// ---- what other programs hand over, in plain C ---------------------------------------------------

// Where the arrays of weights, or of their gradients, begin; `library.py` has the same.
struct Pointers {
  void* matrix[kMatrices];
  void* input;
  void* vectors;

  template <typename Arrays, typename T>
  Arrays as() const {
    const auto of = [](void* data) { return static_cast<T*>(data); };
    return {{of(matrix[0]), of(matrix[1]), of(matrix[2])}, of(input), of(vectors)};
  }
};

struct PlainProblem {
  const char* cell;
  double settings[kSettings];
  std::int64_t doubles, steps, batch, hidden, inputs, segment, threads, bfloat16;
  Pointers weights;
};

namespace {

// Calls work(number, cell, shape, settings); what it throws becomes a message, which stays until the
// thread's next call.
template <typename Work>
const char* said(const PlainProblem& p, const Work& work) noexcept {
  static thread_local std::string text;
  try {
    const Index cell = cell_of(p.cell);
    const Shape s{p.steps, p.batch, p.hidden, p.inputs, std::min(p.segment, p.steps)};
    require_sizes(s);
    Settings settings;
    std::copy_n(p.settings, kSettings, settings.values);
    if (p.doubles)
      work(double{}, cell, s, settings);
    else
      work(float{}, cell, s, settings);
    return nullptr;
  } catch (const std::bad_alloc&) {
    return "organics: out of memory";
  } catch (const Refused& refused) {
    text = refused.text;
  } catch (const std::exception& error) {
    text = std::string("organics: ") + error.what();
  }
  return text.c_str();
}

}  // namespace

// Both return null, or why they refuse. Arrays that are not given or not wanted are null.
extern "C" ORGANICS_EXPORT const char* organics_plain_forward(
    const PlainProblem* p, const void* x, const void* initial, const std::int32_t* lengths,
    void* final_state, void* kept, void* products, void* outputs) {
  return said(*p, [&](auto number, Index cell, const Shape& s, const Settings& settings) {
    using T = decltype(number);
    const auto& k = kernel_of<T>(cell, p->bfloat16);
    if (products)
      expect_writing(products, sizeof(T) * s.steps * s.batch * k.form(settings).kept * s.hidden);
    const Forward<T> arrays{static_cast<const T*>(x),  static_cast<const T*>(initial),
                            static_cast<T*>(final_state), static_cast<T*>(kept),
                            static_cast<T*>(products), static_cast<T*>(outputs), lengths};
    run_forward<T>(
        k, s, settings, 1, true, p->threads,
        [&](Index) { return p->weights.as<Weights<T>, const T>(); },
        [&](Index) { return arrays; });
  });
}

extern "C" ORGANICS_EXPORT const char* organics_plain_backward(
    const PlainProblem* p, const void* x, const void* kept, const void* products,
    const std::int32_t* lengths, const void* d_final, const void* d_outputs, void* d_x,
    void* d_initial, const Pointers* gradients) {
  return said(*p, [&](auto number, Index cell, const Shape& s, const Settings& settings) {
    using T = decltype(number);
    const Backward<T> arrays{static_cast<const T*>(x),         static_cast<const T*>(kept),
                             static_cast<const T*>(products),  static_cast<const T*>(d_final),
                             static_cast<const T*>(d_outputs), static_cast<T*>(d_initial),
                             static_cast<T*>(d_x),             lengths};
    run_backward<T>(
        kernel_of<T>(cell, p->bfloat16), s, settings, 1, true, p->threads,
        [&](Index) { return p->weights.as<Weights<T>, const T>(); },
        [&](Index) { return arrays; },
        [&](Index) { return gradients->as<Gradients<T>, T>(); });
  });
}

}  // namespace organics

// Has the kernels use these instructions, by name; false, and nothing done, if it cannot. Until then
// they are the base ones.
extern "C" ORGANICS_EXPORT bool organics_use(const char* name) {
  using organics::Isa;
  for (const Isa isa : {Isa::kBase, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx}) {
    if (std::string(name) != organics::kNames[static_cast<int>(isa)]) continue;
    if (!organics::supported(isa)) return false;
    organics::chosen = isa;
    return true;
  }
  return false;
}

// Contracts k boxes of n unknowns, see `contraction.hpp`; false, and nothing done, if that is not
// possible.
extern "C" ORGANICS_EXPORT bool organics_contract(
    std::int64_t n, std::int64_t k, const double* W, const double* W_r, const double* c_low,
    const double* c_high, const double* d_low, const double* d_high, double* low, double* high,
    std::int32_t* known, std::int32_t* widest) {
  if (n < 1 || n > organics::kMostUnknowns) return false;
  const organics::RoundUpwards upwards;
  if (!upwards.holds()) return false;
  organics::contraction()({n, W, W_r, c_low, c_high, d_low, d_high}, {k, low, high, known, widest});
  return true;
}
