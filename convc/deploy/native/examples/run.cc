// Run a module from several threads at once, from C++:  run MODULE.so [THREADS]
// One module, its weights mapped once; one context per thread. Prints how long a run takes.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "convc.hpp"

int main(int argc, char **argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: run MODULE.so [THREADS]\n");
    return 2;
  }
  const int threads = argc > 2 ? std::atoi(argv[2]) : 2;
  try {
    const convc::Module module(argv[1]);
    std::printf("%s for %s, %zu inputs, %zu outputs\n", module.name().c_str(), module.cpu().c_str(), module.inputs(), module.outputs());
    std::vector<std::thread> users;
    std::vector<int> failed(static_cast<std::size_t>(threads));
    for (int t = 0; t < threads; ++t) {
      users.emplace_back([&module, &bad = failed[static_cast<std::size_t>(t)], t] {
        try {
          convc::Context context(module, 1);
          std::vector<convc::Buffer<unsigned char>> memory;
          std::vector<const void *> inputs;
          std::vector<void *> outputs;
          for (std::size_t i = 0; i < module.inputs(); ++i) inputs.push_back(memory.emplace_back(module.input(i)).data());
          for (std::size_t i = 0; i < module.outputs(); ++i) outputs.push_back(memory.emplace_back(module.output(i)).data());
          const auto start = std::chrono::steady_clock::now();
          context.run(inputs, outputs);
          const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
          std::printf("thread %d: %.3f ms\n", t, spent.count());
        } catch (const convc::Error &error) {
          std::fprintf(stderr, "thread %d: error %d: %s\n", t, static_cast<int>(error.status()), error.what());
          bad = 1;
        }
      });
    }
    for (std::thread &user : users) user.join();
    for (const int bad : failed) {
      if (bad) return 1;
    }
  } catch (const convc::Error &error) {
    std::fprintf(stderr, "error %d: %s\n", static_cast<int>(error.status()), error.what());
    return 1;
  }
  return 0;
}
