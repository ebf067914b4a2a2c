/* For driver.c: calls that must work, a module's buffers, files, and the memory that this process takes. */
#ifndef CONVC_TESTS_BUFFERS_H
#define CONVC_TESTS_BUFFERS_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convc.h"

#define MAX 16

static void die(const char *what) {
  fprintf(stderr, "%s: %s\n", what, convc_last_error());
  exit(1);
}

#define CHECK(call) \
  do { \
    if ((call) != CONVC_OK) die(#call); \
  } while (0)

#define EXPECT(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "line %d: %s is false; last error: %s\n", __LINE__, #condition, convc_last_error()); \
      exit(1); \
    } \
  } while (0)

typedef struct {
  void *in[MAX], *out[MAX];
  size_t inputs, outputs, in_bytes[MAX], out_bytes[MAX];
} Buffers;

static void *buffer(size_t nbytes) {
  void *memory = convc_alloc(nbytes);
  if (!memory) die("convc_alloc");
  memset(memory, 0, nbytes);
  return memory;
}

static Buffers make_buffers(const convc_module *module) {
  Buffers b = {0};
  b.inputs = convc_input_count(module), b.outputs = convc_output_count(module);
  convc_tensor_info info;
  for (size_t i = 0; i < b.inputs; ++i) {
    CHECK(convc_input_info(module, i, &info));
    b.in[i] = buffer(b.in_bytes[i] = info.nbytes);
  }
  for (size_t i = 0; i < b.outputs; ++i) {
    CHECK(convc_output_info(module, i, &info));
    b.out[i] = buffer(b.out_bytes[i] = info.nbytes);
  }
  return b;
}

static void free_buffers(Buffers *b) {
  for (size_t i = 0; i < b->inputs; ++i) convc_free(b->in[i]);
  for (size_t i = 0; i < b->outputs; ++i) convc_free(b->out[i]);
}

static convc_status run(convc_context *context, Buffers *b) {
  return convc_run(context, (const void *const *)b->in, b->inputs, b->out, b->outputs);
}

static void transfer(const char *path, void *memory, size_t nbytes, int writes) {
  FILE *file = fopen(path, writes ? "wb" : "rb");
  size_t done = !file ? 0 : writes ? fwrite(memory, 1, nbytes, file) : fread(memory, 1, nbytes, file);
  if (done != nbytes || fclose(file)) {
    fprintf(stderr, "'%s': %zu of %zu bytes\n", path, done, nbytes);
    exit(1);
  }
}

/* Bytes that this process has in memory of its own and of one file: what nobody planned of the C library's and of this program's
 * code stays out, since how much of a file is mapped around a touched page is the kernel's to choose, and so does the error of
 * statm's counters, which are kept by processor and summed up late (64 pages a processor). smaps walks the pages. */
static long committed(const char *path) {
  char line[4096], name[4096];
  long total = 0, kilobytes;
  unsigned long low, high;
  int ours = 0;
  FILE *file = fopen("/proc/self/smaps", "r");
  EXPECT(file);
  while (fgets(line, sizeof line, file)) {
    name[0] = 0;
    if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %4095s", &low, &high, name) >= 2) ours = !strcmp(name, path);
    else if (sscanf(line, ours ? "Rss: %ld kB" : "Anonymous: %ld kB", &kilobytes) == 1) total += 1024 * kilobytes;
  }
  fclose(file);
  return total;
}

#endif
