/* convc.h: run a packaged module (.so) from C. Needs libconvc and the C library; a module for cuda NVIDIA's driver as well, nothing else.
 *
 *     convc_module *module;
 *     if (convc_load("resnet50.so", NULL, &module)) die(convc_last_error());
 *     convc_context *context;
 *     if (convc_context_create(module, 0, &context)) die(convc_last_error());
 *     const void *inputs[] = {image};
 *     void *outputs[] = {scores};
 *     if (convc_run(context, inputs, 1, outputs, 1)) die(convc_last_error());
 *
 * Threads. A module is read-only once loaded and may be used from any number of threads; its weights are mapped from the file once.
 * A context has the working memory of one run at a time: give each thread its own. Two calls on one context must not overlap.
 *
 * Forks. A forked child has none of its parent's threads: a run of a context with workers is an error there until
 * `convc_set_threads` has given it new ones. Modules, contexts with one thread and new contexts work as before. A context that was in
 * the middle of a run when another thread forked must only be destroyed in the child.
 *
 * Memory. Inputs are read and outputs written in place: the caller's buffers must start at a multiple of CONVC_ALIGNMENT bytes
 * (`convc_alloc` gives such memory) and hold `convc_tensor_info.nbytes` bytes, elements in C order. After a context's first run
 * no run allocates anything.
 *
 * CUDA. A module for cuda runs on the device that it was loaded for; each context has a stream and memory there. `convc_run` takes
 * buffers on the host as on a CPU, copies them and waits; `convc_run_on_device` takes addresses on the device and does not wait. The first
 * run's launches are recorded and replayed as one graph. Where a layer is cuDNN's, making a context runs the module once on zeros, so that
 * cuDNN's plans are made by then; only runs at the same time make more. All of it is in the device's primary context, in which CUDA's
 * runtime library works as well: a stream and buffers that a program has made by that library are right as they are, one on the driver's
 * interface makes them there (cuDevicePrimaryCtxRetain, cuCtxSetCurrent). Whatever context is current in a calling thread, or none, stays
 * so. CUDA does not survive a fork: load the module in the child.
 *
 * Errors. Every function that can fail returns a `convc_status`, 0 for success; `convc_last_error` then says in words what was
 * wrong, for the calling thread. No C++ exception and no signal leaves these functions, except for a module file that another
 * program cuts short while it is mapped (SIGBUS): replace module files by renaming, never by writing into them.
 */
#ifndef CONVC_H_
#define CONVC_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when something here changes its meaning; additions do not raise it. */
#define CONVC_API_VERSION 1
#define CONVC_ALIGNMENT 64
#define CONVC_MAX_RANK 16

#if defined(__GNUC__)
#define CONVC_API __attribute__((visibility("default")))
#else
#define CONVC_API
#endif

typedef enum convc_status {
  CONVC_OK = 0,
  CONVC_ERROR_ARGUMENT = 1, /* the call: a null pointer, a wrong count, an unaligned buffer */
  CONVC_ERROR_FILE = 2,     /* the file cannot be opened, mapped or loaded */
  CONVC_ERROR_FORMAT = 3,   /* the file is no module, or one of another format or ABI */
  CONVC_ERROR_CHECKSUM = 4, /* the file is damaged, or not the expected one */
  CONVC_ERROR_TARGET = 5,   /* this machine cannot run any of the module's variants, or lacks the device or its driver */
  CONVC_ERROR_MEMORY = 6,   /* no memory, here or on the device, or no more threads */
  CONVC_ERROR_RUN = 7       /* a kernel refused to run, or the device failed */
} convc_status;

typedef struct convc_module convc_module;
typedef struct convc_context convc_context;

/* The version of the library that runs; compare with CONVC_API_VERSION, the header's. */
CONVC_API uint32_t convc_api_version(void);

/* Why this thread's last failed call failed, as one or two sentences; "" if none has. Valid until the thread's next failure. */
CONVC_API const char *convc_last_error(void);

/* ---- load ---------------------------------------------------------------------------------------------------------------- */

/* Zero-initialise it, set `size` to sizeof(convc_load_options), then what is wanted. */
typedef struct convc_load_options {
  size_t size;
  /* Nonzero: compare all weights with their SHA-256 (reads the whole file). The rest of the file is always checked. */
  int verify_weights;
  /* Not NULL: the whole file must have this SHA-256, 64 hexadecimal digits, before anything else of it is believed. */
  const char *expect_sha256;
  /* Not NULL: take the variant made for this CPU, LLVM's name as `convc_module_cpu` gives it, and not the best that this machine runs. */
  const char *cpu;
  /* Which CUDA device a module for cuda is for, counted from 0 as CUDA counts; others ignore it. */
  int device;
} convc_load_options;

/* Load a module, ready to run on this machine. `options` may be NULL. Nothing of the module's code is loaded before its format,
 * checksum, ABI, CPU, and for cuda driver and device, have been found right. */
CONVC_API convc_status convc_load(const char *path, const convc_load_options *options, convc_module **module);

/* Open a module to look at it; none of its code is loaded, and it may be for another machine. It has no contexts. */
CONVC_API convc_status convc_inspect(const char *path, const convc_load_options *options, convc_module **module);

/* A module linked into this program: the symbol that the header of `convc compile --format static` declares. */
typedef struct convc_static_module convc_static_module;
CONVC_API convc_status convc_load_static(const convc_static_module *linked, const convc_load_options *options, convc_module **module);

/* Give the module back. Its memory goes once its last context is destroyed. NULL is allowed. */
CONVC_API void convc_unload(convc_module *module);

/* ---- what the module is --------------------------------------------------------------------------------------------------- */

