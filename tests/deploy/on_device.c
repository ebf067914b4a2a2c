/* A module for cuda between buffers on the device, as a program with a pipeline of its own there:  on_device MODULE IN OUT0 ...
 *
 * Two modules from one file, a context each; the first is gone before the second runs again. Results of all are equal. The program
 * works in the device's primary context, as one on CUDA's runtime library does; libconvc neither makes it current nor another. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convc.h"

#define MAX 8
typedef unsigned long long Address;

static int (*retain_primary)(void **, int), (*release_primary)(int), (*get_current)(void **), (*set_current)(void *);
static int (*mem_alloc)(Address *, size_t), (*mem_free)(Address), (*upload)(Address, const void *, size_t, void *),
    (*fetch)(void *, Address, size_t, void *), (*stream_create)(void **, unsigned), (*stream_wait)(void *), (*stream_destroy)(void *);

static void check(int status, const char *what) {
  if (!status) return;
  fprintf(stderr, "%s: %d %s\n", what, status, convc_last_error());
  exit(1);
}

static void open_driver(void) {
  void *driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (!driver) exit(2);
  *(void **)&retain_primary = dlsym(driver, "cuDevicePrimaryCtxRetain");
  *(void **)&release_primary = dlsym(driver, "cuDevicePrimaryCtxRelease_v2");
  *(void **)&get_current = dlsym(driver, "cuCtxGetCurrent");
  *(void **)&set_current = dlsym(driver, "cuCtxSetCurrent");
  *(void **)&mem_alloc = dlsym(driver, "cuMemAlloc_v2");
  *(void **)&mem_free = dlsym(driver, "cuMemFree_v2");
  *(void **)&upload = dlsym(driver, "cuMemcpyHtoDAsync_v2");
  *(void **)&fetch = dlsym(driver, "cuMemcpyDtoHAsync_v2");
  *(void **)&stream_create = dlsym(driver, "cuStreamCreate");
  *(void **)&stream_wait = dlsym(driver, "cuStreamSynchronize");
  *(void **)&stream_destroy = dlsym(driver, "cuStreamDestroy_v2");
}

static int is_current(void *context) {
  void *found = &found;
  check(get_current(&found), "current context");
  return found == context;
}

static void transfer(const char *path, void *memory, size_t nbytes, const char *mode) {
  FILE *file = fopen(path, mode);
  size_t done = !file ? 0 : *mode == 'w' ? fwrite(memory, 1, nbytes, file) : fread(memory, 1, nbytes, file);
  if (done != nbytes || fclose(file)) exit(3);
}

int main(int argc, char **argv) {
  convc_module *module[2];
  convc_context *context[2];
  void *stream, *primary;
  for (int i = 0; i < 2; ++i) {
    check(convc_load(argv[1], NULL, &module[i]), "load");
    check(convc_context_create(module[i], 0, &context[i]), "context");
  }
  open_driver();
  const int untouched = is_current(NULL); /* said at the end, behind all results */
  check(retain_primary(&primary, 0), "primary context");
  check(set_current(primary), "current context");
  check(stream_create(&stream, 0), "stream");

  const size_t outputs = convc_output_count(module[0]);
  if (convc_input_count(module[0]) != 1 || outputs > MAX || argc != (int)outputs + 3) return 4;
  convc_tensor_info info[MAX + 1];
  Address there[MAX + 1];
  void *here[MAX + 1];
  check(convc_input_info(module[1], 0, &info[MAX]), "info");
  for (size_t i = 0; i < outputs; ++i) check(convc_output_info(module[1], i, &info[i]), "info");
  for (size_t i = 0; i <= MAX; ++i) {
    if (i >= outputs && i != MAX) continue;
    check(mem_alloc(&there[i], info[i].nbytes), "cuMemAlloc");
    here[i] = convc_alloc(info[i].nbytes);
  }
  transfer(argv[2], here[MAX], info[MAX].nbytes, "rb");

  const void *in_there[] = {(void *)there[MAX]}, *in_here[] = {here[MAX]};
  void *out_there[MAX], *second[MAX];
  for (size_t i = 0; i < outputs; ++i) out_there[i] = (void *)there[i], second[i] = convc_alloc(info[i].nbytes);

  check(convc_run(context[0], in_here, 1, here, outputs), "run"); /* between the context's own buffers, for comparison */
  convc_context_destroy(context[0]);
  convc_unload(module[0]);
  for (int again = 0; again < 3; ++again) {
    check(upload(there[MAX], here[MAX], info[MAX].nbytes, stream), "upload");
    check(convc_run_on_device(context[1], in_there, 1, out_there, outputs, stream), "run on the device");
    for (size_t i = 0; i < outputs; ++i) check(fetch(second[i], there[i], info[i].nbytes, stream), "fetch");
    check(stream_wait(stream), "wait");
    for (size_t i = 0; i < outputs; ++i) {
      if (memcmp(here[i], second[i], info[i].nbytes)) return 5;
      memset(second[i], 0xff, info[i].nbytes);
    }
    /* In turn with runs that are replayed. */
    check(convc_run(context[1], in_here, 1, second, outputs), "run between");
    for (size_t i = 0; i < outputs; ++i) {
      if (memcmp(here[i], second[i], info[i].nbytes)) return 6;
    }
  }
  if (!is_current(primary)) return 9;
  for (size_t i = 0; i < outputs; ++i) transfer(argv[3 + i], second[i], info[i].nbytes, "wb");

  if (convc_run_on_device(context[1], in_there, 2, out_there, outputs, stream) != CONVC_ERROR_ARGUMENT) return 7;
  if (convc_set_threads(context[1], 2) != CONVC_ERROR_ARGUMENT || !strstr(convc_last_error(), "the CPU only launches")) return 8;
  printf("%s, %zu bytes of workspace\n", convc_module_device(module[1]), convc_context_workspace_bytes(context[1]));
  convc_context_destroy(context[1]);
  convc_unload(module[1]);
  for (size_t i = 0; i < outputs; ++i) mem_free(there[i]), convc_free(here[i]), convc_free(second[i]);
  mem_free(there[MAX]);
  convc_free(here[MAX]);
  stream_destroy(stream);
  release_primary(0);
  return untouched ? 0 : 10;
}
