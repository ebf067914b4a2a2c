// nvcuda::wmma. Element (row, column) of a fragment lies in lane (flat index) % 32: where a GPU keeps it is not documented, and no
// kernel may depend on it.
#pragma once

namespace nvcuda {
namespace wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32 {};
}  // namespace precision

template <class T>
struct Element {
  using type = T;
  static float value(T x) { return static_cast<float>(x); }
};
template <>
struct Element<precision::tf32> {
  using type = float;
  static float value(float x) { return __uint_as_float(__float_as_uint(x) & 0xffffe000u); }
};
inline float __float_to_tf32(float x) { return __uint_as_float((__float_as_uint(x) + 0x1000u) & 0xffffe000u); }

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static constexpr int ROWS = std::is_same_v<Use, matrix_b> ? K : M, COLUMNS = std::is_same_v<Use, matrix_a> ? K : N;
  static_assert(ROWS * COLUMNS % 32 == 0);
  enum { num_elements = ROWS * COLUMNS / 32 };
  using Storage = typename Element<T>::type;
  Storage x[num_elements];
};

template <class F, class P>
void move_elements(F& f, P* p, unsigned stride, bool row_major_memory, bool load) {
  for (int i = 0; i < F::num_elements; ++i) {
    const unsigned flat = i * 32 + cuda_emulation::current->id % 32, row = flat / F::COLUMNS, column = flat % F::COLUMNS;
    P& element = p[row_major_memory ? row * stride + column : column * stride + row];
    if (load) f.x[i] = element;
    else if constexpr (!std::is_const_v<P>) element = static_cast<P>(f.x[i]);
  }
}

template <class Use, int M, int N, int K, class T, class L, class V>
void fill_fragment(fragment<Use, M, N, K, T, L>& f, V value) {
  for (auto& x : f.x) x = static_cast<typename Element<T>::type>(value);
}
template <class Use, int M, int N, int K, class T, class L, class P>
void load_matrix_sync(fragment<Use, M, N, K, T, L>& f, const P* p, unsigned stride) {
  move_elements(f, p, stride, std::is_same_v<L, row_major>, true);
}
template <int M, int N, int K, class T, class P>
void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const P* p, unsigned stride, layout_t layout) {
  move_elements(f, p, stride, layout == mem_row_major, true);
}
template <class P, int M, int N, int K, class T>
void store_matrix_sync(P* p, const fragment<accumulator, M, N, K, T>& f, unsigned stride, layout_t layout) {
  auto copy = f;
  move_elements(copy, p, stride, layout == mem_row_major, false);
}

template <class D, class A, class B, class C>
struct Product {
  D* d;
  const A* a;
  const B* b;
  const C* c;
};

// One product of a whole warp, by whichever lane came last.
template <int M, int N, int K, class T, class TA, class TB, class P>
void multiply(void* const* lanes, uint32_t) {
  using Sum = std::conditional_t<std::is_same_v<T, int>, int, float>;
  static thread_local Sum a[M][K], b[K][N], c[M][N];
  for (int i = 0; i < M * K; ++i) a[i / K][i % K] = static_cast<Sum>(Element<TA>::value(static_cast<P*>(lanes[i % 32])->a->x[i / 32]));
  for (int i = 0; i < K * N; ++i) b[i / N][i % N] = static_cast<Sum>(Element<TB>::value(static_cast<P*>(lanes[i % 32])->b->x[i / 32]));
  for (int i = 0; i < M * N; ++i) c[i / N][i % N] = static_cast<Sum>(static_cast<P*>(lanes[i % 32])->c->x[i / 32]);
  for (int i = 0; i < M; ++i)
    for (int k = 0; k < K; ++k)
      for (int j = 0; j < N; ++j) c[i][j] += a[i][k] * b[k][j];
  for (int i = 0; i < M * N; ++i) static_cast<P*>(lanes[i % 32])->d->x[i / 32] = static_cast<T>(c[i / N][i % N]);
}

template <int M, int N, int K, class T, class TA, class LA, class TB, class LB>
void mma_sync_at(int line, fragment<accumulator, M, N, K, T>& d, const fragment<matrix_a, M, N, K, TA, LA>& a,
                 const fragment<matrix_b, M, N, K, TB, LB>& b, const fragment<accumulator, M, N, K, T>& c) {
  using P = Product<std::remove_reference_t<decltype(d)>, std::decay_t<decltype(a)>, std::decay_t<decltype(b)>, std::decay_t<decltype(c)>>;
  P mine = {&d, &a, &b, &c};
  cuda_emulation::whole_warp(multiply<M, N, K, T, TA, TB, P>, &mine, line);
}
#define mma_sync(...) mma_sync_at(__LINE__, __VA_ARGS__)

}  // namespace wmma
}  // namespace nvcuda
