// convc.hpp: convc.h for C++17, header only. Every failure is a `convc::Error`.
//
//     convc::Module module("resnet50.so");
//     convc::Context context(module);               // one per thread
//     auto image = convc::Buffer<float>(module.input(0));
//     auto scores = convc::Buffer<float>(module.output(0));
//     context.run({image.data()}, {scores.data()});
#ifndef CONVC_HPP_
#define CONVC_HPP_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "convc.h"

namespace convc {

class Error : public std::runtime_error {
 public:
  Error(convc_status status, const char *message) : std::runtime_error(message), status_(status) {}
  convc_status status() const noexcept { return status_; }

 private:
  convc_status status_;
};

inline void check(convc_status status) {
  if (status != CONVC_OK) throw Error(status, convc_last_error());
}

struct Tensor {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::size_t nbytes = 0;
  std::size_t sample_bytes = 0;  // with a symbolic batch; 0 where the tensor does not depend on it
};

struct LoadOptions {
  bool verify_weights = false;
  std::string expect_sha256;
  std::string cpu;
  int device = 0;
};

class Module {
 public:
  explicit Module(const std::string &path, const LoadOptions &options = {}) {
    const convc_load_options given = c_options(options);
    convc_module *made = nullptr;
    check(convc_load(path.c_str(), &given, &made));
    handle_.reset(made, convc_unload);
  }
  explicit Module(const convc_static_module &linked, const LoadOptions &options = {}) {
    const convc_load_options given = c_options(options);
    convc_module *made = nullptr;
    check(convc_load_static(&linked, &given, &made));
    handle_.reset(made, convc_unload);
  }

  std::string name() const { return convc_module_name(handle_.get()); }
  std::string cpu() const { return convc_module_cpu(handle_.get()); }
  std::string device() const { return convc_module_device(handle_.get()); }
  std::size_t inputs() const { return convc_input_count(handle_.get()); }
  std::size_t outputs() const { return convc_output_count(handle_.get()); }
  std::size_t batch() const { return convc_module_batch(handle_.get()); }
  Tensor input(std::size_t index) const { return tensor(convc_input_info, convc_input_sample_bytes, index); }
  Tensor output(std::size_t index) const { return tensor(convc_output_info, convc_output_sample_bytes, index); }
  convc_memory memory() const {
    convc_memory found;
    check(convc_module_memory(handle_.get(), &found));
    return found;
  }
  convc_module *get() const noexcept { return handle_.get(); }

 private:
  static convc_load_options c_options(const LoadOptions &options) {
    convc_load_options given{};
    given.size = sizeof given;
    given.verify_weights = options.verify_weights;
    given.expect_sha256 = options.expect_sha256.empty() ? nullptr : options.expect_sha256.c_str();
    given.cpu = options.cpu.empty() ? nullptr : options.cpu.c_str();
    given.device = options.device;
    return given;
  }
  template <typename Get, typename Sample>
  Tensor tensor(Get get, Sample sample, std::size_t index) const {
    convc_tensor_info info;
    check(get(handle_.get(), index, &info));
    return {info.name, info.dtype, {info.shape, info.shape + info.rank}, info.nbytes, sample(handle_.get(), index)};
  }

  std::shared_ptr<convc_module> handle_;
};

// The working memory of one thread; keeps its module alive.
class Context {
 public:
  explicit Context(const Module &module, int threads = 0) {
    convc_context *made = nullptr;
    check(convc_context_create(module.get(), threads, &made));
    handle_.reset(made);
  }

  void run(const std::vector<const void *> &inputs, const std::vector<void *> &outputs) {
    check(convc_run(handle_.get(), inputs.data(), inputs.size(), outputs.data(), outputs.size()));
  }
  // Any number of samples of a module with a symbolic batch.
  void run_batch(std::size_t samples, const std::vector<const void *> &inputs, const std::vector<void *> &outputs) {
    check(convc_run_batch(handle_.get(), samples, inputs.data(), inputs.size(), outputs.data(), outputs.size()));
  }
  // Addresses on the device of a module for cuda; queued on a stream, not waited for.
  void run_on_device(const std::vector<const void *> &inputs, const std::vector<void *> &outputs, void *stream = nullptr) {
    check(convc_run_on_device(handle_.get(), inputs.data(), inputs.size(), outputs.data(), outputs.size(), stream));
  }
  std::vector<double> profile(const std::vector<const void *> &inputs, const std::vector<void *> &outputs,
                              std::size_t steps, int repeats = 10) {
    std::vector<double> seconds(steps);
    check(convc_profile(handle_.get(), inputs.data(), inputs.size(), outputs.data(), outputs.size(), repeats,
                        seconds.data()));
    return seconds;
  }
  // Which layers convc's own kernels compute in place of cuDNN, a line for each; "" where there are none.
  std::string fallbacks() const { return convc_context_fallbacks(handle_.get()); }
  void set_threads(int threads) { check(convc_set_threads(handle_.get(), threads)); }
  int threads() const { return convc_threads(handle_.get()); }
  convc_context *get() const noexcept { return handle_.get(); }

 private:
  struct Destroy {
    void operator()(convc_context *context) const noexcept { convc_context_destroy(context); }
  };
  std::unique_ptr<convc_context, Destroy> handle_;
};

// Aligned memory for one tensor, filled with zeros.
template <typename T>
class Buffer {
 public:
  explicit Buffer(const Tensor &tensor) : Buffer(tensor.nbytes / sizeof(T)) {
    if (tensor.nbytes % sizeof(T)) throw std::invalid_argument("convc::Buffer: element type does not fit " + tensor.dtype);
  }
  explicit Buffer(std::size_t count) : memory_(static_cast<T *>(convc_alloc(count * sizeof(T)))), count_(count) {
    if (!memory_) throw std::bad_alloc();
    for (std::size_t i = 0; i < count; ++i) memory_.get()[i] = T();
  }
  T *data() noexcept { return memory_.get(); }
  const T *data() const noexcept { return memory_.get(); }
  std::size_t size() const noexcept { return count_; }
  T *begin() noexcept { return data(); }
  T *end() noexcept { return data() + count_; }
  T &operator[](std::size_t i) noexcept { return data()[i]; }

 private:
  struct Free {
    void operator()(T *memory) const noexcept { convc_free(memory); }
  };
  std::unique_ptr<T, Free> memory_;
  std::size_t count_;
};

}  // namespace convc
#endif  // CONVC_HPP_