typedef struct convc_tensor_info {
  const char *name;
  const char *dtype; /* "float32", "float16", "bfloat16", "float64", "int8" ... "uint64", "bool" */
  int32_t rank;
  const int64_t *shape;
  size_t nbytes;
} convc_tensor_info;

CONVC_API size_t convc_input_count(const convc_module *module);
CONVC_API size_t convc_output_count(const convc_module *module);
CONVC_API convc_status convc_input_info(const convc_module *module, size_t index, convc_tensor_info *info);
CONVC_API convc_status convc_output_info(const convc_module *module, size_t index, convc_tensor_info *info);

/* Texts live as long as the module. */
CONVC_API const char *convc_module_name(const convc_module *module);
CONVC_API const char *convc_module_cpu(const convc_module *module); /* LLVM's name of the CPU that the code in use is made for */
CONVC_API const char *convc_module_device(const convc_module *module); /* "NVIDIA H200 (sm_90)"; "" unless loaded for cuda */

/* The manifest, JSON, `*size` bytes and not zero-terminated. */
CONVC_API const char *convc_module_manifest(const convc_module *module, size_t *size);

typedef struct convc_memory {
  size_t weights_bytes;   /* mapped read-only from the file, once for all contexts and all processes; for cuda on the device as well */
  size_t arena_bytes;     /* of each context; for cuda on the device, as its own inputs and outputs */
  size_t workspace_bytes; /* of each thread of each context; for cuda of each context, on the device */
  size_t input_bytes;     /* the caller's */
  size_t output_bytes;    /* the caller's */
} convc_memory;
CONVC_API convc_status convc_module_memory(const convc_module *module, convc_memory *memory);

/* ---- run ------------------------------------------------------------------------------------------------------------------ */

/* How many threads can run at once: the cores this process may use, capped by its control group's CPU quota. */
CONVC_API int convc_usable_threads(void);

/* Make a context whose runs use `threads` threads, the caller's included; 0 means all usable ones. For cuda: 0 or 1, it only launches. */
CONVC_API convc_status convc_context_create(convc_module *module, int threads, convc_context **context);
CONVC_API void convc_context_destroy(convc_context *context);
CONVC_API convc_status convc_set_threads(convc_context *context, int threads);
CONVC_API int convc_threads(const convc_context *context);

/* Run once. Buffers in the module's order; outputs must not overlap inputs or each other. */
CONVC_API convc_status convc_run(convc_context *context, const void *const *inputs, size_t input_count,
                                 void *const *outputs, size_t output_count);

/* How many samples the largest code of a module with a symbolic batch takes, which is what `convc_run` runs and what shapes and sizes
 * above are for; 0 of fixed shapes. */
CONVC_API size_t convc_module_batch(const convc_module *module);
/* Bytes of an input or output for each sample; 0 where it does not depend on the batch. */
CONVC_API size_t convc_input_sample_bytes(const convc_module *module, size_t index);
CONVC_API size_t convc_output_sample_bytes(const convc_module *module, size_t index);

/* Run any number of samples, one behind the other in the buffers. They are split into the batch sizes that there is code for; where one
 * begins between two multiples of CONVC_ALIGNMENT, or fewer are left than the smallest size, they are copied, through memory that the
 * first such run takes. Not for buffers on a device. */
CONVC_API convc_status convc_run_batch(convc_context *context, size_t samples, const void *const *inputs, size_t input_count,
                                       void *const *outputs, size_t output_count);

/* Queue a run of a module for cuda on a stream (CUstream, cudaStream_t; NULL: the default one), and do not wait. Buffers are addresses on
 * the module's device; they and the stream belong to its primary context (above). Queue the runs of one context on one stream, or wait in between: they share its arena. */
CONVC_API convc_status convc_run_on_device(convc_context *context, const void *const *inputs, size_t input_count,
                                           void *const *outputs, size_t output_count, void *stream);

/* Which layers convc's own kernels compute since the device's cuDNN is missing or has refused them when the context was made: a line for
 * each, "LAYER: ALGORITHM in place of cudnn: WHY\n"; "" where there are none. Lives as long as the context. What has no kernel of convc's
 * beside it is an error of convc_context_create. */
CONVC_API const char *convc_context_fallbacks(const convc_context *context);

/* What the context's workspaces hold now: equal to threads x workspace_bytes or less. */
CONVC_API size_t convc_context_workspace_bytes(const convc_context *context);

/* ---- profile -------------------------------------------------------------------------------------------------------------- */

typedef struct convc_step_info {
  const char *node;
  const char *op;
  const char *algorithm; /* "" where there was no choice */
  int64_t flops;
  int64_t nbytes; /* of all its operands */
} convc_step_info;

CONVC_API size_t convc_step_count(const convc_module *module);
CONVC_API convc_status convc_step_info_at(const convc_module *module, size_t index, convc_step_info *info);

/* Run the steps one by one, `repeats` times after one run that does not count; `seconds` receives each step's median time.
 * A normal run does not look at a clock: profiling costs nothing when it is not asked for. For cuda a time is the device's: of ten calls
 * in a graph, between two events. */
CONVC_API convc_status convc_profile(convc_context *context, const void *const *inputs, size_t input_count,
                                     void *const *outputs, size_t output_count, int repeats, double *seconds);

/* Run once, step by step, and write a Chrome trace (chrome://tracing, ui.perfetto.dev). */
CONVC_API convc_status convc_trace(convc_context *context, const void *const *inputs, size_t input_count,
                                   void *const *outputs, size_t output_count, const char *path);

/* ---- memory --------------------------------------------------------------------------------------------------------------- */

/* Memory for inputs and outputs, aligned, not cleared; NULL if there is none. */
CONVC_API void *convc_alloc(size_t nbytes);
CONVC_API void convc_free(void *memory);

#ifdef __cplusplus
}
#endif
#endif /* CONVC_H_ */
