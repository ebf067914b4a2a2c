// A cuDNN descriptor that destroys itself, and the attributes that it is given.
#pragma once
#include <utility>
#include <vector>

#include "library.h"

namespace convc_cudnn {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(Value type) { check(Library::get().cudnnBackendCreateDescriptor(type, &raw_), "cudnnBackendCreateDescriptor"); }
  Descriptor(Descriptor&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(raw_, other.raw_);
    return *this;
  }
  ~Descriptor() {
    if (raw_) Library::get().cudnnBackendDestroyDescriptor(raw_);
  }

  Descriptor& set(Value name, Value type, int64_t count, const void* values) {
    check(Library::get().cudnnBackendSetAttribute(raw_, name, type, count, values), "cudnnBackendSetAttribute");
    return *this;
  }
  // An attribute of one enumerator, which cuDNN takes as an int.
  Descriptor& set(Value name, Value type, Value value) {
    const int number = value;
    return set(name, type, 1, &number);
  }
  Descriptor& set(Value name, const std::vector<int64_t>& values) {
    return set(name, TYPE_INT64, static_cast<int64_t>(values.size()), values.data());
  }
  Descriptor& set(Value name, const Descriptor& other) { return set(name, TYPE_BACKEND_DESCRIPTOR, 1, &other.raw_); }
  Descriptor& finalize(const char* what) {
    check(try_finalize(), what);
    return *this;
  }
  Status try_finalize() { return Library::get().cudnnBackendFinalize(raw_); }

  int64_t get(Value name, Value type, int64_t room, void* values) const {
    int64_t count = 0;
    check(Library::get().cudnnBackendGetAttribute(raw_, name, type, room, &count, values), "cudnnBackendGetAttribute");
    return count;
  }
  int64_t get_integer(Value name) const {
    int64_t value = 0;
    get(name, TYPE_INT64, 1, &value);
    return value;
  }
  RawDescriptor raw() const { return raw_; }

 private:
  RawDescriptor raw_ = nullptr;
};

}  // namespace convc_cudnn
