// float4 and its family, with CUDA's sizes and alignments.
#pragma once

#define VECTOR_2(T, NAME)                                     \
  struct __attribute__((aligned(2 * sizeof(T)))) NAME##2 {    \
    T x, y;                                                   \
  };                                                          \
  static inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }
#define VECTOR_1_AND_3(T, NAME)                               \
  struct NAME##1 {                                            \
    T x;                                                      \
  };                                                          \
  struct NAME##3 {                                            \
    T x, y, z;                                                \
  };                                                          \
  static inline NAME##1 make_##NAME##1(T x) { return {x}; }   \
  static inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }
#define VECTOR_4(T, NAME)                                                            \
  struct __attribute__((aligned(sizeof(T) < 4 ? 4 * sizeof(T) : 16))) NAME##4 {      \
    T x, y, z, w;                                                                    \
  };                                                                                 \
  static inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define VECTORS(T, NAME) VECTOR_1_AND_3(T, NAME) VECTOR_2(T, NAME) VECTOR_4(T, NAME)

VECTORS(float, float)
VECTORS(double, double)
VECTORS(int, int)
VECTORS(unsigned, uint)
VECTORS(short, short)
VECTORS(unsigned short, ushort)
VECTORS(signed char, char)
VECTORS(unsigned char, uchar)
VECTORS(long, long)
VECTORS(unsigned long, ulong)
VECTORS(long long, longlong)
VECTORS(unsigned long long, ulonglong)

#undef VECTORS
#undef VECTOR_4
#undef VECTOR_1_AND_3
#undef VECTOR_2

using dim3 = cuda_emulation::Dim3;
