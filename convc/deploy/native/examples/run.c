/* Run a module from C:  run [--time N] MODULE.so [INPUT.bin ...]
 * Each INPUT.bin holds one input's raw elements; without, inputs are zero. Prints each output's first elements. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "convc.h"

static void check(convc_status status) {
  if (status == CONVC_OK) return;
  fprintf(stderr, "error %d: %s\n", (int)status, convc_last_error());
  exit(1);
}

static void *buffer(size_t nbytes) {
  void *memory = convc_alloc(nbytes);
  if (!memory) exit(2);
  memset(memory, 0, nbytes);
  return memory;
}

static void read_file(const char *path, void *memory, size_t nbytes) {
  FILE *file = fopen(path, "rb");
  if (!file || fread(memory, 1, nbytes, file) != nbytes) {
    fprintf(stderr, "'%s' must hold %zu bytes\n", path, nbytes);
    exit(2);
  }
  fclose(file);
}

static double seconds(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
  int repeats = 0;
  if (argc > 2 && strcmp(argv[1], "--time") == 0) {
    repeats = atoi(argv[2]);
    argv += 2, argc -= 2;
  }
  if (argc < 2) {
    fprintf(stderr, "usage: run [--time N] MODULE.so [INPUT.bin ...]\n");
    return 2;
  }

  convc_module *module;
  double start = seconds();
  check(convc_load(argv[1], NULL, &module));
  double loaded = seconds();
  convc_context *context;
  check(convc_context_create(module, 0, &context)); /* 0: all cores; one context per thread that runs */

  size_t input_count = convc_input_count(module), output_count = convc_output_count(module);
  void **inputs = calloc(input_count + 1, sizeof *inputs), **outputs = calloc(output_count + 1, sizeof *outputs);
  if (!inputs || !outputs) return 2;
  convc_tensor_info info;
  for (size_t i = 0; i < input_count; ++i) {
    check(convc_input_info(module, i, &info));
    inputs[i] = buffer(info.nbytes);
    if ((int)i + 2 < argc) read_file(argv[i + 2], inputs[i], info.nbytes);
  }
  for (size_t i = 0; i < output_count; ++i) {
    check(convc_output_info(module, i, &info));
    outputs[i] = buffer(info.nbytes);
  }

  check(convc_run(context, (const void *const *)inputs, input_count, outputs, output_count));
  for (size_t i = 0; i < output_count; ++i) {
    check(convc_output_info(module, i, &info));
    printf("%s: %s, %zu bytes", info.name, info.dtype, info.nbytes);
    if (strcmp(info.dtype, "float32") == 0) {
      for (size_t j = 0; j < 10 && j < info.nbytes / 4; ++j) printf(" %.9g", ((float *)outputs[i])[j]);
    }
    printf("\n");
  }
  if (repeats > 0) {
    double begin = seconds();
    for (int r = 0; r < repeats; ++r) {
      check(convc_run(context, (const void *const *)inputs, input_count, outputs, output_count));
    }
    printf("load %.3f ms, run %.4f ms on %d threads\n", 1e3 * (loaded - start), 1e3 * (seconds() - begin) / repeats,
           convc_threads(context));
  }

  for (size_t i = 0; i < input_count; ++i) convc_free(inputs[i]);
  for (size_t i = 0; i < output_count; ++i) convc_free(outputs[i]);
  free(inputs);
  free(outputs);
  convc_context_destroy(context);
  convc_unload(module);
  return 0;
}
