// mma.sync and ldmatrix. The fragments' layouts are those of the PTX ISA, "Warp Level Matrix Instructions": with E elements in a
// 32-bit register, register r of A holds row (lane / 4 + 8 * (r & 1)), columns E * (lane % 4 + 4 * (r >> 1)) onwards; register r of B
// column (lane / 4), rows E * (lane % 4 + 4 * r) onwards; C and D hold row (lane / 4 + 8 * (q >> 1)), column 2 * (lane % 4) + (q & 1).
#include <cmath>
#include <cstring>
#include <vector>

#include "kernel.h"

namespace cuda_emulation {
namespace ptx {

namespace {

constexpr int M = 16, N = 8, MAX_K = 32;

struct Operands {
  Type d_type, a_type, b_type;
  int a_registers, b_registers;
  uint32_t* d;
  const uint32_t *a, *b, *c;
};

int elements(Type type) { return type == Type::tf32 ? 1 : type == Type::f16 || type == Type::bf16 ? 2 : 4; }

float element(Type type, uint32_t bits, int e) {
  switch (type) {
    case Type::f16: return HalfFormat::unpack(static_cast<uint16_t>(bits >> 16 * e));
    case Type::bf16: return BFloatFormat::unpack(static_cast<uint16_t>(bits >> 16 * e));
    case Type::tf32: return __uint_as_float(bits & 0xffffe000u);  // the unit ignores the low bits
    case Type::s8: return static_cast<int8_t>(bits >> 8 * e);
    default: return static_cast<uint8_t>(bits >> 8 * e);
  }
}

// Tensor cores do not round sums to nearest, they cut them off: long chains of them drift towards zero, as on a device.
float cut_off(double exact) {
  const float near = static_cast<float>(exact);
  return std::fabs(static_cast<double>(near)) > std::fabs(exact) ? std::nextafterf(near, 0.0f) : near;
}

void multiply(void* const* lanes, uint32_t) {
  const Operands& first = *static_cast<Operands*>(lanes[0]);
  const int E = elements(first.a_type), K = first.b_registers * 4 * E;
  const bool integer = first.d_type == Type::s32;
  static float a[M][MAX_K], b[MAX_K][N];
  for (unsigned lane = 0; lane < WARP; ++lane) {
    const Operands& o = *static_cast<Operands*>(lanes[lane]);
    const int group = lane / 4, member = lane % 4;
    for (int r = 0; r < o.a_registers; ++r)
      for (int e = 0; e < E; ++e) a[group + 8 * (r & 1)][E * (member + 4 * (r >> 1)) + e] = element(o.a_type, o.a[r], e);
    for (int r = 0; r < o.b_registers; ++r)
      for (int e = 0; e < E; ++e) b[E * (member + 4 * r) + e][group] = element(o.b_type, o.b[r], e);
  }
  for (unsigned lane = 0; lane < WARP; ++lane) {
    const Operands& o = *static_cast<Operands*>(lanes[lane]);
    uint32_t out[4] = {};
    for (int q = 0; q < 4; ++q) {
      const int row = lane / 4 + 8 * (q >> 1), column = 2 * (lane % 4) + (q & 1);
      if (integer) {
        int64_t sum = static_cast<int32_t>(o.c[q]);
        for (int k = 0; k < K; ++k) sum += static_cast<int64_t>(a[row][k]) * static_cast<int64_t>(b[k][column]);
        out[q] = static_cast<uint32_t>(sum);
        continue;
      }
      double exact = o.d_type == Type::f16 ? element(Type::f16, o.c[q >> 1], q & 1) : __uint_as_float(o.c[q]);
      for (int k = 0; k < K; ++k) exact += static_cast<double>(a[row][k]) * b[k][column];
      const float sum = cut_off(exact);
      if (o.d_type == Type::f16) out[q >> 1] |= static_cast<uint32_t>(HalfFormat::pack(sum)) << 16 * (q & 1);
      else out[q] = __float_as_uint(sum);
    }
    memcpy(o.d, out, (o.d_type == Type::f16 ? 2 : 4) * sizeof(uint32_t));
  }
}

struct Loads {
  bool transposed;
  int count;
  uint32_t address;
  uint32_t* registers;
  int line;
};

// Lane 8 m + i names row i of matrix m; each lane receives two neighbouring elements of every matrix.
void load(void* const* lanes, uint32_t) {
  for (unsigned lane = 0; lane < WARP; ++lane) {
    const Loads& mine = *static_cast<Loads*>(lanes[lane]);
    for (int m = 0; m < mine.count; ++m) {
      uint16_t pair[2];
      for (int e = 0; e < 2; ++e) {
        const int slow = lane / 4, fast = lane % 4 * 2 + e;
        const int row = mine.transposed ? fast : slow, column = mine.transposed ? slow : fast;
        const char* source = shared_pointer(static_cast<Loads*>(lanes[8 * m + row])->address, 16, mine.line);
        memcpy(&pair[e], source + 2 * column, 2);
      }
      memcpy(&mine.registers[m], pair, sizeof pair);
    }
  }
}

}  // namespace

void mma_16x8(Type d_type, Type a_type, Type b_type, int a_registers, int b_registers, uint32_t* d, const uint32_t* a,
              const uint32_t* b, const uint32_t* c, int line) {
  Operands mine = {d_type, a_type, b_type, a_registers, b_registers, d, a, b, c};
  whole_warp(multiply, &mine, line);
}

// Of both operands: core matrices of 8 rows by 8 elements of the depth, 16 bytes together along the depth or, transposed, along the rows.
// The next 8 rows are `stride` on, the next 8 of the depth `leading` (CUTLASS, mma_traits_sm90_gmma.hpp: INTERLEAVE of both majors).
// A descriptor has 18 bits of an address; what lies in dynamic shared memory is less than 2^18 bytes behind its beginning.
struct Rows {
  bool transposed;
  uint32_t start, leading, stride;
  explicit Rows(const Operand& operand, int line) : Rows(operand.descriptor, operand.transposed, line) {}
  Rows(uint64_t descriptor, bool across, int line)
      : transposed(across), start(shared_address(dynamic_shared()) + (((descriptor << 4) - shared_address(dynamic_shared())) & 0x3ffff)), leading((descriptor >> 16 & 0x3fff) << 4), stride((descriptor >> 32 & 0x3fff) << 4) {
    if (descriptor >> 62) fail("wgmma of an operand with a swizzle, which is not emulated", line);
  }
  float at(Type type, int row, int k, int line) const {
    uint16_t bits;
    const uint32_t within = transposed ? k % 8 * 16 + row % 8 * 2 : row % 8 * 16 + k % 8 * 2;
    memcpy(&bits, shared_pointer(start + row / 8 * stride + k / 8 * leading + within, 2, line), 2);
    return element(type, bits, 0);
  }
  int byte_at(Type type, int row, int k, int line) const {
    uint8_t bits;
    memcpy(&bits, shared_pointer(start + row / 8 * stride + k / 16 * leading + row % 8 * 16 + k % 16, 1, line), 1);
    return type == Type::s8 ? static_cast<int8_t>(bits) : bits;
  }
};

struct Descriptors {
  uint64_t a, b;
  bool differ;
};

void compare(void* const* lanes, uint32_t) {
  const Descriptors& first = *static_cast<Descriptors*>(lanes[0]);
  for (unsigned lane = 0; lane < WARP; ++lane) {
    Descriptors& mine = *static_cast<Descriptors*>(lanes[lane]);
    mine.differ = mine.a != first.a || mine.b != first.b;
  }
}

void check_warpgroup(const Operand& a, const Operand& b, int line) {
  if (block_dim.x * block_dim.y * block_dim.z % 128) fail("wgmma in a block that is not whole warpgroups", line);
  Descriptors mine = {a.descriptor, b.descriptor, false};
  whole_warp(compare, &mine, line);
  if (mine.differ) fail("wgmma with descriptors that differ in a warp", line);
}

void wgmma_64_bytes(Type a_type, Type b_type, int n, int* const* d, Operand a, Operand b, bool add, int line) {
  check_warpgroup(a, b, line);
  const unsigned lane = current->id % WARP, warp = current->id / WARP % 4;
  std::vector<int*> registers(d, d + n / 2);
  product_async([=] {
    const Rows left(a, line), right(b, line);
    for (int q = 0; q < n / 2; ++q) {
      const int row = 16 * warp + lane / 4 + 8 * (q >> 1 & 1), column = q / 4 * 8 + lane % 4 * 2 + (q & 1);
      uint32_t sum = add ? *registers[q] : 0;
      for (int k = 0; k < 32; ++k) sum += left.byte_at(a_type, row, k, line) * right.byte_at(b_type, column, k, line);
      *registers[q] = static_cast<int>(sum);
    }
  }, line);
}

void wgmma_64(Type type, int n, float* const* d, Operand a, Operand b, bool add, int line) {
  check_warpgroup(a, b, line);
  const unsigned lane = current->id % WARP, warp = current->id / WARP % 4;
  std::vector<float*> registers(d, d + n / 2);
  product_async([=] {
    const Rows left(a, line), right(b, line);
    for (int q = 0; q < n / 2; ++q) {
      const int row = 16 * warp + lane / 4 + 8 * (q >> 1 & 1), column = q / 4 * 8 + lane % 4 * 2 + (q & 1);
      double exact = add ? *registers[q] : 0.0;
      for (int k = 0; k < 16; ++k) exact += static_cast<double>(left.at(type, row, k, line)) * right.at(type, column, k, line);
      *registers[q] = cut_off(exact);
    }
  }, line);
}

void ldmatrix(bool transposed, int count, uint32_t address, uint32_t* registers, int line) {
  if (address % 16) fail("ldmatrix of a row that does not start at a multiple of 16 bytes", line);
  const unsigned lane = current->id % WARP;
  if (static_cast<int>(lane) < 8 * count) shared_pointer(address, 16, line);
  Loads mine = {transposed, count, address, registers, line};
  whole_warp(load, &mine, line);
}

}  // namespace ptx
}  // namespace cuda_emulation
